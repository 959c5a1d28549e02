// What runs, what waits, what needs somebody.
import { spawnGoverned } from '../deeds/agents';
import { addHost, createEnvironment } from '../deeds/fleet';
import { startRun } from '../deeds/runs';
import { assignTask } from '../deeds/tasks';
import { callFigures, samples } from '../figures';
import { recent } from '../live';
import { useResource } from '../resource';
import { href } from '../route';
import type { Approval, Attention, Entry, FleetStatus, Host, Run, Task, TownStatus } from '../types';
import { Action, type Deed } from '../ui/actions';
import { CHART_PX, count, firstLine, mebibytes, milliseconds, now, plural, words } from '../ui/format';
import { Ago, Badge, Empty, Heading, Loading, Meter, Panel, Trouble } from '../ui/parts';
import { lazy } from './lazy';
import { ApprovalCard, EventRow, FLEET, GOVERNANCE, Subject, TOWN, useNames } from './shared';

const SHOWN = 6;
// The page is there before what draws its charts; their place is kept.
const Chart = lazy(() => import('../ui/chart'), <div style={{ height: `${CHART_PX + 24}px` }} />);

export function Overview() {
  const status = useResource<TownStatus>('/v1/status?deep=true', TOWN);
  const fleet = useResource<FleetStatus>('/api/status', FLEET);
  const approvals = useResource<Approval[]>('/approvals', GOVERNANCE);
  const governed = useResource<{ id: string }[]>('/agents', GOVERNANCE);
  const tasks = status.data?.tasks ?? {};
  const live = status.data?.agents.filter((agent) => agent.live).length;
  return (
    <>
      <Heading title="Overview">
        <button type="button" onClick={() => assignTask()}>
          Assign a task
        </button>
        <button type="button" class="main" onClick={startRun}>
          Start a run
        </button>
      </Heading>
      <div class="tiles">
        <Tile to={`${href('tasks')}?state=running`} name="Tasks running" value={tasks.running} />
        <Tile
          to={`${href('tasks')}?state=pending`}
          name="Tasks waiting"
          value={sum(tasks.pending, tasks.assigned, tasks.delayed)}
        />
        <Tile
          to={href('approvals')}
          name="Calls that wait for you"
          value={approvals.data?.length}
          loud={Boolean(approvals.data?.length)}
        />
        <Tile to={href('agents')} name="Agents live" value={sum(live, governed.data?.length)} />
        <Tile to={href('environments')} name="Machines" value={fleet.data?.total_vms} />
        <Tile to={href('hosts')} name="Hosts online" value={fleet.data?.hosts_online} of={fleet.data?.hosts} />
      </div>
      <div class="columns">
        <div class="main-column">
          <NeedsYou approvals={approvals.data} />
          <Underway />
          <Charts status={status.data} />
        </div>
        <div class="side-column">
          <HostUse fleet={fleet.data} trouble={fleet.error} />
          <Happening />
        </div>
      </div>
    </>
  );
}

const sum = (...amounts: (number | undefined)[]): number | undefined =>
  amounts.every((amount) => amount === undefined)
    ? undefined
    : amounts.reduce<number>((all, amount) => all + (amount ?? 0), 0);

function Tile({
  to,
  name,
  value,
  of,
  loud = false,
}: {
  to: string;
  name: string;
  value: number | undefined;
  of?: number | undefined;
  loud?: boolean;
}) {
  return (
    <a class={loud ? 'tile loud' : 'tile'} href={to}>
      <span class="tile-value">
        {value === undefined ? '–' : count(value)}
        {of !== undefined && <small> / {count(of)}</small>}
      </span>
      <span class="tile-name">{name}</span>
    </a>
  );
}

