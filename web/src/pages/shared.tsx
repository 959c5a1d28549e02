// What more than one page shows: approvals, entries of the ledger, events, machines.
import type { ComponentChildren } from 'preact';
import { path } from '../api';
import { approvalDeeds } from '../deeds/agents';
import { machineDeeds } from '../deeds/fleet';
import type { LiveEvent } from '../live';
import { resource, useResource } from '../resource';
import { href } from '../route';
import type { Approval, Entry, Governed, HistoryEntry, Machine, Run, Worker } from '../types';
import { Action } from '../ui/actions';
import { firstLine, mebibytes, short, words } from '../ui/format';
import { Ago, Badge, Clock, Id, Panel } from '../ui/parts';

export const GOVERNANCE = { contexts: ['governance', 'runs'] as const };
export const TOWN = { contexts: ['town', 'runs'] as const };
export const FLEET = { contexts: ['fleet', 'runs'] as const };

const KINDS: Record<string, (id: string) => string> = {
  task: (id) => href('tasks', id),
  run: (id) => href('runs', id),
  env: (id) => href('environments', id),
  environment: (id) => href('environments', id),
  vm: (id) => href('machines', id),
  machine: (id) => href('machines', id),
  host: () => href('hosts'),
  agent: (id) => href('agents', 'any', id),
  approval: () => href('approvals'),
};

export const pageOf = (kind: string, id: string): string | undefined => KINDS[kind]?.(id);

/** A link to whatever it is, where there is a page for it. */
export function Subject({ kind, id, name }: { kind: string; id: string; name?: string | null }) {
  const to = pageOf(kind, id);
  const told = name || short(id);
  return to ? <a href={to}>{told}</a> : <span class="mono">{told}</span>;
}

export function useNames(): (id: string | null | undefined) => string {
  const workers = useResource<{ agents: Worker[] }>('/v1/agents', TOWN).data?.agents ?? [];
  const governed = useResource<Governed[]>('/agents?ended=true', GOVERNANCE).data ?? [];
  const names = new Map<string, string>([...governed, ...workers].map((one) => [one.id, one.name]));
  return (id) => (id ? (names.get(id) ?? short(id)) : '–');
}

export const nameOfAgent = (id: string): string =>
  resource<Governed[]>('/agents?ended=true')
    .data.peek()
    ?.find((one) => one.id === id)?.name ?? short(id);

/** A call that waits: who asks, for which run, what it would do, what becomes of it if nobody decides. */
export function ApprovalCard({ approval, name }: { approval: Approval; name: string }) {
  const [approve, deny] = approvalDeeds(approval);
  const runs = useResource<{ runs: Run[] }>('/v1/runs?state=waiting&limit=100', {
    contexts: ['runs', 'governance'],
  }).data?.runs;
  const run = runs?.find((one) => one.agent?.id === approval.agent_id);
  return (
    <article class="card approval" aria-label={`${name} wants to call ${approval.tool_name}`}>
      <div class="row wrap">
        <strong>
          <a href={href('agents', 'governed', approval.agent_id)}>{name}</a> wants to call{' '}
          <code>{approval.tool_name}</code>
        </strong>
        <span class="grow" />
        <span class="dim small">
          asked <Ago at={approval.submitted_at} />
        </span>
      </div>
      {run && (
        <p class="small">
          For the run <a href={href('runs', run.id)}>{firstLine(run.task)}</a>
          {run.machine && ` in ${run.machine.engine}`}: {run.reason}
        </p>
      )}
      <pre class="input" tabIndex={0} role="region" aria-label={`What ${approval.tool_name} is called with`}>
        {JSON.stringify(approval.input, null, 2)}
      </pre>
      <div class="row wrap">
        <span class="dim small">
          Rule: {approval.rule}
          {approval.needed > 1 && ` · ${approval.approved_by.length} of ${approval.needed} have agreed`}
          {' · '}If nobody decides: refused <Ago at={approval.expires_at} />, and the call is not made
        </span>
        <span class="grow" />
        <Action deed={deny} />
        <Action deed={approve} />
      </div>
    </article>
  );
}

export function EntryRow({ entry }: { entry: Entry }) {
  return (
    <li class="entry">
      <Clock at={entry.timestamp} />
      <Badge
        state={entry.kind === 'intent' ? 'asking' : entry.outcome}
        label={entry.kind === 'intent' ? 'intent' : entry.outcome}
      />
      <a href={href('ledger', String(entry.seq))} class="entry-what">
        <b>{words(entry.action)}</b> {entry.detail}
      </a>
      {entry.decision_rule && <span class="dim small">{entry.decision_rule}</span>}
    </li>
  );
}

