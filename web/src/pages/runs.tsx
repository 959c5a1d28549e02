// Runs: a task with its machine and its rules.
import { path, query } from '../api';
import { Admitted, runDeeds, startRun } from '../deeds/runs';
import { usePaged } from '../paged';
import { useResource } from '../resource';
import { ask, href, place } from '../route';
import type { Approval, Entry, Run } from '../types';
import { Action } from '../ui/actions';
import { download } from '../ui/download';
import { bytes, count, firstLine, milliseconds, short, words } from '../ui/format';
import { type Column, List } from '../ui/list';
import { Log } from '../ui/logs';
import { Ago, Badge, Code, Empty, Facts, Heading, Id, Loading, Meter, Panel, Tabs, Trouble } from '../ui/parts';
import { ToolCalls } from './agents';
import { TerminalPanel } from './fleet';
import { lazy } from './lazy';
import { ApprovalCard, EntryRow } from './shared';

const RUNS = { contexts: ['runs', 'town', 'governance', 'fleet'] as const };
const STATES = [
  'working',
  'waiting',
  'preparing',
  'collecting',
  'succeeded',
  'failed',
  'refused',
  'cancelled',
  'killed',
];
const Patch = lazy(() => import('./patch'));

export function Runs() {
  const state = place.value.query.get('state') ?? '';
  const runs = usePaged<Run>({
    at: query('/v1/runs', { state }),
    member: 'runs',
    keyOf: (run) => run.id,
    ...RUNS,
    one: (event) => (event.subjects.run ? path`/v1/runs/${event.subjects.run}` : null),
    fits: (run) => !state || run.state === state,
  });
  const columns: Column<Run>[] = [
    { title: 'Task', width: '3fr', cell: (run) => <span class="cut">{firstLine(run.task)}</span> },
    { title: 'State', width: '7.5rem', cell: (run) => <Badge state={run.quarantined ? 'quarantined' : run.state} /> },
    { title: 'Agent', width: '1fr', wide: true, cell: (run) => <span class="cut">{run.agent?.name ?? '–'}</span> },
    {
      title: 'Engine',
      width: '6.5rem',
      wide: true,
      cell: (run) => run.machine?.engine ?? run.admission?.engine ?? '–',
    },
    {
      title: 'Attempt',
      width: '5rem',
      wide: true,
      align: 'end',
      cell: (run) => `${run.attempt} / ${run.max_attempts}`,
    },
    { title: 'Created', width: '8rem', wide: true, cell: (run) => <Ago at={run.created_at} /> },
  ];
  return (
    <div class="page-list">
      <Heading title="Runs">
        <button type="button" class="main" onClick={startRun}>
          Start a run
        </button>
      </Heading>
      <Tabs
        label="State"
        tabs={[['', 'All'], ...STATES.map((one): [string, string] => [one, words(one)])]}
        chosen={state}
        onChoose={(chosen) => ask({ state: chosen || null })}
      />
      {runs.error && !runs.items && <Trouble error={runs.error} what="Runs" />}
      {!runs.items && !runs.error && <Loading />}
      {runs.items && (
        <List
          label="Runs"
          rows={runs.items.sort((one, other) => (one.created_at < other.created_at ? 1 : -1))}
          columns={columns}
          keyOf={(run) => run.id}
          link={(run) => href('runs', run.id)}
          below={(run) => (
            <>
              {run.agent?.name} · {run.machine?.engine ?? run.admission?.engine} · <Ago at={run.since} />
            </>
          )}
          more={runs.more}
          empty={
            <Empty title={state ? `No run is ${state}` : 'No run yet'}>
              <p>A run is a task that a governed agent does in a machine of its own: live, and with proof.</p>
              <button type="button" class="main" onClick={startRun}>
                Start a run
              </button>
            </Empty>
          }
        />
      )}
    </div>
  );
}