function NeedsYou({ approvals }: { approvals: Approval[] | undefined }) {
  const attention = useResource<{ items: Attention[] }>('/v1/attention', {
    contexts: ['town', 'fleet', 'governance', 'runs'],
  });
  const dead = useResource<{ tasks: Task[]; count: number }>('/v1/dead-letters?limit=5', TOWN);
  const hosts = useResource<Host[]>('/api/hosts', FLEET);
  const name = useNames();
  const items = attention.data?.items.filter((item) => item.kind !== 'approval') ?? [];
  const away = attention.data ? [] : (hosts.data ?? []).filter((host) => host.state !== 'online');
  const letters = attention.data ? [] : (dead.data?.tasks ?? []);
  const amount = items.length + (approvals?.length ?? 0) + away.length + letters.length;
  return (
    <Panel title={amount ? `Needs you · ${amount}` : 'Needs you'}>
      {amount === 0 && (
        <Empty title="Nothing needs you">
          Calls that wait for agreement, work that is out of attempts and hosts that are away appear here.
        </Empty>
      )}
      <div class="stack">
        {(approvals ?? []).slice(0, SHOWN).map((approval) => (
          <ApprovalCard key={approval.request_id} approval={approval} name={name(approval.agent_id)} />
        ))}
        {items.slice(0, SHOWN).map((item) => (
          <AttentionCard key={item.id} item={item} />
        ))}
        {letters.map((task) => (
          <article class="card" key={task.task_id}>
            <div class="row wrap">
              <Badge state="failed" label="out of attempts" />
              <a href={href('tasks', task.task_id)}>{firstLine(task.description)}</a>
            </div>
            {task.last_error && <p class="dim small">{firstLine(task.last_error)}</p>}
          </article>
        ))}
        {away.map((host) => (
          <article class="card" key={host.id}>
            <div class="row wrap">
              <Badge state={host.state} />
              <a href={href('hosts')}>Host {host.addr}</a>
            </div>
            {host.error && <p class="dim small">{host.error}</p>}
          </article>
        ))}
      </div>
    </Panel>
  );
}

export function AttentionCard({ item }: { item: Attention }) {
  return (
    <article class="card">
      <div class="row wrap">
        <Badge state={item.urgency} label={words(item.kind)} />
        <strong>
          {item.subject ? <Subject kind={item.subject.kind} id={item.subject.id} name={item.title} /> : item.title}
        </strong>
        <span class="grow" />
        <span class="dim small">
          <Ago at={item.since} />
        </span>
      </div>
      <p class="small">{item.why}</p>
      {item.safe_default && <p class="dim small">If nobody acts: {item.safe_default}</p>}
      <div class="row wrap end">
        {item.actions.map((action) => (
          <Action
            key={action.label}
            small
            deed={{
              label: action.label,
              done: `${action.label}: done`,
              method: action.method as Deed['method'],
              path: action.path,
              body: action.body ?? undefined,
              cli: action.command ?? undefined,
            }}
          />
        ))}
      </div>
    </article>
  );
}

function Underway() {
  const runs = useResource<{ runs: Run[] }>('/v1/runs?limit=20', { contexts: ['runs', 'town', 'governance'] });
  const tasks = useResource<{ tasks: Task[] }>(`/v1/tasks?state=running&limit=${SHOWN}`, TOWN);
  const name = useNames();
  const going = (runs.data?.runs ?? []).filter((run) => run.ended_at === null).slice(0, SHOWN);
  const ofRuns = new Set(going.map((run) => run.task_id));
  const work = (tasks.data?.tasks ?? []).filter((task) => !ofRuns.has(task.task_id));
  if (tasks.error && !tasks.data)
    return (
      <Panel title="Runs now">
        <Trouble error={tasks.error} what="Tasks" />
      </Panel>
    );
  return (
    <Panel title="Runs now" actions={<a href={href('tasks')}>All tasks</a>}>
      {!tasks.data && <Loading />}
      {tasks.data && !work.length && !going.length && (
        <Empty title="Nothing is running">
          <div class="row wrap centre">
            <button type="button" onClick={startRun}>
              Start a run
            </button>
            <button type="button" onClick={() => assignTask()}>
              Assign a task
            </button>
            <button type="button" onClick={spawnGoverned}>
              Spawn an agent
            </button>
            <button type="button" onClick={createEnvironment}>
              Create an environment
            </button>
          </div>
        </Empty>
      )}
      <ul class="plain">
        {going.map((run) => (
          <li key={run.id} class="line">
            <Badge state={run.state} />
            <a href={href('runs', run.id)}>{firstLine(run.task)}</a>
            <span class="grow" />
            <span class="dim small">
              {run.agent?.name} · <Ago at={run.since} />
            </span>
          </li>
        ))}
        {work.map((task) => (
          <li key={task.task_id} class="line">
            <Badge state={task.state} />
            <a href={href('tasks', task.task_id)}>{firstLine(task.description)}</a>
            <span class="grow" />
            <span class="dim small">
              {name(task.agent_id)} · <Ago at={task.started_at} />
            </span>
          </li>
        ))}
      </ul>
    </Panel>
  );
}

const percent = (value: number): string => `${Math.round(value)} %`;

