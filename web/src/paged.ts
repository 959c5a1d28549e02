// Lists that come in pages: read on as somebody scrolls, the newest read again as something happens.
import { useLayoutEffect, useMemo, useState } from 'preact/hooks';
import { fetchPage, get, query, Refusal } from './api';
import { type Context, type LiveEvent, onEvents } from './live';
import { useAwait } from './whole';

interface Source<T> {
  at: string;
  /** The member that holds the items; none: the answer is the list. */
  member?: string;
  keyOf: (item: T) => string;
  contexts?: readonly Context[];
  /** Where one item is read that an event names. */
  one?: ((event: LiveEvent) => string | null) | undefined;
  /** The item in what is read of one alone. */
  pick?: (body: unknown) => T;
  /** Whether an item that was read alone belongs to the list. */
  fits?: (item: T) => boolean;
}

export interface Paged<T> {
  items: T[] | undefined;
  error: Refusal | undefined;
  more: (() => void) | undefined;
  reload: () => void;
}

const PAGE = 100;
const MOST_AT_ONCE = 12;
const SETTLE_MS = 400;

class Pages<T> {
  private readonly found = new Map<string, T>();
  private next: string | null = null;
  private busy = false;
  private ended = false;
  private pages = 1;
  /** The page that was asked for while another was read. */
  private wanted: string | null = null;
  error: Refusal | undefined;
  read = false;

  constructor(
    private readonly source: Source<T>,
    private readonly changed: () => void,
  ) {}

  get items(): T[] {
    return [...this.found.values()];
  }

  get hasMore(): boolean {
    return this.next !== null;
  }

  end(): void {
    this.ended = true;
  }

  private async load(at: string, head: boolean): Promise<void> {
    if (this.busy) {
      this.wanted = head ? this.wanted : at;
      return;
    }
    this.busy = true;
    try {
      const { body, next } = await fetchPage<unknown>(at);
      if (this.ended) return;
      const page = body as Record<string, unknown>;
      const items = (this.source.member ? page[this.source.member] : body) as T[];
      // What is no longer there must not stay; of a list of which more was read, only what is new is taken, if there is
      // no gap between that and what was read before.
      const anew = head && (this.pages <= 1 || !items.some((item) => this.found.has(this.source.keyOf(item))));
      if (anew) {
        this.found.clear();
        this.pages = 1;
      }
      for (const item of items) this.found.set(this.source.keyOf(item), item);
      if (!head) this.pages += 1;
      if (!head || anew) {
        const cursor = page.next_cursor;
        this.next = typeof cursor === 'string' ? query(this.source.at, { limit: PAGE, cursor }) : next;
      }
      this.error = undefined;
      this.read = true;
    } catch (error) {
      if (!(error instanceof Refusal)) throw error;
      this.error = error;
    } finally {
      this.busy = false;
      if (!this.ended) this.changed();
    }
    const wanted = this.wanted;
    this.wanted = null;
    if (wanted !== null && wanted === this.next && !this.ended) await this.load(wanted, false);
  }

  first(): Promise<void> {
    return this.load(query(this.source.at, { limit: PAGE }), true);
  }

  more(): void {
    if (this.next !== null) void this.load(this.next, false);
  }

  async freshen(paths: Set<string>): Promise<void> {
    if (paths.size > MOST_AT_ONCE) return this.first();
    let gone = false;
    await Promise.all(
      [...paths].map(async (at) => {
        try {
          const body = await get<T>(at);
          const item = this.source.pick?.(body) ?? body;
          const key = this.source.keyOf(item);
          if (this.source.fits?.(item) ?? true) this.found.set(key, item);
          else this.found.delete(key);
        } catch (error) {
          if (!(error instanceof Refusal)) throw error;
          gone = true;
        }
      }),
    );
    if (gone) return this.first();
    if (!this.ended) this.changed();
    return undefined;
  }
}

export function usePaged<T>(source: Source<T>): Paged<T> {
  const [, redraw] = useState(0);
  // The address says which list it is.
  const pages = useMemo(() => new Pages<T>(source, () => redraw((before) => before + 1)), [source.at]);
  const wait = useAwait();
  // As above.
  useLayoutEffect(() => {
    wait(pages.first());
    let wanted = new Set<string>();
    let timer: ReturnType<typeof setTimeout> | undefined;
    const hear = (events: LiveEvent[]): void => {
      let stale = false;
      for (const event of events) {
        if (!(source.contexts ?? []).includes(event.context)) continue;
        const at = source.one?.(event);
        if (at) wanted.add(at);
        stale = true;
      }
      if (!stale) return;
      timer ??= setTimeout(() => {
        timer = undefined;
        const asked = wanted;
        wanted = new Set();
        void (source.one ? pages.freshen(asked) : pages.first());
      }, SETTLE_MS);
    };
    const deaf = onEvents(hear);
    const often = setInterval(() => {
      if (!document.hidden) void pages.first();
    }, 15_000);
    return () => {
      pages.end();
      deaf();
      clearTimeout(timer);
      clearInterval(often);
    };
  }, [pages]);
  return {
    items: pages.read ? pages.items : undefined,
    error: pages.error,
    more: pages.hasMore ? () => pages.more() : undefined,
    reload: () => void pages.first(),
  };
}
