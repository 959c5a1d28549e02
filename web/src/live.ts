// What happens, as it happens: one stream for the whole page, told to its readers once a frame.
import { signal } from '@preact/signals';
import { type Json, Refusal, send } from './api';
import { credential } from './session';

export type Context = 'town' | 'fleet' | 'governance' | 'runs';

export interface LiveEvent {
  id: string;
  at: string;
  context: Context;
  kind: string;
  told: string;
  /** Kind → id, of everything that it concerns. */
  subjects: Record<string, string>;
  raw: Record<string, Json>;
}

export type Connection = 'connecting' | 'live' | 'broken';

const KEPT = 2000;
const BEFORE = 200;
const LONGEST_PAUSE_MS = 10_000;
const HIDDEN_FLUSH_MS = 1000;

export const connection = signal<Connection>('connecting');
/** The newest last. */
export const recent = signal<LiveEvent[]>([]);
export const missed = signal(0);

type Listener = (events: LiveEvent[]) => void;
const listeners = new Set<Listener>();

/** Calls back with each flush; returns what ends that. */
export function onEvents(listener: Listener): () => void {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

let waiting: LiveEvent[] = [];
let scheduled = false;

function flush(): void {
  scheduled = false;
  const came = waiting;
  waiting = [];
  if (!came.length) return;
  recent.value = [...recent.value, ...came].slice(-KEPT);
  for (const listener of listeners) listener(came);
}

function take(event: LiveEvent): void {
  waiting.push(event);
  if (scheduled) return;
  scheduled = true;
  // A hidden page draws no frames.
  if (document.hidden) setTimeout(flush, HIDDEN_FLUSH_MS);
  else requestAnimationFrame(flush);
}

function text(value: Json | undefined): string {
  return typeof value === 'string' ? value : '';
}

function record(value: Json | undefined): Record<string, Json> {
  return value !== null && typeof value === 'object' && !Array.isArray(value) ? value : {};
}

const LINKED = ['task', 'agent', 'env', 'vm', 'host'];
const NOBODY = '00000000-0000-0000-';

/** Kind → id of the things that an event names. */
function subjectsOf(raw: Record<string, Json>): Record<string, string> {
  const data = record(raw.data);
  const found: Record<string, string> = {};
  for (const kind of LINKED) {
    const id = text(raw[`${kind}_id`]) || text(data[`${kind}_id`]) || text(record(raw.subjects)[`${kind}_id`]);
    if (id && !id.startsWith(NOBODY)) found[kind] = id;
  }
  if (text(data.on_behalf_of)) found.agent = text(data.on_behalf_of);
  const subject = record(raw.subject);
  if (text(subject.kind) && text(subject.id)) found[text(subject.kind)] = text(subject.id);
  return found;
}

export function understood(id: string, raw: Record<string, Json>): LiveEvent {
  const kind = text(raw.kind) || text(raw.event_type) || text(raw.type);
  return {
    id: text(raw.id) || id,
    at: text(raw.at) || text(raw.timestamp),
    context: (text(raw.context) || 'town') as Context,
    kind,
    told: text(raw.message) || kind,
    subjects: subjectsOf(raw),
    raw,
  };
}

interface Frame {
  id: string;
  event: string;
  data: string;
}

function frameOf(block: string): Frame {
  const frame: Frame = { id: '', event: '', data: '' };
  const lines: string[] = [];
  for (const line of block.split('\n')) {
    const at = line.indexOf(':');
    if (at < 1) continue;
    const value = line.slice(at + 1).replace(/^ /, '');
    const name = line.slice(0, at);
    if (name === 'data') lines.push(value);
    else if (name === 'id') frame.id = value;
    else if (name === 'event') frame.event = value;
  }
  frame.data = lines.join('\n');
  return frame;
}

/** The frames of an answer, until it ends. */
export async function* frames(answer: Response): AsyncGenerator<Frame> {
  if (!answer.body) return;
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = '';
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      const blocks = (rest + value).replaceAll('\r\n', '\n').split('\n\n');
      rest = blocks.pop() ?? '';
      for (const block of blocks) {
        const frame = frameOf(block);
        if (frame.data) yield frame;
      }
    }
  } finally {
    await reader.cancel().catch(() => undefined);
  }
}

let lastId = '';

/** What happened before, so that a page that was just opened is not empty; the stream goes on behind it. */
async function catchUp(signal: AbortSignal): Promise<void> {
  const answer = await send('GET', `/v1/events?limit=${BEFORE}`, { signal });
  const before = (await answer.json()) as { events: Record<string, Json>[]; cursor?: string | null };
  recent.value = before.events.map((raw) => understood('', raw));
  lastId = before.cursor ?? recent.value.at(-1)?.id ?? '';
}

async function follow(signal: AbortSignal): Promise<void> {
  if (!lastId) await catchUp(signal);
  const told: Record<string, string> = { Accept: 'text/event-stream' };
  if (lastId) told['Last-Event-ID'] = lastId;
  const answer = await send('GET', '/v1/events', { headers: told, signal, cache: 'no-store' });
  connection.value = 'live';
  for await (const frame of frames(answer)) {
    if (frame.event === 'gap') {
      missed.value += 1;
      continue;
    }
    if (frame.id) lastId = frame.id;
    take(understood(frame.id, JSON.parse(frame.data)));
  }
}

const rest = (ms: number, signal: AbortSignal): Promise<void> =>
  new Promise((resolve) => {
    const timer = setTimeout(resolve, ms);
    signal.addEventListener('abort', () => {
      clearTimeout(timer);
      resolve();
    });
  });

/** Keeps the stream open until the returned function is called; goes on after the last event that was read. */
export function openStream(): () => void {
  const ended = new AbortController();
  const run = async (): Promise<void> => {
    let pause = 250;
    while (!ended.signal.aborted && credential.value) {
      const begun = performance.now();
      try {
        await follow(ended.signal);
      } catch (error) {
        if (ended.signal.aborted) return;
        if (error instanceof Refusal && error.code === 'invalid_last_event_id') lastId = '';
      }
      if (ended.signal.aborted) return;
      connection.value = 'broken';
      pause = performance.now() - begun > LONGEST_PAUSE_MS ? 250 : Math.min(pause * 2, LONGEST_PAUSE_MS);
      await rest(pause, ended.signal);
    }
  };
  connection.value = 'connecting';
  void run();
  return () => ended.abort();
}