export function EventRow({ event }: { event: LiveEvent }) {
  return (
    <li class="entry">
      <Clock at={event.at} />
      <span class={`context ${event.context}`}>{event.context}</span>
      <span class="entry-what">
        <b>{words(event.kind)}</b> {event.told === event.kind ? '' : event.told}
      </span>
      <span class="entry-subjects">
        {Object.entries(event.subjects)
          .filter(([kind]) => KINDS[kind])
          .slice(0, 2)
          .map(([kind, id]) => (
            <span key={kind} class="small">
              <span class="dim">{kind}</span> <Subject kind={kind} id={id} />
            </span>
          ))}
      </span>
    </li>
  );
}

export function Machines({ vms, empty }: { vms: Machine[]; empty: ComponentChildren }) {
  if (!vms.length) return <>{empty}</>;
  return (
    <div class="scroll">
      <table>
        <thead>
          <tr>
            <th scope="col">Machine</th>
            <th scope="col">State</th>
            <th scope="col">Image</th>
            <th scope="col">Size</th>
            <th scope="col">Address</th>
            <th scope="col">Host</th>
            <th scope="col">
              <span class="hidden">Actions</span>
            </th>
          </tr>
        </thead>
        <tbody>
          {vms.map((vm) => (
            <tr key={vm.id}>
              <td data-title="Machine">
                <a class="mono" href={href('machines', vm.id)}>
                  {vm.id}
                </a>
              </td>
              <td data-title="State">
                <Badge state={vm.state} />
                {vm.error && <div class="bad-text small">{vm.error}</div>}
              </td>
              <td data-title="Image">
                {vm.image} <span class="dim small">{vm.engine}</span>
              </td>
              <td data-title="Size" class="small">
                {vm.cpu} CPU, {mebibytes(vm.mem)}, {mebibytes(vm.disk)} disk
              </td>
              <td data-title="Address" class="mono small">
                {vm.ip || '–'} <Ports of={vm.port_map} />
              </td>
              <td data-title="Host">
                <Id value={vm.host_id} />
              </td>
              <td class="actions">
                <div class="row wrap end">
                  {machineDeeds(vm).map((deed) => (
                    <Action key={deed.label} deed={deed} small />
                  ))}
                </div>
              </td>
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

export function Ports({ of }: { of: Record<string, number> }) {
  const found = Object.entries(of);
  return (
    <>
      {found.map(([guest, host]) => (
        <span key={guest} class="port" title="port of the host → port of the machine">
          {host}→{guest}
        </span>
      ))}
    </>
  );
}

interface Explained {
  state: string;
  why: string;
  since: string;
  next: string[];
  related: { kind: string; id: string; name?: string; relation: string }[];
}

/** Why something stands where it stands, and what it has to do with; nothing where the server cannot tell. */
export function Why({ id }: { id: string }) {
  const told = useResource<Explained>(path`/v1/explain/${id}`, {
    contexts: ['town', 'fleet', 'governance', 'runs'],
  }).data;
  if (!told) return null;
  return (
    <Standing state={told.state} told={told}>
      {told.related.length > 0 && (
        <p class="small related">
          {told.related.map((one) => (
            <span key={one.kind + one.id}>
              <span class="dim">{one.relation}</span> <Subject kind={one.kind} id={one.id} name={one.name ?? null} />
            </span>
          ))}
        </p>
      )}
    </Standing>
  );
}

interface StandingProps {
  state: string;
  told: { why: string; since: string; next: string[] };
  children?: ComponentChildren;
}

/** Why something stands where it stands, since when, and what comes next. */
export function Standing({ state, told, children }: StandingProps) {
  return (
    <Panel title="Why it stands where it stands">
      <p>
        <Badge state={state} /> {told.why}{' '}
        <span class="dim">
          Since <Ago at={told.since} />.
        </span>
      </p>
      {told.next.length > 0 && (
        <ul class="next">
          {told.next.map((step) => (
            <li key={step}>{step}</li>
          ))}
        </ul>
      )}
      {children}
    </Panel>
  );
}

/** What happened to something, the newest first. */
export function History({ of, narrow = false }: { of: HistoryEntry[]; narrow?: boolean }) {
  return (
    <Panel title="History">
      <ol class={narrow ? 'plain entries narrow' : 'plain entries'} tabIndex={0}>
        {of.toReversed().map((entry) => (
          <li class="entry" key={`${entry.at}${entry.event}`}>
            <Clock at={entry.at} />
            <span class="entry-what">
              <b>{words(entry.event)}</b> {entry.reason && firstLine(entry.reason)}
            </span>
          </li>
        ))}
      </ol>
    </Panel>
  );
}
