// Agents: workers, who do tasks, and governed agents, whose every call is judged.
import { path } from '../api';
import { governedDeeds, killDeed, spawnGoverned, spawnWorker, workerDeeds } from '../deeds/agents';
import { assignTask } from '../deeds/tasks';
import { useResource } from '../resource';
import { ask, href, place } from '../route';
import type { Approval, Entry, Explanation, Governed, GovernedDetail, HistoryEntry, Inbox, Worker } from '../types';
import { Action } from '../ui/actions';
import { download } from '../ui/download';
import { plural, short, span, words } from '../ui/format';
import { type Column, List } from '../ui/list';
import { Ago, Badge, Code, Empty, Facts, Heading, Id, Loading, Meter, Panel, Tabs, Trouble } from '../ui/parts';
import { ApprovalCard, EntryRow, GOVERNANCE, History, Standing, TOWN, Why } from './shared';

const OVER = ['stopped', 'dead', 'killed', 'failed', 'error', 'terminate'];

export function Agents() {
  const tab = place.value.query.get('kind') ?? 'workers';
  const ended = place.value.query.get('ended') === 'yes';
  const workers = useResource<{ agents: Worker[] }>('/v1/status', TOWN);
  const governed = useResource<Governed[]>(ended ? '/agents?ended=true' : '/agents', GOVERNANCE);
  const shown = workers.data?.agents.filter((one) => ended || !OVER.includes(one.state.toLowerCase()));
  return (
    <div class="page-list">
      <Heading title="Agents">
        <button type="button" onClick={spawnWorker}>
          Spawn a worker
        </button>
        <button type="button" class="main" onClick={spawnGoverned}>
          Spawn a governed agent
        </button>
      </Heading>
      <div class="row wrap">
        <Tabs
          label="Kind"
          tabs={[
            ['workers', 'Workers', shown?.length],
            ['governed', 'Governed', governed.data?.length],
          ]}
          chosen={tab}
          onChoose={(chosen) => ask({ kind: chosen === 'workers' ? null : chosen })}
        />
        <label class="check inline">
          <input
            type="checkbox"
            checked={ended}
            onChange={(event) => ask({ ended: event.currentTarget.checked ? 'yes' : null })}
          />
          <span>Ended ones too</span>
        </label>
      </div>
      {tab === 'workers' ? (
        <Workers shown={shown} trouble={workers.error} />
      ) : (
        <GovernedList shown={governed.data} trouble={governed.error} />
      )}
    </div>
  );
}

type Problem = Parameters<typeof Trouble>[0]['error'] | undefined;

function Workers({ shown, trouble }: { shown: Worker[] | undefined; trouble: Problem }) {
  if (!shown) return trouble ? <Trouble error={trouble} what="Workers" /> : <Loading />;
  const columns: Column<Worker>[] = [
    { title: 'Name', width: '2fr', cell: (one) => <span class="cut">{one.name}</span> },
    { title: 'State', width: '7.5rem', cell: (one) => <Badge state={one.state} /> },
    { title: 'CLI', width: '1.5fr', wide: true, cell: (one) => <span class="cut mono small">{one.cli}</span> },
    { title: 'Role', width: '1fr', wide: true, cell: (one) => one.role_id ?? '–' },
    { title: 'Done', width: '4rem', wide: true, align: 'end', cell: (one) => one.tasks_completed },
    { title: 'Inbox', width: '4rem', wide: true, align: 'end', cell: (one) => one.inbox_len },
    { title: 'Heard', width: '8rem', wide: true, cell: (one) => <Ago at={one.last_heartbeat} /> },
  ];
  return (
    <List
      label="Workers"
      rows={shown}
      columns={columns}
      keyOf={(one) => one.id}
      link={(one) => href('agents', 'workers', one.id)}
      below={(one) => `${one.cli} · ${one.tasks_completed} done`}
      empty={
        <Empty title="No worker yet">
          <p>A worker serves one agent: it takes tasks, runs an agent CLI, and reports.</p>
          <button type="button" class="main" onClick={spawnWorker}>
            Spawn a worker
          </button>
        </Empty>
      }
    />
  );
}

function GovernedList({ shown, trouble }: { shown: Governed[] | undefined; trouble: Problem }) {
  if (!shown) return trouble ? <Trouble error={trouble} what="Governed agents" /> : <Loading />;
  const columns: Column<Governed>[] = [
    { title: 'Name', width: '2fr', cell: (one) => <span class="cut">{one.name}</span> },
    { title: 'Status', width: '7.5rem', cell: (one) => <Badge state={one.status} /> },
    { title: 'Phase', width: '7rem', wide: true, cell: (one) => <Badge state={one.state} tone="plain" /> },
    { title: 'Trust', width: '1fr', wide: true, cell: (one) => one.trust_level },
    { title: 'Version', width: '6rem', wide: true, cell: (one) => one.version },
    { title: 'Since', width: '8rem', wide: true, cell: (one) => <Ago at={one.spawned_at} /> },
  ];
  return (
    <List
      label="Governed agents"
      rows={shown}
      columns={columns}
      keyOf={(one) => one.id}
      link={(one) => href('agents', 'governed', one.id)}
      below={(one) => `${one.trust_level} · ${one.version}`}
      empty={
        <Empty title="No governed agent runs">
          <p>
            A manifest says what an agent may touch. Each of its calls is then allowed or denied, with a reason, in the
            ledger.
          </p>
          <button type="button" class="main" onClick={spawnGoverned}>
            Spawn a governed agent
          </button>
        </Empty>
      }
    />
  );
}

