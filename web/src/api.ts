// Requests: one way to ask, one shape of refusal, whatever dialect the answer is in.
import { credential, forget, isSession } from './session';

export type Json = null | boolean | number | string | Json[] | { [name: string]: Json };
export type Method = 'GET' | 'POST' | 'PUT' | 'PATCH' | 'DELETE';

export interface Order {
  method: Method;
  path: string;
  body?: Json | undefined;
  /** What does the same at a terminal. */
  cli?: string | undefined;
}

export class Refusal extends Error {
  constructor(
    readonly status: number,
    readonly code: string,
    message: string,
    readonly reason: string | null,
    readonly resolution: string | null,
  ) {
    super(message);
  }

  /** The server has no such route: a part that is not served here. */
  get absent(): boolean {
    return this.status === 404 && (this.code === 'route_not_found' || this.code === 'not_found');
  }
}

const seg = encodeURIComponent;

/** A path of which every value is one segment or one query value, whatever is in it. */
export function path(strings: TemplateStringsArray, ...values: (string | number)[]): string {
  return strings.reduce((made, text, at) => made + text + (at < values.length ? seg(String(values[at])) : ''), '');
}

export function query(base: string, wanted: Record<string, string | number | null | undefined>): string {
  const words = Object.entries(wanted).filter(([, value]) => value !== null && value !== undefined && value !== '');
  if (!words.length) return base;
  const asked = new URLSearchParams(words.map(([name, value]) => [name, String(value)]));
  return `${base}${base.includes('?') ? '&' : '?'}${asked}`;
}

export function headers(more: Record<string, string> = {}): Record<string, string> {
  const secret = credential.value;
  return secret ? { Authorization: `Bearer ${secret}`, ...more } : more;
}

function text(value: unknown): string | null {
  return typeof value === 'string' && value ? value : null;
}

export async function refusalOf(answer: Response): Promise<Refusal> {
  const body = (await answer.json().catch(() => ({}))) as Record<string, unknown>;
  const told = text(body.detail) ?? text(body.error) ?? text(body.title) ?? `the server answered ${answer.status}`;
  return new Refusal(answer.status, text(body.code) ?? '', told, text(body.reason), text(body.resolution));
}

export async function send(method: Method, to: string, init: RequestInit = {}): Promise<Response> {
  const used = credential.value;
  let answer: Response;
  try {
    answer = await fetch(to, { ...init, method, headers: headers(init.headers as Record<string, string>) });
  } catch (error) {
    if (error instanceof DOMException && error.name === 'AbortError') throw error;
    throw new Refusal(
      0,
      'unreachable',
      'the server does not answer',
      null,
      'it may be starting again; this page goes on by itself',
    );
  }
  if (answer.status === 401 && isSession(used) && used === credential.value) {
    forget('Your session is over. Sign in again with the address that “borough open” prints.');
  }
  if (!answer.ok) throw await refusalOf(answer);
  return answer;
}

export interface Answered<T> {
  body: T;
  next: string | null;
}

/** The document at a path, or the text where it is none, and where its list goes on. */
export async function fetchPage<T>(at: string, signal?: AbortSignal): Promise<Answered<T>> {
  const answer = await send('GET', at, signal ? { signal } : {});
  const link = /<([^>]+)>;\s*rel="?next"?/.exec(answer.headers.get('link') ?? '');
  const told = isJson(answer) ? unwrapped(at, await answer.json()) : await answer.text();
  return { body: told as T, next: link?.[1] ? reached(at, link[1]) : null };
}

/** A reference, e.g. only a query, as a path of this server. */
function reached(from: string, reference: string): string {
  const to = new URL(reference, new URL(from, location.origin));
  return to.pathname + to.search;
}

const isJson = (answer: Response): boolean => (answer.headers.get('content-type') ?? '').includes('json');

export async function get<T>(at: string, signal?: AbortSignal): Promise<T> {
  return (await fetchPage<T>(at, signal)).body;
}

export async function perform<T = Json>(order: Order): Promise<T> {
  const told: Record<string, string> = {};
  if (order.method === 'POST') told['Idempotency-Key'] = crypto.randomUUID();
  const init: RequestInit = { headers: told };
  if (order.body !== undefined) {
    told['Content-Type'] = 'application/json';
    init.body = JSON.stringify(order.body);
  }
  const answer = await send(order.method, order.path, init);
  if (answer.status === 204 || !isJson(answer)) return undefined as T;
  return unwrapped(order.path, await answer.json()) as T;
}

function unwrapped(at: string, body: unknown): unknown {
  const isEnvelope = at.startsWith('/api/') && typeof body === 'object' && body !== null && 'ok' in body;
  return isEnvelope ? (body as { data?: unknown }).data : body;
}

/** One word of a POSIX shell. */
export function quoted(word: string): string {
  return /^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", `'\\''`)}'`;
}

/** The same as a command for curl; the credential is named, never written. */
export function asCurl(order: Order): string {
  const parts = ['curl -sS'];
  if (order.method !== 'GET') parts.push(`-X ${order.method}`);
  parts.push(quoted(location.origin + order.path), '-H "Authorization: Bearer $(cat .tt/operator.token)"');
  if (order.body !== undefined) {
    parts.push("-H 'Content-Type: application/json'", `-d ${quoted(JSON.stringify(order.body))}`);
  }
  return parts.join(' ');
}
