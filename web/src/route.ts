// Where we are: the fragment of the address, so that every view has a link of its own.
import { computed, signal } from '@preact/signals';
import './session'; // it takes a code out of the address first

const fragment = signal(location.hash);
addEventListener('hashchange', () => {
  fragment.value = location.hash;
});

export interface Place {
  /** Decoded segments of the path. */
  parts: string[];
  query: URLSearchParams;
}

function decoded(part: string): string {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

export const place = computed<Place>(() => {
  const [before = '', after = ''] = fragment.value.replace(/^#\/?/, '').split('?', 2);
  return { parts: before.split('/').filter(Boolean).map(decoded), query: new URLSearchParams(after) };
});

export function href(...parts: string[]): string {
  return `#/${parts.map(encodeURIComponent).join('/')}`;
}

export function go(to: string): void {
  location.hash = to.startsWith('#') ? to : `#${to}`;
}

/** Changes what is asked of the present view, without another step of history. */
export function ask(changes: Record<string, string | null>): void {
  const { parts, query } = place.peek();
  const next = new URLSearchParams(query);
  for (const [name, value] of Object.entries(changes)) {
    if (value) next.set(name, value);
    else next.delete(name);
  }
  const words = next.toString();
  history.replaceState(null, '', href(...parts) + (words ? `?${words}` : ''));
  fragment.value = location.hash;
}
