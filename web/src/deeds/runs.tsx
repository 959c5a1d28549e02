// Runs: admitted, ended, tried again.
import { type Json, type Order, path, perform, quoted, send } from '../api';
import { refreshAll } from '../resource';
import { go, href } from '../route';
import type { Admission, Run } from '../types';
import type { Deed } from '../ui/actions';
import { show } from '../ui/dialog';
import { milliseconds, short } from '../ui/format';
import { FormDialog, numbered, type Values } from '../ui/forms';
import { Badge, Facts } from '../ui/parts';
import { failed } from '../ui/toasts';
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
          label: 'Source',
          half: true,
          hint: 'A folder on the server, by its absolute path, or the address of a git repository.',
        },
        {
          name: 'archive',
          label: 'Or an archive',
          kind: 'file',
          accept: '.tar,.tgz,.tar.gz,.tar.bz2,.tar.xz',
          half: true,
          hint: 'A folder as tar packs it, in place of the source.',
        },
        { name: 'timeout', label: 'Time limit, seconds', kind: 'number', half: true, min: 1 },
        { name: 'image', label: 'Image', half: true, rare: true, value: 'host', hint: '“host” is this host’s own programs.' },
        { name: 'ref', label: 'Git branch, tag or commit', half: true, rare: true, when: (values) => isRemote(values.source) },
        {
          name: 'manifest',
          label: 'Manifest',
          kind: 'area',
          rare: true,
          hint: 'What it may touch, in YAML.',
          when: (values) => !values.agent,
        },
        { name: 'cpu', label: 'Processors', kind: 'number', half: true, rare: true, min: 1 },
        { name: 'memory', label: 'Memory, MiB', kind: 'number', half: true, rare: true, min: 16 },
        { name: 'disk', label: 'Disk, MiB', kind: 'number', half: true, rare: true, min: 16 },
        { name: 'attempts', label: 'Attempts', kind: 'number', half: true, rare: true, min: 1, max: 20 },
        { name: 'calls', label: 'Budget, tool calls', kind: 'number', half: true, rare: true, min: 0 },
        { name: 'tokens', label: 'Budget, tokens', kind: 'number', half: true, rare: true, min: 0 },
        { name: 'cost', label: 'Budget, millionths', kind: 'number', half: true, rare: true, min: 0 },
      ]}
      submit="Start"
      done="Run admitted"
      make={runOrder}
      preview={{
        label: 'Would it be admitted?',
        path: '/v1/runs?dry_run=1',
        show: (answer) => <Admitted admission={answer as unknown as Admission} />,
      }}
      onDone={(answer, files) => void begin(idOf(answer, 'id'), files.archive)}
    />
  ));
}

/** Sends what a run waits for; one that cannot get it will not wait for ever. */
async function begin(id: string, archive: File | undefined): Promise<void> {
  go(href('runs', id));
  if (!archive) return;
  try {
    await send('PUT', path`/v1/runs/${id}/source`, { body: archive, headers: { 'Content-Type': 'application/x-tar' } });
  } catch (error) {
    failed(error);
    await perform(post(path`/v1/runs/${id}/cancel`, { reason: 'its source did not arrive' })).catch(failed);
  }
  refreshAll();
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

const isRemote = (source: string | undefined): boolean => Boolean(source) && !source?.startsWith('/');

function sourceOf(values: Values): Json | undefined {
  if (values.archive) return { kind: 'upload' };
  const source = values.source ?? '';
  if (!source) return undefined;
  return isRemote(source) ? { kind: 'git', url: source, ...told({ ref: values.ref }) } : { kind: 'folder', path: source };
}

function runOrder(values: Values): Order {
  const budget = told({
    tool_calls: numbered(values.calls),
    tokens: numbered(values.tokens),
    cost_micros: numbered(values.cost),
  });
  const body: Json = {
    task: values.task ?? '',
    ...told({
      agent: values.agent,
      manifest: values.agent ? undefined : values.manifest,
      command: values.command ? ['sh', '-c', values.command] : undefined,
      image: values.image,
      engine: values.engine,
      isolation: values.isolation,
      source: sourceOf(values),
      timeout_s: numbered(values.timeout),
      cpu: numbered(values.cpu),
      memory_mib: numbered(values.memory),
      disk_mib: numbered(values.disk),
      max_attempts: numbered(values.attempts),
      budget: Object.keys(budget).length ? budget : undefined,
    }),
  };
  // What reads an archive from a terminal is not one command.
  return post('/v1/runs', body, values.archive ? undefined : runCommand(values));
}

function runCommand(values: Values): string {
  const options: [string, string | undefined][] = [
    ['--agent', values.agent],
    ['--manifest', !values.agent && values.manifest ? 'MANIFEST.yaml' : ''],
    ['--image', values.image === 'host' ? '' : values.image],
    ['--engine', values.engine],
    ['--isolation', values.isolation],
    [isRemote(values.source) ? '--git' : '--source', values.source],
    ['--ref', isRemote(values.source) ? values.ref : ''],
    ['--cpu', values.cpu],
    ['--memory', values.memory],
    ['--disk', values.disk],
    ['--timeout', values.timeout],
    ['--attempts', values.attempts],
    ['--budget-calls', values.calls],
    ['--budget-tokens', values.tokens],
    ['--budget-cost', values.cost],
  ];
  const cli = ['borough run', quoted(values.task ?? '')];
  for (const [option, value] of options) if (value) cli.push(option, quoted(value));
  if (values.command) cli.push('--', 'sh', '-c', quoted(values.command));
  return cli.join(' ');
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