export function OneWorker({ id }: { id: string }) {
  const worker = useResource<Worker & { history: HistoryEntry[] }>(path`/v1/agents/${id}`, TOWN);
  const why = useResource<Explanation>(path`/v1/agents/${id}/explain`, TOWN);
  const inbox = useResource<Inbox>(path`/v1/agents/${id}/inbox`, TOWN);
  const found = worker.data;
  if (!found) return worker.error ? <Trouble error={worker.error} what="Workers" /> : <Loading />;
  return (
    <>
      <Heading title={found.name} back={[href('agents'), 'Agents']}>
        <button type="button" onClick={() => assignTask(found.name)}>
          Assign a task
        </button>
        {workerDeeds(found).map((deed) => (
          <Action key={deed.label} deed={deed} />
        ))}
      </Heading>
      <div class="columns">
        <div class="main-column">
          {why.data && <Standing state={found.state} told={why.data} />}
          <History of={found.history} />
          <Panel title="Inbox">
            {inbox.data?.messages.length ? (
              <ul class="plain">
                {inbox.data.messages.map((message) => (
                  <li key={message.id} class="line">
                    <Badge state={message.type} tone={message.urgent ? 'bad' : 'plain'} />
                    <span>{message.summary}</span>
                  </li>
                ))}
              </ul>
            ) : (
              <Empty title="The inbox is empty" />
            )}
          </Panel>
        </div>
        <div class="side-column">
          <Panel title="Facts">
            <Facts
              of={[
                ['State', <Badge key="state" state={found.state} />],
                ['Since', <Ago key="since" at={found.state_since} />],
                ['Reason', found.reason],
                ['Agent CLI', <code key="cli">{found.cli}</code>],
                ['Role', found.role_id],
                ['Working on', found.current_task && <a href={href('tasks', found.current_task)}>its task</a>],
                ['Tasks done', found.tasks_completed],
                ['Rounds', found.rounds_completed],
                ['Heard', <Ago key="heard" at={found.last_heartbeat} />],
                ['Process', found.pid === null ? '' : `${found.pid} on ${found.host}`],
                [
                  'In a box',
                  typeof found.boxed === 'boolean' && (found.boxed ? 'yes' : `no: ${found.not_boxed_because}`),
                ],
                ['Id', <Id key="id" value={found.id} />],
              ]}
            />
          </Panel>
        </div>
      </div>
    </>
  );
}

export function OneGoverned({ id }: { id: string }) {
  const agent = useResource<GovernedDetail>(path`/agents/${id}`, GOVERNANCE);
  const approvals = useResource<Approval[]>('/approvals', GOVERNANCE);
  const trail = useResource<Entry[]>(path`/agents/${id}/audit?limit=${200}`, GOVERNANCE);
  const tools = useResource<{ name: string; description: string; requires_approval: boolean }[]>(
    path`/agents/${id}/tools`,
    { every: 30_000 },
  );
  const found = agent.data;
  if (!found) return agent.error ? <Trouble error={agent.error} what="Governed agents" /> : <Loading />;
  const live = ['running', 'paused'].includes(found.status);
  const waiting = approvals.data?.filter((approval) => approval.agent_id === id) ?? [];
  return (
    <>
      <Heading title={found.name} back={[`${href('agents')}?kind=governed`, 'Agents']}>
        {governedDeeds(found).map((deed) => (
          <Action key={deed.label} deed={deed} />
        ))}
        {live && <Action deed={killDeed(found.id, found.name, false)} />}
        {live && <Action deed={killDeed(found.id, found.name, true)} />}
        <button
          type="button"
          onClick={() => void download(path`/v1/evidence/${found.id}`, `evidence-agent-${short(found.id)}.tar.gz`)}
        >
          Evidence
        </button>
      </Heading>
      <div class="columns">
        <div class="main-column">
          {waiting.map((approval) => (
            <ApprovalCard key={approval.request_id} approval={approval} name={found.name} />
          ))}
          <Why id={id} />
          {found.last_error && (
            <Panel title="Last error">
              <Code label="the error">{found.last_error}</Code>
            </Panel>
          )}
          <ToolCalls entries={trail.data} />
          {found.has_process && <AgentLog id={id} />}
          {found.plan.length > 0 && (
            <Panel title="Plan">
              <ol>
                {found.plan.map((step) => (
                  <li key={step.description}>
                    {step.description} {step.tool && <code>{step.tool}</code>}
                  </li>
                ))}
              </ol>
            </Panel>
          )}
          <Panel title="Its slice of the ledger">
            {trail.data?.length ? (
              <ol class="plain entries" tabIndex={0}>
                {trail.data.toReversed().map((entry) => (
                  <EntryRow key={entry.seq} entry={entry} />
                ))}
              </ol>
            ) : (
              <Empty title="Nothing is recorded" />
            )}
          </Panel>
        </div>
        <div class="side-column">
          <Panel title="Facts">
            <Facts
              of={[
                ['Status', <Badge key="status" state={found.status} />],
                ['Phase', <Badge key="phase" state={found.state} tone="plain" />],
                ['Trust', found.trust_level],
                ['Task', found.task],
                ['Description', found.description],
                ['Tainted', found.tainted ? 'yes: it has read data from outside' : ''],
                ['Up', span(found.uptime_secs)],
                ['Restarts', found.restarts || ''],
                ['Exit code', found.exit_code],
                ['Network', [found.network.policy, ...found.network.allowlist].join(' ')],
                ['Manifest', <Id key="manifest" value={found.manifest_digest.slice(0, 16)} />],
                ['Id', <Id key="id" value={found.id} />],
              ]}
            />
          </Panel>
          <Budget budget={found.budget} spent={found.spent} />
          <Panel title={`May do · ${plural(found.capabilities.length, 'capability', 'capabilities')}`}>
            <ul class="plain chips">
              {found.capabilities.map((capability) => (
                <li key={capability}>
                  <code>{capability}</code>
                </li>
              ))}
            </ul>
          </Panel>
          {tools.data && (
            <Panel title={`Tools · ${tools.data.length}`}>
              <ul class="plain chips">
                {tools.data.map((tool) => (
                  <li key={tool.name} title={tool.description}>
                    <code>{tool.name}</code>
                    {tool.requires_approval && <span class="dim small"> asks</span>}
                  </li>
                ))}
              </ul>
            </Panel>
          )}
          {found.enforcement && (
            <Panel title="What holds here">
              <Facts
                of={Object.entries(found.enforcement.layers).map(([layer, holds]) => [
                  words(layer),
                  holds ? (
                    <Badge key={layer} state="ok" label="holds" />
                  ) : (
                    <span key={layer} title={found.enforcement?.reasons[layer]}>
                      <Badge state="pending" label="does not" />{' '}
                      <span class="dim small">{found.enforcement?.reasons[layer]}</span>
                    </span>
                  ),
                ])}
              />
            </Panel>
          )}
        </div>
      </div>
    </>
  );
}

