// Dialogs: the browser's own, which keep the focus and give it back.
import { signal } from '@preact/signals';
import type { ComponentChildren } from 'preact';
import { useLayoutEffect, useRef } from 'preact/hooks';
import { Loading } from './parts';

/** What is open; one at a time. */
export const open = signal<(() => ComponentChildren) | null>(null);

export const show = (make: () => ComponentChildren): void => {
  open.value = make;
};
/** Opens a dialog at once, and what it is about when that is read. */
export function showRead(title: string, read: Promise<unknown>, make: () => ComponentChildren): void {
  const meanwhile = (): ComponentChildren => (
    <Dialog title={title}>
      <Loading />
    </Dialog>
  );
  show(meanwhile);
  void read.then(() => {
    if (open.peek() === meanwhile) show(make);
  });
}
export const close = (): void => {
  open.value = null;
};

export function Dialog({
  title,
  children,
  wide = false,
}: {
  title: string;
  children: ComponentChildren;
  wide?: boolean;
}) {
  const dialog = useRef<HTMLDialogElement>(null);
  useLayoutEffect(() => {
    const shown = dialog.current;
    shown?.showModal();
    shown?.querySelector<HTMLElement>('input, textarea, select')?.focus();
    return () => shown?.close();
  }, []);
  return (
    <dialog
      ref={dialog}
      class={wide ? 'wide' : ''}
      aria-label={title}
      // One that has gone hears of its end too, when another is open.
      onClose={() => dialog.current && close()}
      onMouseDown={(event) => {
        if (event.target === dialog.current && event.detail < 2) close(); // a double click opens it, and no more
      }}
    >
      <div class="dialog-inside">
        <header>
          <h2>{title}</h2>
          <button type="button" class="quiet" aria-label="Close" onClick={close}>
            ✕
          </button>
        </header>
        {children}
      </div>
    </dialog>
  );
}

export function Dialogs() {
  return <>{open.value?.()}</>;
}
