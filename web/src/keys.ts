// The keys that the page knows.
export const KEYS: [string[], string][] = [
  [['Ctrl', 'K'], 'Find anything, do anything'],
  [['?'], 'These keys'],
  [['g', 'o'], 'Overview'],
  [['g', 'r'], 'Runs'],
  [['g', 't'], 'Tasks'],
  [['g', 'a'], 'Agents'],
  [['g', 'e'], 'Environments'],
  [['g', 'h'], 'Hosts'],
  [['g', 'p'], 'Approvals'],
  [['g', 'l'], 'Ledger'],
  [['g', 'v'], 'Live events'],
  [['g', 's'], 'Settings'],
  [['n'], 'Assign a task'],
  [['j'], 'Next row of a list'],
  [['k'], 'Row before'],
  [['Enter'], 'Open the row'],
  [['Esc'], 'Close what is open'],
];

export const PLACES: Record<string, string> = {
  o: '#/',
  r: '#/runs',
  t: '#/tasks',
  a: '#/agents',
  e: '#/environments',
  h: '#/hosts',
  p: '#/approvals',
  l: '#/ledger',
  v: '#/events',
  s: '#/settings',
};

const SEQUENCE_MS = 1200;

interface Reactions {
  palette: () => void;
  help: () => void;
  assign: () => void;
}

const typing = (target: EventTarget | null): boolean =>
  target instanceof Element && target.closest('input, textarea, select, [contenteditable], .terminal') !== null;

/** Listens until the returned function is called. */
export function listen(reactions: Reactions): () => void {
  let since = Number.NEGATIVE_INFINITY;
  const hear = (event: KeyboardEvent): void => {
    if ((event.ctrlKey || event.metaKey) && event.key.toLowerCase() === 'k') {
      event.preventDefault();
      reactions.palette();
      return;
    }
    if (
      event.ctrlKey ||
      event.metaKey ||
      event.altKey ||
      typing(event.target) ||
      document.querySelector('dialog[open]')
    )
      return;
    const to = PLACES[event.key];
    if (performance.now() - since < SEQUENCE_MS && to) {
      since = Number.NEGATIVE_INFINITY;
      location.hash = to;
      event.preventDefault();
    } else if (event.key === 'g') since = performance.now();
    else if (event.key === '?') reactions.help();
    else if (event.key === 'n') {
      event.preventDefault();
      reactions.assign();
    } else return;
  };
  addEventListener('keydown', hear);
  return () => removeEventListener('keydown', hear);
}
