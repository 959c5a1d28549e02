// Figures over time: the last hour, as the server has taken them, and what the ledger tells of tool calls.
import { signal } from '@preact/signals';
import { get, query, Refusal } from './api';
import { credential } from './session';
import type { Entry } from './types';

const EVERY_MS = 5000;
const MOST = 720;
const MINUTE_S = 60;

export interface Sample {
  /** Seconds since 1970. */
  at: number;
  waiting: number | null;
  underway: number | null;
  /** Percent. */
  cpu: number | null;
  memory: number | null;
}

export const samples = signal<Sample[]>([]);

interface Figures {
  figures: { at: string; waiting: number | null; underway: number | null; cpu: number | null; memory: number | null }[];
}

let newest = '';

const percent = (share: number | null): number | null => (share === null ? null : 100 * share);

/** Reads what the server has taken since the last time. */
async function read(): Promise<void> {
  if (!credential.value || document.hidden) return;
  let came: Figures['figures'];
  try {
    came = (await get<Figures>(query('/v1/figures', { since: newest }))).figures;
  } catch (error) {
    // What is away or not served draws no line; the panels beside say why.
    if (error instanceof Refusal) return;
    throw error;
  }
  newest = came.at(-1)?.at ?? newest;
  const more = came.map((one) => ({
    at: Math.round(Date.parse(one.at) / 1000),
    waiting: one.waiting,
    underway: one.underway,
    cpu: percent(one.cpu),
    memory: percent(one.memory),
  }));
  if (more.length) samples.value = [...samples.value, ...more].slice(-MOST);
}

/** Reads figures until the returned function is called; then they are forgotten with who was signed in. */
export function observe(): () => void {
  void read();
  const timer = setInterval(() => void read(), EVERY_MS);
  return () => {
    clearInterval(timer);
    newest = '';
    samples.value = [];
  };
}

export interface CallFigures {
  times: number[];
  calls: number[];
  denied: number[];
  /** Milliseconds; `null` where no call ended in that minute. */
  p50: (number | null)[];
  p95: (number | null)[];
}

function quantile(sorted: number[], share: number): number | null {
  return sorted.length ? (sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))] ?? null) : null;
}

/** What entries of tool calls tell, by the minute, up to now. */
export function callFigures(entries: Entry[], now: number): CallFigures {
  const begun = new Map<string, number>();
  const minutes = new Map<number, { calls: number; denied: number; took: number[] }>();
  const of = (ms: number) => {
    const minute = Math.floor(ms / 1000 / MINUTE_S) * MINUTE_S;
    let found = minutes.get(minute);
    if (!found) {
      found = { calls: 0, denied: 0, took: [] };
      minutes.set(minute, found);
    }
    return found;
  };
  for (const entry of entries) {
    const at = Date.parse(entry.timestamp);
    if (entry.kind === 'intent') begun.set(entry.id, at);
    else {
      const minute = of(at);
      minute.calls += 1;
      if (entry.outcome === 'denied') minute.denied += 1;
      const from = entry.intent_id === undefined ? undefined : begun.get(entry.intent_id);
      if (from !== undefined) minute.took.push(at - from);
    }
  }
  const made: CallFigures = { times: [], calls: [], denied: [], p50: [], p95: [] };
  if (!minutes.size) return made;
  const last = Math.floor(now / 1000 / MINUTE_S) * MINUTE_S;
  const first = Math.max(Math.min(...minutes.keys()), last - 60 * MINUTE_S);
  for (let minute = first; minute <= last; minute += MINUTE_S) {
    const found = minutes.get(minute);
    const took = (found?.took ?? []).sort((one, other) => one - other);
    made.times.push(minute);
    made.calls.push(found?.calls ?? 0);
    made.denied.push(found?.denied ?? 0);
    made.p50.push(quantile(took, 0.5));
    made.p95.push(quantile(took, 0.95));
  }
  return made;
}
