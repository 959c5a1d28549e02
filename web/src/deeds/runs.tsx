// Runs: admitted, ended, tried again.
import { type Json, type Order, path, quoted } from '../api';
import { go, href } from '../route';
import type { Admission, Run } from '../types';
import type { Deed } from '../ui/actions';
import { show } from '../ui/dialog';
import { milliseconds, short } from '../ui/format';
import { FormDialog, numbered, type Values } from '../ui/forms';
import { Badge, Facts } from '../ui/parts';
import { killDeed } from './agents';
import { idOf, post, told } from './orders';

export function startRun(): void {
  show(() => (
    <FormDialog
      title="Start a run"
      fields={[
        { name: 'task', label: 'What is to be done', kind: 'area', required: true },
        { name: 'agent', label: 'Installed agent', half: true, hint: 'Its manifest says what may be touched.' },
        { name: 'command', label: 'Command', half: true, hint: 'Instead of an agent CLI; run by sh.' },
        {
          name: 'engine',
          label: 'Engine',
          kind: 'choice',
          half: true,
          choices: [
            ['', 'Whichever fits'],
            ['bubblewrap', 'bubblewrap'],
            ['docker', 'docker'],
            ['qemu', 'qemu'],
            ['firecracker', 'firecracker'],
          ],
        },
        {
          name: 'isolation',
          label: 'Isolation, at least',
          kind: 'choice',
          half: true,
          choices: [
            ['', 'As the manifest asks'],
            ['process', 'process'],
            ['container', 'container'],
            ['vm', 'vm'],
          ],
        },
        {
          name: 'source',
          label: 'Folder on the server',
          half: true,
          hint: 'An absolute path, or the address of a git repository.',
        },
        { name: 'timeout', label: 'Time limit, seconds', kind: 'number', half: true, min: 1 },
        { name: 'cpu', label: 'Processors', kind: 'number', half: true, rare: true, min: 1 },
        { name: 'memory', label: 'Memory, MiB', kind: 'number', half: true, rare: true, min: 16 },
        { name: 'attempts', label: 'Attempts', kind: 'number', half: true, rare: true, min: 1, max: 20 },
        { name: 'calls', label: 'Budget, tool calls', kind: 'number', half: true, rare: true, min: 1 },
      ]}
      submit="Start"
      done="Run admitted"
      make={runOrder}
      preview={{
        label: 'Would it be admitted?',
        path: '/v1/runs?dry_run=1',
        show: (answer) => <Admitted admission={answer as unknown as Admission} />,
      }}
      onDone={(answer) => go(href('runs', idOf(answer, 'id')))}
    />
  ));
}

/** Whether a run would be admitted, where, and what it could do. */
export function Admitted({ admission }: { admission: Admission }) {
  return (
    <>
      <Facts
        of={[
          ['Admitted', <Badge key="ok" state={admission.ok ? 'ok' : 'refused'} label={admission.ok ? 'yes' : 'no'} />],
          ['Engine', admission.engine],
          ['Host', admission.host_id],
          ['Isolation', admission.isolation],
          ['Trust', admission.trust_level],
          ['Image', admission.image],
          ['Start', admission.start && `${admission.start}, about ${milliseconds(admission.expected_start_ms ?? 0)}`],
          ['May do', admission.capabilities.join(', ')],
          ['May reach', admission.domains.join(', ') || 'nothing outside'],
        ]}
      />
      {admission.reasons.map((one) => (
        <p key={one.subject + one.reason} class="small">
          <b>{one.subject}</b>: {one.reason}
        </p>
      ))}
    </>
  );
}

function runOrder(values: Values): Order {
  const source = values.source ?? '';
  const folder = source.startsWith('/') ? { kind: 'folder', path: source } : { kind: 'git', url: source };
  const body: Json = {
    task: values.task ?? '',
    ...told({
      agent: values.agent,
      command: values.command ? ['sh', '-c', values.command] : undefined,
      engine: values.engine,
      isolation: values.isolation,
      source: source ? folder : undefined,
      timeout_s: numbered(values.timeout),
      cpu: numbered(values.cpu),
      memory_mib: numbered(values.memory),
      max_attempts: numbered(values.attempts),
      budget: values.calls ? { tool_calls: Number(values.calls) } : undefined,
    }),
  };
  const cli = ['borough run', quoted(values.task ?? '')];
  if (values.agent) cli.push('--agent', quoted(values.agent));
  if (values.engine) cli.push('--engine', values.engine);
  if (values.isolation) cli.push('--isolation', values.isolation);
  if (source) cli.push(source.startsWith('/') ? '--source' : '--git', quoted(source));
  if (values.timeout) cli.push('--timeout', values.timeout);
  if (values.command) cli.push('--', 'sh', '-c', quoted(values.command));
  return post('/v1/runs', body, cli.join(' '));
}

export function runDeeds(run: Run): Deed[] {
  const at = path`/v1/runs/${run.id}`;
  const name = `Run ${short(run.id)}`;
  if (['succeeded', 'failed', 'refused', 'cancelled', 'killed'].includes(run.state)) {
    return [
      {
        label: 'Retry',
        done: 'A fresh machine takes it',
        tone: 'main',
        ...post(`${at}/retry`, undefined, `borough retry ${run.id}`),
      },
    ];
  }
  return [
    {
      label: 'Cancel',
      done: `${name} is cancelled`,
      confirm: `${name} will not be finished.`,
      ...post(`${at}/cancel`, { reason: 'cancelled on the dashboard' }, `borough cancel ${run.id}`),
    },
    killDeed(run.id, name, false),
    killDeed(run.id, name, true),
  ];
}
