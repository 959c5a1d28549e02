// Small parts that every page is made of.
import type { ComponentChildren } from 'preact';
import { useEffect, useId, useRef } from 'preact/hooks';
import type { Refusal } from '../api';
import { millis, now, short, span, words } from './format';
import { copy } from './toasts';

const TONES: Record<string, string> = {
  running: 'busy',
  working: 'busy',
  active: 'busy',
  act: 'busy',
  leased: 'busy',
  preparing: 'busy',
  collecting: 'busy',
  starting: 'busy',
  creating: 'busy',
  deleting: 'busy',
  stopping: 'busy',
  draining: 'busy',
  admitted: 'busy',
  assigned: 'busy',
  completed: 'good',
  succeeded: 'good',
  success: 'good',
  online: 'good',
  idle: 'good',
  ready: 'good',
  allowed: 'good',
  approved: 'good',
  ok: 'good',
  live: 'good',
  plan: 'good',
  observe: 'good',
  pending: 'wait',
  waiting: 'wait',
  delayed: 'wait',
  paused: 'wait',
  cordoned: 'wait',
  asking: 'wait',
  soon: 'wait',
  init: 'wait',
  unknown: 'wait',
  degraded: 'wait',
  partial: 'wait',
  connecting: 'wait',
  failed: 'bad',
  failure: 'bad',
  denied: 'bad',
  refused: 'bad',
  killed: 'bad',
  error: 'bad',
  offline: 'bad',
  timeout: 'bad',
  dead: 'bad',
  lost: 'bad',
  expired: 'bad',
  broken: 'bad',
  now: 'bad',
  quarantined: 'bad',
};

/** A state, by word and colour; the word alone says it all. */
export function Badge({ state, tone, label }: { state: string; tone?: string; label?: string }) {
  return <span class={`badge ${tone ?? TONES[state.toLowerCase()] ?? 'plain'}`}>{label ?? words(state)}</span>;
}

export function Ago({ at, empty = '–' }: { at: string | number | null | undefined; empty?: string }) {
  const moment = millis(at);
  if (moment === null) return <span class="dim">{empty}</span>;
  // What is shown ticks more slowly than things happen: nothing that has happened is told as still to come.
  const seconds = (Math.max(now.value, Date.now()) - moment) / 1000;
  const told = seconds < -5 ? `in ${span(-seconds)}` : seconds < 10 ? 'just now' : `${span(seconds)} ago`;
  const date = new Date(moment);
  return (
    <time dateTime={date.toISOString()} title={date.toLocaleString()}>
      {told}
    </time>
  );
}

export function Clock({ at }: { at: string | number | null | undefined }) {
  const moment = millis(at);
  if (moment === null) return <span class="dim">–</span>;
  const date = new Date(moment);
  return (
    <time dateTime={date.toISOString()} title={date.toLocaleString()} class="mono small">
      {date.toLocaleTimeString('en-GB')}
    </time>
  );
}

export function Id({ value, whole = false }: { value: string; whole?: boolean }) {
  return (
    <button type="button" class="id mono" title={`${value} – copy`} onClick={() => void copy(value, 'the id')}>
      {whole ? value : short(value)}
    </button>
  );
}

export function Empty({ title, children }: { title: string; children?: ComponentChildren }) {
  return (
    <div class="empty">
      <p class="empty-title">{title}</p>
      {children && <div class="dim">{children}</div>}
    </div>
  );
}

/** Why there is nothing to see: a part that is not here, a credential that does not reach, a server that is away. */
export function Trouble({ error, what }: { error: Refusal; what: string }) {
  if (error.absent) {
    return (
      <Empty title={`${what} are not available on this server`}>
        It serves no route for them. A newer release, or “borough up”, does.
      </Empty>
    );
  }
  if (error.status === 401 || error.status === 403) {
    return (
      <Empty title={`This credential does not open ${what.toLowerCase()}`}>{error.resolution ?? error.message}</Empty>
    );
  }
  return (
    <div class="trouble" role="alert">
      <strong>{error.message}</strong>
      {error.reason && <span>{error.reason}</span>}
      {error.resolution && <span class="dim">{error.resolution}</span>}
    </div>
  );
}

