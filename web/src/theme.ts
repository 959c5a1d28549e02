// Light, dark, or as the system says.
import { signal } from '@preact/signals';

export type Theme = 'system' | 'light' | 'dark';
const KEY = 'borough.theme';
const isTheme = (word: string | null): word is Theme => word === 'system' || word === 'light' || word === 'dark';

const stored = localStorage.getItem(KEY);
export const theme = signal<Theme>(isTheme(stored) ? stored : 'system');

function apply(): void {
  if (theme.value === 'system') delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme.value;
}

export function choose(next: Theme): void {
  theme.value = next;
  localStorage.setItem(KEY, next);
  apply();
}

export function turn(): void {
  const dark =
    theme.value === 'dark' || (theme.value === 'system' && matchMedia('(prefers-color-scheme: dark)').matches);
  choose(dark ? 'light' : 'dark');
}

apply();
