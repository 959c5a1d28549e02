// Long lists: only the rows that can be seen exist, however many there are.
import type { ComponentChildren } from 'preact';
import { useEffect, useLayoutEffect, useRef, useState } from 'preact/hooks';

export interface Column<T> {
  title: string;
  /** Of the grid, e.g. `2fr` or `8rem`. */
  width: string;
  cell: (row: T) => ComponentChildren;
  /** Left out where there is little room. */
  wide?: boolean;
  align?: 'end';
  /** What the row is about, where that is not the first. */
  main?: boolean;
}

interface ListProps<T> {
  label: string;
  rows: readonly T[];
  columns: Column<T>[];
  keyOf: (row: T) => string;
  /** The page of a row. */
  link?: (row: T) => string;
  onOpen?: (row: T) => void;
  more?: (() => void) | undefined;
  total?: number;
  empty: ComponentChildren;
  /** A second line below the first cell, where there is little room. */
  below?: (row: T) => ComponentChildren;
  /** Keeps the end in view while one is there. */
  follow?: boolean;
}

const ROW_PX = 40;
const NARROW_ROW_PX = 52;
const MARGIN_ROWS = 8;
const NARROW = matchMedia('(max-width: 720px)');

function useNarrow(): boolean {
  const [narrow, setNarrow] = useState(NARROW.matches);
  useEffect(() => {
    const changed = (): void => setNarrow(NARROW.matches);
    NARROW.addEventListener('change', changed);
    return () => NARROW.removeEventListener('change', changed);
  }, []);
  return narrow;
}

export function List<T>({
  label,
  rows,
  columns,
  keyOf,
  link,
  onOpen,
  more,
  total,
  empty,
  below,
  follow = false,
}: ListProps<T>) {
  const box = useRef<HTMLDivElement>(null);
  const [at, setAt] = useState({ top: 0, height: 600 });
  const [active, setActive] = useState<string | null>(null);
  const atEnd = useRef(true);
  const narrow = useNarrow();
  const rowPx = narrow ? NARROW_ROW_PX : ROW_PX;
  const shownColumns = narrow ? columns.filter((column) => !column.wide) : columns;
  const belowAt = Math.max(
    0,
    shownColumns.findIndex((column) => column.main),
  );
  const template = {
    gridTemplateColumns: shownColumns
      .map((column) => (column.width.endsWith('fr') ? `minmax(0, ${column.width})` : column.width))
      .join(' '),
  };
  const first = Math.max(0, Math.floor(at.top / rowPx) - MARGIN_ROWS);
  const last = Math.min(rows.length, Math.ceil((at.top + at.height) / rowPx) + MARGIN_ROWS);

  useLayoutEffect(() => {
    const scrolled = box.current;
    if (!scrolled) return;
    const measured = new ResizeObserver(() => setAt({ top: scrolled.scrollTop, height: scrolled.clientHeight }));
    measured.observe(scrolled);
    return () => measured.disconnect();
  }, [rows.length === 0]);

  useLayoutEffect(() => {
    if (follow && atEnd.current && box.current) box.current.scrollTop = box.current.scrollHeight;
  }, [follow, rows.length]);

  const nearEnd = last >= rows.length - MARGIN_ROWS;
  // Asked once each time that the end comes near.
  useEffect(() => {
    if (nearEnd) more?.();
  }, [nearEnd, rows.length]);

  if (!rows.length) return <>{empty}</>;

  const move = (steps: number): void => {
    const found = rows.findIndex((row) => keyOf(row) === active);
    const next = Math.max(0, Math.min(rows.length - 1, found < 0 ? first : found + steps));
    const row = rows[next];
    if (!row || !box.current) return;
    setActive(keyOf(row));
    const top = next * rowPx;
    if (top < box.current.scrollTop) box.current.scrollTop = top;
    else if (top + rowPx > box.current.scrollTop + box.current.clientHeight - rowPx)
      box.current.scrollTop = top - box.current.clientHeight + 2 * rowPx;
  };

  const open = (row: T): void => {
    if (onOpen) onOpen(row);
    else if (link) location.hash = link(row);
  };

  const onKey = (event: KeyboardEvent): void => {
    const steps: Record<string, number> = {
      ArrowDown: 1,
      j: 1,
      ArrowUp: -1,
      k: -1,
      PageDown: 10,
      PageUp: -10,
      Home: -rows.length,
      End: rows.length,
    };
    const step = steps[event.key];
    if (step !== undefined) {
      event.preventDefault();
      move(step);
    } else if (event.key === 'Enter' && event.target === box.current) {
      const row = rows.find((one) => keyOf(one) === active);
      if (row) open(row);
    }
  };

  return (
    <div
      class="list"
      ref={box}
      role="grid"
      aria-label={label}
      aria-rowcount={(total ?? rows.length) + 1}
      tabIndex={0}
      style={{ '--rows': String(rows.length + 1), '--row': `${rowPx}px` }}
      onKeyDown={onKey}
      onScroll={(event) => {
        const { scrollTop, clientHeight, scrollHeight } = event.currentTarget;
        atEnd.current = scrollTop + clientHeight > scrollHeight - rowPx;
        setAt({ top: scrollTop, height: clientHeight });
      }}
    >
      <div class="list-head" role="row" aria-rowindex={1} style={template}>
        {shownColumns.map((column) => (
          <div key={column.title} role="columnheader" class={column.align}>
            {column.title}
          </div>
        ))}
      </div>
      <div class="list-body" role="rowgroup" style={{ height: `${rows.length * rowPx}px` }}>
        {rows.slice(first, last).map((row, index) => {
          const key = keyOf(row);
          return (
            <div
              key={key}
              class={key === active ? 'list-row active' : 'list-row'}
              role="row"
              tabIndex={-1}
              aria-rowindex={first + index + 2}
              aria-selected={key === active}
              style={{ ...template, transform: `translateY(${(first + index) * rowPx}px)` }}
              onClick={(event) => {
                if ((event.target as Element).closest('a, button, summary, input')) return;
                if (getSelection()?.isCollapsed ?? true) open(row);
              }}
            >
              {shownColumns.map((column, place) => (
                <div key={column.title} role="gridcell" class={column.align}>
                  {place === 0 && link ? <a href={link(row)}>{column.cell(row)}</a> : column.cell(row)}
                  {place === belowAt && below && narrow && <div class="dim small cut">{below(row)}</div>}
                </div>
              ))}
            </div>
          );
        })}
      </div>
    </div>
  );
}