export function Loading() {
  return (
    <div class="loading" role="status">
      <span class="skeleton" />
      <span class="skeleton" />
      <span class="skeleton" />
      <span class="hidden">Loading</span>
    </div>
  );
}

export function Panel({
  title,
  actions,
  children,
  flush = false,
}: {
  title: ComponentChildren;
  actions?: ComponentChildren;
  children: ComponentChildren;
  flush?: boolean;
}) {
  const id = useId();
  return (
    <section class={flush ? 'panel flush' : 'panel'} aria-labelledby={id}>
      <header>
        <h2 id={id}>{title}</h2>
        {actions && <div class="row">{actions}</div>}
      </header>
      <div class="panel-body">{children}</div>
    </section>
  );
}

/** What is known of something: what is not known yet has its room, what there is nothing of is left out. */
export function Facts({ of }: { of: [string, ComponentChildren][] }) {
  return (
    <dl class="facts">
      {of
        .filter(([, value]) => value !== null && value !== '' && value !== false)
        .map(([name, value]) => (
          <div key={name}>
            <dt>{name}</dt>
            <dd>{value === undefined ? <span class="skeleton">{'\u00a0'}</span> : value}</dd>
          </div>
        ))}
    </dl>
  );
}

/** How much of something is taken. */
interface MeterProps {
  label: string;
  used: number;
  total: number;
  told: string;
  /** Being full is nothing bad. */
  calm?: boolean;
}

export function Meter({ label, used, total, told, calm = false }: MeterProps) {
  const share = total > 0 ? Math.min(1, used / total) : 0;
  const level = calm ? 'busy' : share > 0.9 ? 'bad' : share > 0.7 ? 'wait' : 'busy';
  return (
    <div
      class="meter"
      role="meter"
      aria-label={label}
      aria-valuemin={0}
      aria-valuemax={total}
      aria-valuenow={used}
      aria-valuetext={told}
    >
      <div class="meter-told">
        <span>{label}</span>
        <span class="dim">{told}</span>
      </div>
      <div class="meter-bar">
        <div class={level} style={{ width: `${share * 100}%` }} />
      </div>
    </div>
  );
}

export function Tabs({
  label,
  tabs,
  chosen,
  onChoose,
}: {
  label: string;
  tabs: [string, string, (number | undefined)?][];
  chosen: string;
  onChoose: (name: string) => void;
}) {
  return (
    <div class="tabs" role="group" aria-label={label}>
      {tabs.map(([name, title, amount]) => (
        <button type="button" key={name} aria-pressed={name === chosen} onClick={() => onChoose(name)}>
          {title}
          {amount !== undefined && <span class="tab-count">{amount}</span>}
        </button>
      ))}
    </div>
  );
}

export function Code({ children, label }: { children: string; label: string }) {
  return (
    <div class="code">
      <button type="button" class="quiet small" onClick={() => void copy(children, label)}>
        Copy
      </button>
      <pre tabIndex={0} role="region" aria-label={label}>
        {children}
      </pre>
    </div>
  );
}

export function Heading({
  title,
  children,
  back,
}: {
  title: ComponentChildren;
  children?: ComponentChildren;
  back?: [string, string];
}) {
  const heading = useRef<HTMLHeadingElement>(null);
  // Titles are also made of parts: what is shown says it.
  useEffect(() => {
    document.title = `${heading.current?.textContent ?? ''} · Borough`;
  });
  return (
    <div class="heading">
      <div class="heading-words">
        {back && (
          <a class="back" href={back[0]}>
            ‹ {back[1]}
          </a>
        )}
        <h1 ref={heading} tabIndex={-1}>
          {title}
        </h1>
      </div>
      {children && <div class="row wrap">{children}</div>}
    </div>
  );
}
