// Moments, amounts and names as people read them.
import { signal } from '@preact/signals';

const SECOND_MS = 1000;

/** How high charts are. */
export const CHART_PX = 132;

/** Moves on every ten seconds, so that “3 min ago” stays true. */
export const now = signal(Date.now());
setInterval(() => {
  if (!document.hidden) now.value = Date.now();
}, 10 * SECOND_MS);

const UNITS: [number, string][] = [
  [86_400, 'd'],
  [3600, 'h'],
  [60, 'min'],
];

export function span(seconds: number): string {
  const whole = Math.max(0, Math.round(seconds));
  for (const [size, name] of UNITS) {
    if (whole < size) continue;
    const first = Math.floor(whole / size);
    const second = UNITS.find(([smaller]) => smaller < size);
    const left = second ? Math.floor((whole % size) / second[0]) : 0;
    return second && left && first < 10 ? `${first} ${name} ${left} ${second[1]}` : `${first} ${name}`;
  }
  return `${whole} s`;
}

export function milliseconds(ms: number): string {
  if (ms < 1) return `${ms.toFixed(2)} ms`;
  if (ms < 10) return `${ms.toFixed(1)} ms`;
  if (ms < SECOND_MS) return `${Math.round(ms)} ms`;
  return ms < 60 * SECOND_MS ? `${(ms / SECOND_MS).toFixed(1)} s` : span(ms / SECOND_MS);
}

/** A moment of any of our dialects, in milliseconds: RFC 3339, or seconds since 1970. */
export function millis(moment: string | number | null | undefined): number | null {
  if (moment === null || moment === undefined || moment === '') return null;
  const found = typeof moment === 'number' ? moment * SECOND_MS : Date.parse(moment);
  return Number.isFinite(found) ? found : null;
}

export function bytes(amount: number): string {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
  let at = 0;
  let left = amount;
  while (left >= 1024 && at < units.length - 1) {
    left /= 1024;
    at += 1;
  }
  return `${left >= 100 || at === 0 ? Math.round(left) : left.toFixed(1)} ${units[at]}`;
}

export const mebibytes = (amount: number): string => bytes(amount * 1_048_576);

export const short = (id: string): string => (/^[\da-f-]{36}$/.test(id) ? id.slice(0, 8) : id);

export const count = (amount: number): string => amount.toLocaleString('en');

export function plural(amount: number, one: string, many = `${one}s`): string {
  return `${count(amount)} ${amount === 1 ? one : many}`;
}

/** `task_completed`, `ToolInvoke` or `vm.created` in words. */
export function words(name: string): string {
  const spaced = name.replace(/([a-z])([A-Z])/g, '$1 $2').replace(/[_.]+/g, ' ');
  return spaced.charAt(0).toUpperCase() + spaced.slice(1).toLowerCase();
}

export const firstLine = (text: string): string => text.split('\n', 1)[0] ?? '';