export function OneRun({ id }: { id: string }) {
  const run = useResource<Run>(path`/v1/runs/${id}`, RUNS);
  const entries = useResource<{ entries: Entry[] } | Entry[]>(path`/v1/runs/${id}/ledger`, RUNS);
  const approvals = useResource<Approval[]>('/approvals', RUNS);
  const found = run.data;
  if (!found) return run.error ? <Trouble error={run.error} what="Runs" /> : <Loading />;
  const slice = Array.isArray(entries.data) ? entries.data : entries.data?.entries;
  const waiting = approvals.data?.filter((approval) => approval.agent_id === found.agent?.id) ?? [];
  return (
    <>
      <Heading title={firstLine(found.task)} back={[href('runs'), 'Runs']}>
        {runDeeds(found).map((deed) => (
          <Action key={deed.label} deed={deed} />
        ))}
      </Heading>
      <div class="columns">
        <div class="main-column">
          <Panel title="How it stands">
            <p>
              <Badge state={found.quarantined ? 'quarantined' : found.state} /> {found.reason}{' '}
              <span class="dim">
                Since <Ago at={found.since} />.
              </span>
            </p>
            {found.next && <p class="dim">{found.next}</p>}
            {found.resolution && <p>{found.resolution}</p>}
          </Panel>
          {waiting.map((approval) => (
            <ApprovalCard key={approval.request_id} approval={approval} name={found.agent?.name ?? 'The agent'} />
          ))}
          {found.result?.answer && (
            <Panel title="Answer">
              <Code label="the answer">{found.result.answer}</Code>
            </Panel>
          )}
          {Boolean(found.result?.files_changed.length) && (
            <Panel
              title={`Changed files · ${found.result?.files_changed.length}`}
              actions={<span class="dim small">{bytes(found.result?.patch_bytes ?? 0)}</span>}
            >
              <ul class="plain chips">
                {found.result?.files_changed.map((file) => (
                  <li key={file.path}>
                    <Badge state={file.kind} tone="plain" /> <code>{file.path}</code>
                  </li>
                ))}
              </ul>
              <Patch at={path`/v1/runs/${id}/patch`} />
            </Panel>
          )}
          <Panel title="Log">
            <Log
              key={found.attempt}
              at={path`/v1/runs/${id}/log?follow=1`}
              kind="events"
              label="What the agent printed"
              empty="It has printed nothing yet."
            />
          </Panel>
          {found.machine && !found.ended_at && (
            <TerminalPanel vm={{ id: found.machine.vm_id, state: found.machine.state, engine: found.machine.engine }} />
          )}
          <ToolCalls entries={slice} />
          <Panel
            title="Its slice of the ledger"
            actions={
              <button
                type="button"
                onClick={() =>
                  void download(path`/v1/runs/${found.id}/evidence`, `evidence-run-${short(found.id)}.tar.gz`)
                }
              >
                Evidence
              </button>
            }
          >
            {slice?.length ? (
              <ol class="plain entries" tabIndex={0}>
                {slice.toReversed().map((entry) => (
                  <EntryRow key={entry.seq} entry={entry} />
                ))}
              </ol>
            ) : (
              <Empty title="Nothing is recorded yet" />
            )}
          </Panel>
        </div>
        <div class="side-column">
          <Panel title="Facts">
            <Facts
              of={[
                ['Agent', found.agent && <a href={href('agents', 'governed', found.agent.id)}>{found.agent.name}</a>],
                ['Trust', found.agent?.trust_level ?? null],
                ['Attempt', `${found.attempt} of ${found.max_attempts}`],
                [
                  'Machine',
                  found.machine &&
                    (found.ended_at === null || found.quarantined ? (
                      <a class="mono" href={href('machines', found.machine.vm_id)}>
                        {found.machine.vm_id}
                      </a>
                    ) : (
                      <span class="mono dim">{found.machine.vm_id}, gone</span>
                    )),
                ],
                ['Engine', found.machine?.engine ?? null],
                ['Host', found.machine && <Id key="host" value={found.machine.host_id} />],
                ['Exit code', found.result?.exit_code ?? null],
                ['Created', <Ago key="created" at={found.created_at} />],
                ['Started', found.started_at && <Ago key="started" at={found.started_at} />],
                ['Ended', found.ended_at && <Ago key="ended" at={found.ended_at} />],
                ['Task', found.task_id && <a href={href('tasks', found.task_id)}>its task</a>],
                ['Id', <Id key="id" value={found.id} />],
              ]}
            />
          </Panel>
          <Cost run={found} />
          {found.admission && (
            <Panel title="Admission">
              <Admitted admission={found.admission} />
            </Panel>
          )}
        </div>
      </div>
    </>
  );
}

const SPENDABLE: [string, string, (value: number) => string][] = [
  ['tool_calls', 'Tool calls', count],
  ['tokens', 'Tokens', count],
  ['cost_micros', 'Cost', (value) => (value / 1_000_000).toFixed(4)],
  ['wall_s', 'Time', (value) => milliseconds(value * 1000)],
];

function Cost({ run }: { run: Run }) {
  return (
    <Panel title="Cost">
      <div class="stack">
        {SPENDABLE.map(([member, name, told]) => {
          const used = run.spent?.[member] ?? 0;
          const most = run.budget?.[member];
          return most ? (
            <Meter key={name} label={name} used={used} total={most} told={`${told(used)} of ${told(most)}`} />
          ) : (
            <div class="meter-told" key={name}>
              <span>{name}</span>
              <span class="dim">{told(used)}</span>
            </div>
          );
        })}
      </div>
    </Panel>
  );
}