function Charts({ status }: { status: TownStatus | undefined }) {
  const entries = useResource<Entry[]>('/audit?order=newest&limit=1000&action=ToolInvoke', GOVERNANCE);
  const calls = callFigures(entries.data ?? [], now.value);
  const seen = samples.value;
  const times = seen.map((one) => one.at);
  const states = new Map<string, number>();
  for (const agent of status?.agents ?? []) states.set(agent.state, (states.get(agent.state) ?? 0) + 1);
  return (
    <div class="charts">
      <Panel title="Queue" actions={<span class="dim small">the last hour</span>}>
        <Chart
          label="Tasks that wait and tasks under way"
          times={times}
          told={(value) => count(Math.round(value))}
          series={[
            { label: 'waiting', colour: '--series-1', values: seen.map((one) => one.waiting) },
            { label: 'under way', colour: '--series-2', values: seen.map((one) => one.underway) },
          ]}
        />
      </Panel>
      <Panel title="Host use" actions={<span class="dim small">promised, of all hosts</span>}>
        <Chart
          label="Processors and memory that are promised"
          times={times}
          told={percent}
          series={[
            { label: 'CPU', colour: '--series-1', values: seen.map((one) => one.cpu) },
            { label: 'memory', colour: '--series-3', values: seen.map((one) => one.memory) },
          ]}
        />
      </Panel>
      <Panel title="Tool calls" actions={<span class="dim small">a minute</span>}>
        {calls.times.length ? (
          <Chart
            label="Tool calls a minute"
            times={calls.times}
            told={(value) => count(Math.round(value))}
            series={[
              { label: 'calls', colour: '--series-2', values: calls.calls },
              { label: 'denied', colour: '--series-4', values: calls.denied },
            ]}
          />
        ) : (
          <Empty title="No tool was called yet">Each call of a governed agent is judged, and counted here.</Empty>
        )}
      </Panel>
      <Panel title="Latency of calls" actions={<span class="dim small">from intent to outcome</span>}>
        {calls.times.length ? (
          <Chart
            label="How long tool calls take"
            times={calls.times}
            told={milliseconds}
            series={[
              { label: 'median', colour: '--series-1', values: calls.p50 },
              { label: '95 %', colour: '--series-3', values: calls.p95 },
            ]}
          />
        ) : (
          <Empty title="Nothing to measure yet" />
        )}
      </Panel>
      <Panel title="Agents by state">
        {states.size ? (
          <div class="stack">
            {[...states].sort().map(([state, amount]) => (
              <Meter
                key={state}
                label={words(state)}
                used={amount}
                total={status?.agent_count ?? amount}
                told={plural(amount, 'agent')}
                calm
              />
            ))}
          </div>
        ) : (
          <Empty title="No worker is registered" />
        )}
      </Panel>
    </div>
  );
}

function HostUse({
  fleet,
  trouble,
}: {
  fleet: FleetStatus | undefined;
  trouble: Parameters<typeof Trouble>[0]['error'] | undefined;
}) {
  return (
    <Panel title="Capacity" actions={<a href={href('hosts')}>Hosts</a>}>
      {!fleet && (trouble ? <Trouble error={trouble} what="Hosts" /> : <Loading />)}
      {fleet?.hosts === 0 && (
        <Empty title="No host yet">
          <button type="button" onClick={addHost}>
            Add a host
          </button>
        </Empty>
      )}
      {fleet && fleet.hosts > 0 && (
        <div class="stack">
          <Meter
            label="Processors"
            used={fleet.cpu_used}
            total={fleet.cpu_total}
            told={`${fleet.cpu_used} of ${fleet.cpu_total}`}
          />
          <Meter
            label="Memory"
            used={fleet.mem_used}
            total={fleet.mem_total}
            told={`${mebibytes(fleet.mem_used)} of ${mebibytes(fleet.mem_total)}`}
          />
          <Meter
            label="Disk"
            used={fleet.disk_used}
            total={fleet.disk_total}
            told={`${mebibytes(fleet.disk_used)} of ${mebibytes(fleet.disk_total)}`}
          />
        </div>
      )}
    </Panel>
  );
}

function Happening() {
  const newest = recent.value.slice(-12).reverse();
  return (
    <Panel title="Happening" actions={<a href={href('events')}>All events</a>}>
      {newest.length ? (
        <ul class="plain entries narrow" tabIndex={0}>
          {newest.map((event) => (
            <EventRow key={event.context + event.id} event={event} />
          ))}
        </ul>
      ) : (
        <Empty title="Quiet">What happens from now on appears here at once.</Empty>
      )}
    </Panel>
  );
}
