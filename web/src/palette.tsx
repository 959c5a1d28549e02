// The command palette: every page, every deed, and everything that has a name, a few letters away.
import { useEffect, useId, useRef, useState } from 'preact/hooks';
import { get, query, Refusal } from './api';
import { spawnGoverned, spawnWorker } from './deeds/agents';
import { addHost, createEnvironment } from './deeds/fleet';
import { setPool } from './deeds/pools';
import { startRun } from './deeds/runs';
import { assignTask } from './deeds/tasks';
import { signOut } from './pages/settings';
import { pageOf } from './pages/shared';
import { go, href } from './route';
import { turn } from './theme';
import type { Environment, Governed, Machine, Run, Task, Worker } from './types';
import { close, Dialog, show } from './ui/dialog';
import { firstLine, short, words as wordsOf } from './ui/format';

interface Choice {
  kind: string;
  name: string;
  more?: string;
  act: () => void;
}

const page = (name: string, to: string): Choice => ({ kind: 'Go to', name, act: () => go(to) });
const deed = (name: string, act: () => void): Choice => ({ kind: 'Do', name, act });

const FIXED: Choice[] = [
  page('Overview', '#/'),
  page('Runs', '#/runs'),
  page('Tasks', '#/tasks'),
  page('Agents', '#/agents'),
  page('Environments', '#/environments'),
  page('Hosts', '#/hosts'),
  page('Pools', '#/pools'),
  page('Approvals', '#/approvals'),
  page('Ledger', '#/ledger'),
  page('Live events', '#/events'),
  page('Settings', '#/settings'),
  deed('Start a run', startRun),
  deed('Assign a task', () => assignTask()),
  deed('Spawn a worker', spawnWorker),
  deed('Spawn a governed agent', spawnGoverned),
  deed('Create an environment', createEnvironment),
  deed('Add a host', addHost),
  deed('Make a pool', () => setPool()),
  deed('Light or dark', turn),
  deed('Sign out', () => void signOut()),
];

async function quietly<T>(at: string, empty: T): Promise<T> {
  try {
    return await get<T>(at);
  } catch (error) {
    if (error instanceof Refusal) return empty;
    throw error;
  }
}

/** Everything that has a name just now. */
async function named(): Promise<Choice[]> {
  const [workers, governed, envs, vms, tasks, runs] = await Promise.all([
    quietly<{ agents: Worker[] }>('/v1/agents', { agents: [] }),
    quietly<Governed[]>('/agents', []),
    quietly<Environment[]>('/api/envs?limit=200', []),
    quietly<Machine[]>('/api/vms?limit=200', []),
    quietly<{ tasks: Task[] }>(query('/v1/tasks', { limit: 200, order: 'newest' }), { tasks: [] }),
    quietly<{ runs: Run[] }>('/v1/runs?limit=100', { runs: [] }),
  ]);
  return [
    ...runs.runs.map((run) => ({
      kind: 'Run',
      name: firstLine(run.task),
      more: `${run.state} ${short(run.id)}`,
      act: () => go(href('runs', run.id)),
    })),
    ...workers.agents.map((one) => ({
      kind: 'Worker',
      name: one.name,
      more: one.state,
      act: () => go(href('agents', 'workers', one.id)),
    })),
    ...governed.map((one) => ({
      kind: 'Agent',
      name: one.name,
      more: one.status,
      act: () => go(href('agents', 'governed', one.id)),
    })),
    ...envs.map((env) => ({
      kind: 'Environment',
      name: env.id,
      more: env.state,
      act: () => go(href('environments', env.id)),
    })),
    ...vms.map((vm) => ({
      kind: 'Machine',
      name: vm.id,
      more: `${vm.env_id} ${vm.state}`,
      act: () => go(href('machines', vm.id)),
    })),
    ...tasks.tasks.map((task) => ({
      kind: 'Task',
      name: firstLine(task.description),
      more: `${task.state} ${short(task.task_id)}`,
      act: () => go(href('tasks', task.task_id)),
    })),
  ];
}

