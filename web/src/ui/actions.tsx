// Things that can be done: each is a request that can also be copied, for curl or for a terminal.
import { useState } from 'preact/hooks';
import { asCurl, type Order, perform } from '../api';
import { refreshAll } from '../resource';
import { close, Dialog, show } from './dialog';
import { copy, failed, said } from './toasts';

export interface Deed extends Order {
  label: string;
  /** What is told when it is done. */
  done: string;
  tone?: 'main' | 'danger';
  /** What is asked before; nothing is asked where it can be undone. */
  confirm?: string;
  after?: () => void;
}

export async function doIt(deed: Deed): Promise<boolean> {
  try {
    await perform(deed);
    said(deed.done);
    deed.after?.();
    return true;
  } catch (error) {
    failed(error);
    return false;
  } finally {
    refreshAll();
  }
}

/** The second press of a double click: what it was meant for may be done, and another thing be in its place. */
export const isRepeat = (event: MouseEvent): boolean => event.detail > 1;

export function start(deed: Deed): void {
  if (deed.confirm) show(() => <Confirm deed={deed} />);
  else void doIt(deed);
}

function Confirm({ deed }: { deed: Deed }) {
  const [busy, setBusy] = useState(false);
  return (
    <Dialog title={deed.label}>
      <p>{deed.confirm}</p>
      <Copies order={deed} />
      <footer>
        <button type="button" onClick={close}>
          Back
        </button>
        <button
          type="button"
          class={deed.tone === 'danger' ? 'danger solid' : 'main'}
          disabled={busy}
          onClick={async (event) => {
            if (isRepeat(event)) return;
            setBusy(true);
            if (await doIt(deed)) close();
            setBusy(false);
          }}
        >
          {deed.label}
        </button>
      </footer>
    </Dialog>
  );
}

export function Copies({ order }: { order: Order }) {
  return (
    <div class="copies">
      {order.cli && (
        <button
          type="button"
          class="quiet small"
          title={order.cli}
          onClick={() => void copy(order.cli ?? '', 'the command')}
        >
          Copy as command
        </button>
      )}
      <button
        type="button"
        class="quiet small"
        title={asCurl(order)}
        onClick={() => void copy(asCurl(order), 'the curl command')}
      >
        Copy as curl
      </button>
    </div>
  );
}

/** A button, and beside it a menu with the ways to do the same elsewhere. */
export function Action({ deed, small = false }: { deed: Deed; small?: boolean }) {
  const [busy, setBusy] = useState(false);
  const tone = deed.tone === 'danger' ? 'danger' : (deed.tone ?? '');
  return (
    <span class={small ? 'action small' : 'action'}>
      <button
        type="button"
        class={tone}
        disabled={busy}
        onClick={async (event) => {
          if (isRepeat(event)) return;
          if (deed.confirm) return start(deed);
          setBusy(true);
          await doIt(deed);
          return setBusy(false);
        }}
      >
        {deed.label}
      </button>
      <Menu deed={deed} tone={tone} />
    </span>
  );
}

function Menu({ deed, tone }: { deed: Deed; tone: string }) {
  return (
    <details
      class="menu"
      onFocusOut={(event) => {
        if (!event.currentTarget.contains(event.relatedTarget as Node | null)) event.currentTarget.open = false;
      }}
      onKeyDown={(event) => {
        if (event.key === 'Escape') event.currentTarget.open = false;
      }}
    >
      <summary class={tone} aria-label={`${deed.label}: copy as a command`}>
        ⋯
      </summary>
      <div class="menu-items">
        <Copies order={deed} />
      </div>
    </details>
  );
}
