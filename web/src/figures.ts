// Figures over time: what this page has seen since it was opened, and what the ledger tells of before.
import { signal } from '@preact/signals';
import { get, Refusal } from './api';
import { credential } from './session';
import type { Entry, FleetStatus, Scaling } from './types';

const EVERY_MS = 5000;
const MOST = 720;
const MINUTE_S = 60;

export interface Sample {
  at: number;
  waiting: number | null;
  underway: number | null;
  cpu: number | null;
  memory: number | null;
}

export const samples = signal<Sample[]>([]);

async function quietly<T>(at: string): Promise<T | null> {
  try {
    return await get<T>(at);
  } catch (error) {
    if (error instanceof Refusal) return null;
    throw error;
  }
}

async function sample(): Promise<void> {
  if (!credential.value || document.hidden) return;
  const [scaling, fleet] = await Promise.all([quietly<Scaling>('/api/scaling'), quietly<FleetStatus>('/api/status')]);
  const one: Sample = {
    at: Math.round(Date.now() / 1000),
    waiting: scaling?.pending_tasks ?? null,
    underway: scaling?.in_flight_tasks ?? null,
    cpu: fleet?.cpu_total ? (100 * fleet.cpu_used) / fleet.cpu_total : null,
    memory: fleet?.mem_total ? (100 * fleet.mem_used) / fleet.mem_total : null,
  };
  samples.value = [...samples.value, one].slice(-MOST);
}

/** Takes samples until the returned function is called. */
export function observe(): () => void {
  void sample();
  const timer = setInterval(() => void sample(), EVERY_MS);
  return () => clearInterval(timer);
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
