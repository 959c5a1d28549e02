// Tasks: all of them, and one.
import { path, query } from '../api';
import { assignTask, replayDeadLetters, taskDeeds } from '../deeds/tasks';
import { usePaged } from '../paged';
import { useResource } from '../resource';
import { ask, href, place } from '../route';
import type { Explanation, HistoryEntry, Task, TownStatus } from '../types';
import { Action } from '../ui/actions';
import { count, firstLine, span, words } from '../ui/format';
import { type Column, List } from '../ui/list';
import { Log } from '../ui/logs';
import { Ago, Badge, Code, Empty, Facts, Heading, Id, Loading, Panel, Tabs, Trouble } from '../ui/parts';
import { History, Standing, TOWN, useNames } from './shared';

const STATES = ['running', 'assigned', 'pending', 'delayed', 'completed', 'failed', 'cancelled'];

export function Tasks() {
  const state = place.value.query.get('state') ?? '';
  const counts = useResource<TownStatus>('/v1/status?deep=true', TOWN).data?.tasks ?? {};
  const total = Object.values(counts).reduce((all, amount) => all + amount, 0);
  const name = useNames();
  const tasks = usePaged<Task>({
    at: query('/v1/tasks', { state, order: 'newest' }),
    member: 'tasks',
    keyOf: (task) => task.task_id,
    ...TOWN,
    one: (event) => (event.subjects.task ? path`/v1/tasks/${event.subjects.task}` : null),
    fits: (task) => !state || task.state === state,
  });
  const columns: Column<Task>[] = [
    { title: 'Task', width: '4fr', cell: (task) => <span class="cut">{firstLine(task.description)}</span> },
    { title: 'State', width: '7.5rem', cell: (task) => <Badge state={task.state} /> },
    { title: 'Agent', width: '1fr', wide: true, cell: (task) => <span class="cut">{name(task.agent_id)}</span> },
    {
      title: 'Attempt',
      width: '5rem',
      wide: true,
      align: 'end',
      cell: (task) => `${task.attempts} / ${task.max_attempts}`,
    },
    { title: 'Created', width: '8rem', wide: true, cell: (task) => <Ago at={task.created_at} /> },
    { title: 'Changed', width: '8rem', wide: true, cell: (task) => <Ago at={task.updated_at} /> },
  ];
  return (
    <div class="page-list">
      <Heading title="Tasks">
        {Boolean(counts.failed) && <Action deed={replayDeadLetters} />}
        <button type="button" class="main" onClick={() => assignTask()}>
          Assign a task
        </button>
      </Heading>
      <Tabs
        label="State"
        tabs={[
          ['', 'All', total],
          ...STATES.map((one): [string, string, number | undefined] => [one, words(one), counts[one]]),
        ]}
        chosen={state}
        onChoose={(chosen) => ask({ state: chosen || null })}
      />
      {tasks.error && <Trouble error={tasks.error} what="Tasks" />}
      {!tasks.items && !tasks.error && <Loading />}
      {tasks.items && (
        <List
          label="Tasks"
          rows={newestFirst(tasks.items)}
          columns={columns}
          keyOf={(task) => task.task_id}
          link={(task) => href('tasks', task.task_id)}
          below={(task) => (
            <>
              {name(task.agent_id)} · <Ago at={task.updated_at} />
            </>
          )}
          more={tasks.more}
          total={state ? (counts[state] ?? tasks.items.length) : total}
          empty={
            <Empty title={state ? `No task is ${state}` : 'No task yet'}>
              <p>Give work to one agent, or leave it to whoever is free.</p>
              <button type="button" class="main" onClick={() => assignTask()}>
                Assign a task
              </button>
            </Empty>
          }
        />
      )}
      <p class="dim small below">
        {tasks.items ? `${count(tasks.items.length)} read${tasks.more ? '; more as you scroll' : ''}` : ''}
      </p>
    </div>
  );
}

function newestFirst(tasks: Task[]): Task[] {
  return tasks.sort((one, other) =>
    one.created_at < other.created_at ? 1 : one.created_at > other.created_at ? -1 : 0,
  );
}

export function OneTask({ id }: { id: string }) {
  const task = useResource<Task & { history: HistoryEntry[] }>(path`/v1/tasks/${id}`, TOWN);
  const why = useResource<Explanation>(path`/v1/tasks/${id}/explain`, TOWN);
  const name = useNames();
  const found = task.data;
  if (!found) return task.error ? <Trouble error={task.error} what="Tasks" /> : <Loading />;
  return (
    <>
      <Heading title={firstLine(found.description)} back={[href('tasks'), 'Tasks']}>
        {taskDeeds(found).map((deed) => (
          <Action key={deed.label} deed={deed} />
        ))}
      </Heading>
      <div class="columns">
        <div class="main-column">
          {why.data && <Standing state={found.state} told={why.data} />}
          {found.description.includes('\n') && (
            <Panel title="Task">
              <Code label="the task">{found.description}</Code>
            </Panel>
          )}
          {found.last_error && (
            <Panel title="Last error">
              <Code label="the error">{found.last_error}</Code>
            </Panel>
          )}
          {found.result !== null && (
            <Panel title="Result">
              <Code label="the result">{found.result}</Code>
            </Panel>
          )}
          {found.attempts > 0 && (
            <Panel title="Log">
              <Log
                at={path`/v1/tasks/${id}/log`}
                kind="events"
                label="What the agent printed"
                empty="It has printed nothing."
              />
            </Panel>
          )}
        </div>
        <div class="side-column">
          <Panel title="Facts">
            <Facts
              of={[
                ['State', <Badge key="state" state={found.state} />],
                [
                  'Agent',
                  found.agent_id ? (
                    <a href={href('agents', 'workers', found.agent_id)}>{name(found.agent_id)}</a>
                  ) : (
                    'nobody yet'
                  ),
                ],
                ['Attempt', `${found.attempts} of ${found.max_attempts}`],
                ['Urgent', found.urgent ? 'yes' : ''],
                ['Role', found.role],
                ['Tags', found.tags.join(', ')],
                ['Created', <Ago key="created" at={found.created_at} />],
                ['Started', found.started_at && <Ago key="started" at={found.started_at} />],
                ['Ended', found.completed_at && <Ago key="ended" at={found.completed_at} />],
                ['Not before', found.not_before && <Ago key="delayed" at={found.not_before} />],
                ['Lease until', found.lease_expires_at && <Ago key="lease" at={found.lease_expires_at} />],
                ['Time limit', found.timeout_secs === null ? '' : span(found.timeout_secs)],
                ['Id', <Id key="id" value={found.task_id} />],
              ]}
            />
          </Panel>
          <History of={found.history} narrow />
        </div>
      </div>
    </>
  );
}