/** The higher the better; 0: it does not fit. All letters have to come, in their order. */
export function fit(wanted: string, text: string): number {
  const within = text.toLowerCase();
  const found = within.indexOf(wanted);
  if (found >= 0) return 100 - Math.min(50, found);
  let at = 0;
  for (const letter of wanted) {
    at = within.indexOf(letter, at) + 1;
    if (!at) return 0;
  }
  return 10;
}

/** What the server finds by a word, of every kind. */
async function searched(words: string): Promise<Choice[]> {
  const answer = await quietly<{ found: { kind: string; id: string; name?: string; state?: string }[] }>(
    query('/v1/search', { q: words, limit: 12 }),
    { found: [] },
  );
  return answer.found.flatMap((one) => {
    const to = pageOf(one.kind, one.id);
    return to ? [{ kind: wordsOf(one.kind), name: one.name || one.id, more: one.state ?? '', act: () => go(to) }] : [];
  });
}

const SHOWN = 12;
const SETTLE_MS = 150;

function Palette() {
  const [wanted, setWanted] = useState('');
  const [chosen, setChosen] = useState(0);
  const [things, setThings] = useState<Choice[]>([]);
  const [more, setMore] = useState<Choice[]>([]);
  const list = useRef<HTMLDivElement>(null);
  const id = useId();
  useEffect(() => {
    void named().then(setThings);
  }, []);
  const words = wanted.trim().toLowerCase();
  useEffect(() => {
    setMore([]);
    if (words.length < 2) return;
    const timer = setTimeout(() => void searched(words).then(setMore), SETTLE_MS);
    return () => clearTimeout(timer);
  }, [words]);
  const known = new Set(things.map((one) => one.name));
  const rows = (words ? [...FIXED, ...things, ...more.filter((one) => !known.has(one.name))] : FIXED)
    .map((choice) => ({
      choice,
      rank: words
        ? Math.max(fit(words, choice.name), fit(words, `${choice.kind} ${choice.name} ${choice.more ?? ''}`) - 20)
        : 1,
    }))
    .filter((row) => row.rank > 0)
    .sort((one, other) => other.rank - one.rank)
    .slice(0, words ? SHOWN : FIXED.length);
  const at = Math.min(chosen, rows.length - 1);

  const take = (choice: Choice | undefined): void => {
    if (!choice) return;
    close();
    choice.act();
  };
  const onKey = (event: KeyboardEvent): void => {
    if (event.key === 'ArrowDown' || event.key === 'ArrowUp') {
      event.preventDefault();
      const next = (at + (event.key === 'ArrowDown' ? 1 : -1) + rows.length) % Math.max(1, rows.length);
      setChosen(next);
      list.current?.children[next]?.scrollIntoView({ block: 'nearest' });
    } else if (event.key === 'Enter') {
      event.preventDefault();
      take(rows[at]?.choice);
    }
  };
  return (
    <Dialog title="Find anything, do anything">
      <div class="palette">
        <input
          type="text"
          role="combobox"
          aria-label="Find anything, do anything"
          aria-expanded="true"
          aria-controls={id}
          aria-activedescendant={rows.length ? `${id}-${at}` : undefined}
          autocomplete="off"
          spellcheck={false}
          placeholder="A page, a deed, a name"
          value={wanted}
          onInput={(event) => {
            setWanted(event.currentTarget.value);
            setChosen(0);
          }}
          onKeyDown={onKey}
        />
        <div role="listbox" id={id} ref={list} aria-label="What fits">
          {rows.map(({ choice }, index) => (
            <div
              key={index}
              id={`${id}-${index}`}
              role="option"
              tabIndex={-1}
              aria-selected={index === at}
              onClick={() => take(choice)}
              onMouseMove={() => setChosen(index)}
            >
              <span class="dim small">{choice.kind}</span>
              <span class="cut">{choice.name}</span>
              <span class="dim small cut">{choice.more}</span>
            </div>
          ))}
          {!rows.length && <p class="dim">Nothing has that name.</p>}
        </div>
      </div>
    </Dialog>
  );
}

export const openPalette = (): void => show(() => <Palette />);
