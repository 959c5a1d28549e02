// Who is signed in. The credential is in this tab's session storage, and nowhere else.
import { signal } from '@preact/signals';

const KEY = 'borough.credential';

export const credential = signal<string | null>(sessionStorage.getItem(KEY));
export const signedOutBecause = signal<string | null>(null);

export function keep(secret: string): void {
  sessionStorage.setItem(KEY, secret);
  signedOutBecause.value = null;
  credential.value = secret;
}

export function forget(why: string | null): void {
  sessionStorage.removeItem(KEY);
  signedOutBecause.value = why;
  credential.value = null;
}

export const isSession = (secret: string | null): boolean => secret?.startsWith('bop_s_') ?? false;

// Takes the code out of the address before anything else sees it: it is in no history entry and no referrer.
function takeCode(): string | null {
  const found = /^#code=([\w-]{20,128})$/.exec(location.hash);
  if (!found) return null;
  history.replaceState(null, '', '#/');
  return found[1] ?? null;
}

/** The code that the address offered, until it is used. */
export const offered = signal<string | null>(takeCode());
addEventListener('hashchange', () => {
  offered.value = takeCode() ?? offered.value;
});
