// What came of what was done: told for some seconds, and to screen readers.
import { signal } from '@preact/signals';
import { Refusal } from '../api';

interface Toast {
  id: number;
  tone: 'good' | 'bad';
  text: string;
  more: string | null;
}

const toasts = signal<Toast[]>([]);
let last = 0;

const GOOD_MS = 4000;
const BAD_MS = 12_000;

function tell(tone: Toast['tone'], text: string, more: string | null): void {
  last += 1;
  const id = last;
  toasts.value = [...toasts.value.slice(-3), { id, tone, text, more }];
  setTimeout(() => dismiss(id), tone === 'good' ? GOOD_MS : BAD_MS);
}

const dismiss = (id: number): void => {
  toasts.value = toasts.value.filter((toast) => toast.id !== id);
};

export const said = (text: string): void => tell('good', text, null);

export function failed(error: unknown): void {
  if (error instanceof Refusal)
    tell('bad', error.message, [error.reason, error.resolution].filter(Boolean).join(' · ') || null);
  else tell('bad', error instanceof Error ? error.message : String(error), null);
}

export async function copy(text: string, what: string): Promise<void> {
  try {
    await navigator.clipboard.writeText(text);
    said(`${what.charAt(0).toUpperCase()}${what.slice(1)} copied`);
  } catch {
    failed(new Error(`the browser did not let ${what} be copied`));
  }
}

export function Toasts() {
  return (
    <div class="toasts" role="status" aria-live="polite">
      {toasts.value.map((toast) => (
        <div key={toast.id} class={`toast ${toast.tone}`}>
          <div>
            <div>{toast.text}</div>
            {toast.more && <div class="dim small">{toast.more}</div>}
          </div>
          <button type="button" class="quiet" aria-label="Dismiss" onClick={() => dismiss(toast.id)}>
            ✕
          </button>
        </div>
      ))}
    </div>
  );
}
