// Dialogs: the browser's own, which keep the focus and give it back.
import { signal } from '@preact/signals';
import type { ComponentChildren } from 'preact';
import { useLayoutEffect, useRef } from 'preact/hooks';

/** What is open; one at a time. */
export const open = signal<(() => ComponentChildren) | null>(null);

export const show = (make: () => ComponentChildren): void => {
  open.value = make;
};
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
      onClose={close}
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
