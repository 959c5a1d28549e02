// Documents that stay fresh: read once for all who show them, again when something happens, and now and then anyway.
import { type Signal, signal } from '@preact/signals';
import { useLayoutEffect, useMemo } from 'preact/hooks';
import { fetchPage, Refusal } from './api';
import { type Context, type LiveEvent, onEvents } from './live';
import { credential } from './session';
import { useAwait } from './whole';

const LEAST_MS = 500;
const OFTEN_MS = 5000;

export interface Freshness {
  /** Whose events make it old. */
  contexts?: readonly Context[];
  /** How often it is read anyway; 0: never. */
  every?: number;
  /** Its room is kept where it is shown: the page does not wait for it. */
  late?: boolean;
}

export class Resource<T> {
  readonly data: Signal<T | undefined> = signal(undefined);
  readonly error: Signal<Refusal | undefined> = signal(undefined);
  readonly next: Signal<string | null> = signal(null);
  private users = 0;
  private readAt = 0;
  private reading: Promise<void> | null = null;
  private again: ReturnType<typeof setTimeout> | undefined;
  private every: ReturnType<typeof setInterval> | undefined;
  private deaf: (() => void) | undefined;

  constructor(
    readonly at: string,
    private readonly freshness: Freshness,
  ) {}

  use(): () => void {
    if (this.users++ === 0) this.wake();
    return () => {
      if (--this.users === 0) this.sleep();
    };
  }

  private wake(): void {
    void this.read();
    const contexts = this.freshness.contexts ?? [];
    if (contexts.length) {
      this.deaf = onEvents((events: LiveEvent[]) => {
        if (events.some((event) => contexts.includes(event.context))) this.soon();
      });
    }
    const every = this.freshness.every ?? OFTEN_MS;
    if (every) {
      this.every = setInterval(() => {
        if (!document.hidden && performance.now() - this.readAt > every / 2) void this.read();
      }, every);
    }
  }

  private sleep(): void {
    clearInterval(this.every);
    clearTimeout(this.again);
    this.again = undefined;
    this.deaf?.();
  }

  /** Reads it again, but not more often than every half second. */
  soon(): void {
    if (this.again !== undefined) return;
    const wait = Math.max(0, LEAST_MS - (performance.now() - this.readAt));
    this.again = setTimeout(() => {
      this.again = undefined;
      void this.read();
    }, wait);
  }

  get answered(): boolean {
    return this.data.peek() !== undefined || this.error.peek() !== undefined;
  }

  read(): Promise<void> {
    this.reading ??= this.fetch().finally(() => {
      this.reading = null;
    });
    return this.reading;
  }

  private async fetch(): Promise<void> {
    if (!credential.value) return;
    this.readAt = performance.now();
    try {
      const { body, next } = await fetchPage<T>(this.at);
      this.data.value = body;
      this.next.value = next;
      this.error.value = undefined;
    } catch (error) {
      if (!(error instanceof Refusal)) throw error;
      this.error.value = error;
      // What is gone is not shown any longer; what cannot be read just now is.
      if (error.status === 404 || error.status === 401 || error.status === 403) this.data.value = undefined;
    }
    this.readAt = performance.now();
  }
}

const MOST_KEPT = 200;
const kept = new Map<string, Resource<unknown>>();

export function resource<T>(at: string, freshness: Freshness = {}): Resource<T> {
  let found = kept.get(at);
  if (!found) {
    found = new Resource<unknown>(at, freshness);
    kept.set(at, found);
    if (kept.size > MOST_KEPT) kept.delete(kept.keys().next().value as string);
  }
  return found as Resource<T>;
}

export function forgetAll(): void {
  kept.clear();
}

/** Everything that is shown now, read again. */
export function refreshAll(): void {
  for (const one of kept.values()) one.soon();
}

export interface Shown<T> {
  data: T | undefined;
  error: Refusal | undefined;
  next: string | null;
  reload: () => void;
}

export function useResource<T>(at: string | null, freshness: Freshness = {}): Shown<T> {
  // How fresh it is kept does not change with what calls.
  const found = useMemo(() => (at === null ? null : resource<T>(at, freshness)), [at]);
  const wait = useAwait();
  useLayoutEffect(() => {
    if (!found) return;
    const end = found.use();
    if (!freshness.late && !found.answered) wait(found.read());
    return end;
  }, [found]);
  return {
    data: found?.data.value,
    error: found?.error.value,
    next: found?.next.value ?? null,
    reload: () => found?.soon(),
  };
}