function AgentLog({ id }: { id: string }) {
  const logs = useResource<{ lines?: string[]; text?: string; data?: string } | string>(
    path`/agents/${id}/result`,
    GOVERNANCE,
  );
  const result =
    logs.data && typeof logs.data === 'object' ? (logs.data as { result?: unknown; ready?: boolean }) : null;
  if (!result?.ready) return null;
  return (
    <Panel title="Result">
      <Code label="the result">
        {typeof result.result === 'string' ? result.result : JSON.stringify(result.result, null, 2)}
      </Code>
    </Panel>
  );
}

function Budget({ budget, spent }: { budget: GovernedDetail['budget']; spent: GovernedDetail['spent'] }) {
  const rows: [string, keyof GovernedDetail['budget']][] = [
    ['Tool calls', 'calls'],
    ['Tokens', 'tokens'],
    ['Cost', 'cost'],
    ['Seconds', 'wall_time_secs'],
  ];
  return (
    <Panel title="Cost">
      <div class="stack">
        {rows.map(([name, member]) => {
          const used = spent[member] ?? 0;
          const most = budget[member];
          return most === null ? (
            <div class="meter-told" key={name}>
              <span>{name}</span>
              <span class="dim">{used} (no limit)</span>
            </div>
          ) : (
            <Meter key={name} label={name} used={used} total={most} told={`${used} of ${most}`} />
          );
        })}
      </div>
    </Panel>
  );
}

/** Calls of tools with their verdicts: an intent and what became of it are one line. */
export function ToolCalls({ entries }: { entries: Entry[] | undefined }) {
  const calls = (entries ?? []).filter((entry) => entry.action === 'ToolInvoke' || entry.action === 'AccessDenied');
  const ended = calls.filter((entry) => entry.kind !== 'intent');
  const begun = new Map(calls.filter((entry) => entry.kind === 'intent').map((entry) => [entry.id, entry]));
  for (const entry of ended) if (entry.intent_id) begun.delete(entry.intent_id);
  const rows = [...ended, ...begun.values()].sort((one, other) => other.seq - one.seq);
  return (
    <Panel title={rows.length ? `Tool calls · ${rows.length}` : 'Tool calls'}>
      {rows.length ? (
        <ol class="plain entries" tabIndex={0}>
          {rows.map((entry) => (
            <EntryRow key={entry.seq} entry={entry} />
          ))}
        </ol>
      ) : (
        <Empty title="No tool was called">Each call appears here with its verdict and the rule that decided.</Empty>
      )}
    </Panel>
  );
}

/** Whichever kind an agent's id is of. */
export function AnyAgent({ id }: { id: string }) {
  const governed = useResource<GovernedDetail>(path`/agents/${id}`, GOVERNANCE);
  if (governed.data) return <OneGoverned id={id} />;
  return governed.error ? <OneWorker id={id} /> : <Loading />;
}
