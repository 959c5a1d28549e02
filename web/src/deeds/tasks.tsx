// Work: given, taken back, tried again.
import { type Order, path, quoted } from '../api';
import { resource } from '../resource';
import { go, href } from '../route';
import type { Task, Worker } from '../types';
import type { Deed } from '../ui/actions';
import { showRead } from '../ui/dialog';
import { firstLine } from '../ui/format';
import { type Field, FormDialog, listed, numbered, type Values } from '../ui/forms';
import { idOf, post, told } from './orders';

const ANYBODY = '';
const ASSIGN = 'Assign a task';

export function assignTask(agent = ANYBODY): void {
  const workers = resource<{ agents: Worker[] }>('/v1/agents');
  showRead(ASSIGN, workers.read(), () => (
    <Assign agent={agent} names={(workers.data.peek()?.agents ?? []).map((one) => one.name)} />
  ));
}

function Assign({ agent, names }: { agent: string; names: string[] }) {
  const fields: Field[] = [
    { name: 'task', label: 'What is to be done', kind: 'area', required: true },
    {
      name: 'agent',
      label: 'Who',
      kind: 'choice',
      value: agent,
      required: true,
      choices: [[ANYBODY, 'Anybody who is free (backlog)'], ...names.map((name): [string, string] => [name, name])],
    },
    { name: 'urgent', label: 'Urgent', kind: 'check', hint: 'Before everything else that waits.' },
    { name: 'role', label: 'Role', half: true, rare: true, when: (values) => !values.agent },
    { name: 'tags', label: 'Tags', half: true, rare: true, hint: 'Separated by commas.' },
    { name: 'max_attempts', label: 'Attempts', kind: 'number', min: 1, max: 20, half: true, rare: true },
    { name: 'timeout', label: 'Time limit, seconds', kind: 'number', min: 1, half: true, rare: true },
  ];
  return (
    <FormDialog
      title={ASSIGN}
      fields={fields}
      submit="Assign"
      done="Task assigned"
      make={assignOrder}
      onDone={(answer) => go(href('tasks', idOf(answer, 'task_id')))}
    />
  );
}

function assignOrder(values: Values): Order {
  const options = told({
    urgent: values.urgent ? true : undefined,
    tags: listed(values.tags).length ? listed(values.tags) : undefined,
    max_attempts: numbered(values.max_attempts),
    timeout_secs: numbered(values.timeout),
  });
  const task = values.task ?? '';
  if (values.agent) {
    const cli = `tt assign ${quoted(values.agent)} ${quoted(task)}${values.urgent ? ' --urgent' : ''}`;
    return post('/v1/tasks/assign', { agent: values.agent, task, ...options }, cli);
  }
  const cli = `tt backlog add ${quoted(task)}${values.urgent ? ' --urgent' : ''}`;
  return post('/v1/backlog', { description: task, ...told({ role: values.role }), ...options }, cli);
}

export function taskDeeds(task: Task): Deed[] {
  const at = path`/v1/tasks/${task.task_id}`;
  const deeds: Deed[] = [];
  if (['failed', 'cancelled', 'delayed'].includes(task.state)) {
    deeds.push({
      label: 'Retry',
      done: 'The task is back at work',
      ...post(`${at}/retry`, undefined, `tt task retry ${task.task_id}`),
      tone: 'main',
    });
  }
  if (!['completed', 'failed', 'cancelled'].includes(task.state)) {
    deeds.push({
      label: 'Cancel',
      done: 'Task cancelled',
      tone: 'danger',
      confirm: `“${firstLine(task.description)}” will not be done. Who works on it is stopped.`,
      ...post(`${at}/cancel`, { reason: 'cancelled on the dashboard' }, `tt task cancel ${task.task_id}`),
    });
  }
  return deeds;
}

export const replayDeadLetters: Deed = {
  label: 'Replay dead letters',
  done: 'The oldest are back at work',
  ...post('/v1/dead-letters/replay', {}, 'tt dead replay'),
};
