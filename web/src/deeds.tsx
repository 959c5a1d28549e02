// Everything that can be done from here, as requests and as commands.
import { type Json, type Order, path, quoted } from './api';
import { resource } from './resource';
import { go, href } from './route';
import type { Approval, Environment, Governed, Host, Machine, Run, Task, Worker } from './types';
import type { Deed } from './ui/actions';
import { show } from './ui/dialog';
import { firstLine, short } from './ui/format';
import { type Field, FormDialog, lines, listed, numbered, type Values } from './ui/forms';

function post(at: string, body: Json | undefined, cli?: string): Order {
  return { method: 'POST', path: at, body, cli };
}

/** The members that say something. */
function told(members: Record<string, Json | undefined>): Record<string, Json> {
  return Object.fromEntries(
    Object.entries(members).filter((entry): entry is [string, Json] => entry[1] !== undefined && entry[1] !== ''),
  );
}

const idOf = (answer: Json, member: string): string => {
  const found = answer !== null && typeof answer === 'object' && !Array.isArray(answer) ? answer[member] : undefined;
  return typeof found === 'string' ? found : '';
};

// -- tasks ----------------------------------------------------------------------------------------------------------

const ANYBODY = '';

export function assignTask(agent = ANYBODY): void {
  const workers = resource<{ agents: Worker[] }>('/v1/agents');
  void workers
    .read()
    .then(() =>
      show(() => <Assign agent={agent} names={(workers.data.peek()?.agents ?? []).map((one) => one.name)} />),
    );
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
      title="Assign a task"
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

// -- workers --------------------------------------------------------------------------------------------------------

export function spawnWorker(): void {
  show(() => (
    <FormDialog
      title="Spawn a worker"
      fields={[
        { name: 'name', label: 'Name', required: true, half: true },
        {
          name: 'cli',
          label: 'Agent CLI',
          half: true,
          hint: 'A built-in one, one of your settings, or a command line. Empty: the town’s default.',
        },
        { name: 'role', label: 'Role', half: true, rare: true },
        { name: 'nickname', label: 'Nickname', half: true, rare: true },
      ]}
      submit="Spawn"
      done="Worker started"
      make={(values) =>
        post(
          '/v1/agents',
          { name: values.name ?? '', ...told({ cli: values.cli, role_id: values.role, nickname: values.nickname }) },
          `tt spawn ${quoted(values.name ?? '')}${values.cli ? ` --cli ${quoted(values.cli)}` : ''}${values.role ? ` --role ${quoted(values.role)}` : ''}`,
        )
      }
      onDone={(answer) => go(href('agents', 'workers', idOf(answer, 'agent_id')))}
    />
  ));
}

export function workerDeeds(worker: Worker): Deed[] {
  const at = path`/v1/agents/${worker.id}`;
  const name = quoted(worker.name);
  const over = ['Stopped', 'Dead', 'Killed', 'Failed', 'Error'].includes(worker.state);
  const deeds: Deed[] = [];
  if (over)
    deeds.push({
      label: 'Restart',
      done: `${worker.name} starts again`,
      tone: 'main',
      ...post(`${at}/restart`, undefined, `tt restart ${name}`),
    });
  else {
    if (worker.state === 'Paused')
      deeds.push({
        label: 'Resume',
        done: `${worker.name} goes on`,
        tone: 'main',
        ...post(`${at}/resume`, undefined, `tt resume ${name}`),
      });
    else
      deeds.push({
        label: 'Pause',
        done: `${worker.name} is frozen`,
        ...post(`${at}/interrupt`, undefined, `tt interrupt ${name}`),
      });
    deeds.push({
      label: 'Close',
      done: `${worker.name} finishes what it has and leaves`,
      ...post(`${at}/close`, undefined, `tt close ${name}`),
    });
    deeds.push({
      label: 'Kill',
      done: `${worker.name} is ended`,
      tone: 'danger',
      confirm: `${worker.name} is ended now; its task returns to its queue.`,
      ...post(`${at}/kill`, undefined, `tt kill ${name}`),
    });
  }
  return deeds;
}

// -- governed agents ------------------------------------------------------------------------------------------------

const MANIFEST = `apiVersion: scarab/v1
kind: AgentManifest
metadata:
  name: reader
  version: 1.0.0
spec:
  trust_level: sandboxed
  capabilities:
    - obs.append
`;

export function spawnGoverned(): void {
  const installed = resource<{ name: string }[]>('/store/agents');
  void installed.read().then(() => {
    const names = (installed.data.peek() ?? []).map((one) => one.name);
    show(() => (
      <FormDialog
        title="Spawn a governed agent"
        fields={[
          {
            name: 'name',
            label: 'Installed agent',
            kind: 'choice',
            required: true,
            choices: [['', 'By a manifest'], ...names.map((name): [string, string] => [name, name])],
          },
          {
            name: 'manifest',
            label: 'Manifest',
            kind: 'area',
            required: true,
            value: MANIFEST,
            hint: 'What it may touch, in YAML.',
            when: (values) => !values.name,
          },
          { name: 'task', label: 'Task', kind: 'area', hint: 'Instead of the one in the manifest.' },
        ]}
        submit="Spawn"
        done="Agent started"
        make={(values) =>
          post(
            '/agents',
            {
              ...(values.name ? { name: values.name } : { manifest_yaml: values.manifest ?? '' }),
              ...told({ task_override: values.task }),
            },
            (values.name ? `ash agent run ${quoted(values.name)}` : 'ash spawn MANIFEST.yaml') +
              (values.task ? ` --task ${quoted(values.task)}` : ''),
          )
        }
        onDone={(answer) => go(href('agents', 'governed', idOf(answer, 'id')))}
      />
    ));
  });
}

export function governedDeeds(agent: Governed): Deed[] {
  const at = path`/agents/${agent.id}`;
  if (!['running', 'paused'].includes(agent.status)) return [];
  const pause: Deed =
    agent.status === 'paused'
      ? {
          label: 'Resume',
          done: `${agent.name} goes on`,
          tone: 'main',
          ...post(`${at}/resume`, undefined, `ash resume ${agent.id}`),
        }
      : {
          label: 'Pause',
          done: `${agent.name} is stopped where it is`,
          ...post(`${at}/pause`, undefined, `ash pause ${agent.id}`),
        };
  return [
    pause,
    {
      label: 'End',
      done: `${agent.name} is ended`,
      tone: 'danger',
      method: 'DELETE',
      path: at,
      cli: `ash kill ${agent.id}`,
      confirm: `${agent.name} and all agents that it started are ended.`,
    },
  ];
}

export function killDeed(target: string, name: string, quarantine: boolean): Deed {
  return {
    label: quarantine ? 'Quarantine' : 'Kill',
    tone: 'danger',
    done: `${name} can do nothing more`,
    confirm: quarantine
      ? `${name} can do nothing more from this moment on: its token is revoked, its machine frozen and kept, its task held.`
      : `${name} can do nothing more from this moment on: its token is revoked, its machine goes, its lease is fenced.`,
    ...post(
      '/v1/kill',
      { target, quarantine, reason: 'from the dashboard' },
      `borough kill ${quoted(target)}${quarantine ? ' --quarantine' : ''}`,
    ),
  };
}

// -- approvals ------------------------------------------------------------------------------------------------------

export function approvalDeeds(approval: Approval): [Deed, Deed] {
  const at = path`/approvals/${approval.request_id}`;
  return [
    {
      label: 'Approve',
      tone: 'main',
      done: `${approval.tool_name} goes ahead`,
      ...post(`${at}/approve`, {}, `ash approve ${approval.request_id}`),
    },
    {
      label: 'Deny',
      tone: 'danger',
      done: `${approval.tool_name} is refused`,
      ...post(`${at}/deny`, {}, `ash deny ${approval.request_id}`),
    },
  ];
}

// -- fleet ----------------------------------------------------------------------------------------------------------

export function addHost(): void {
  show(() => (
    <FormDialog
      title="Add a host"
      fields={[
        { name: 'addr', label: 'Address', required: true, hint: 'HOST:PORT of its tt-agent.' },
        {
          name: 'token',
          label: 'Join token',
          hint: 'What tt-agent printed, where it has one; else the fleet’s key is used.',
        },
      ]}
      submit="Add"
      done="Host registered"
      make={(values) =>
        post(
          '/api/hosts',
          { addr: values.addr ?? '', ...told({ token: values.token }) },
          `tt host add ${quoted(values.addr ?? '')}`,
        )
      }
    />
  ));
}

export function hostDeeds(host: Host): Deed[] {
  const at = path`/api/hosts/${host.id}`;
  const cordon: Deed = host.cordoned
    ? {
        label: 'Uncordon',
        done: `${host.id} takes machines again`,
        ...post(`${at}/uncordon`, undefined, `tt host uncordon ${host.id}`),
      }
    : {
        label: 'Cordon',
        done: `${host.id} takes nothing new`,
        ...post(`${at}/cordon`, undefined, `tt host cordon ${host.id}`),
      };
  return [
    cordon,
    {
      label: 'Remove',
      tone: 'danger',
      done: `${host.id} is removed`,
      confirm: `${host.addr} leaves the fleet. It must have no machines.`,
      method: 'DELETE',
      path: at,
      cli: `tt host remove ${host.id}`,
    },
  ];
}

const ENGINES = ['bubblewrap', 'docker', 'qemu', 'firecracker', 'bhyve', 'jail'];

export function createEnvironment(): void {
  const images = resource<{ name: string }[]>('/api/images');
  const hosts = resource<Host[]>('/api/hosts');
  void Promise.all([images.read(), hosts.read()]).then(() => {
    const offered = new Set((hosts.data.peek() ?? []).flatMap((host) => host.engines));
    const names = [...new Set((images.data.peek() ?? []).map((image) => image.name))];
    const engines = [...ENGINES.filter((name) => offered.has(name)), ...ENGINES.filter((name) => !offered.has(name))];
    show(() => <CreateEnvironment engines={engines} offered={offered} images={names} />);
  });
}

function CreateEnvironment({
  engines,
  offered,
  images,
}: {
  engines: string[];
  offered: Set<string>;
  images: string[];
}) {
  const fields: Field[] = [
    { name: 'id', label: 'Name', required: true, half: true },
    { name: 'owner', label: 'Owner', half: true, value: 'web' },
    {
      name: 'engine',
      label: 'Engine',
      kind: 'choice',
      half: true,
      required: true,
      choices: engines.map((name) => [name, offered.has(name) ? name : `${name} (no host has it)`]),
    },
    {
      name: 'image',
      label: 'Image',
      half: true,
      required: true,
      value: images[0] ?? '',
      hint: images.length ? `There is: ${images.join(', ')}` : 'For docker any image that the host can pull.',
    },
    { name: 'replicas', label: 'Machines', kind: 'number', half: true, required: true, value: '1', min: 1, max: 1000 },
    { name: 'cpu', label: 'Processors each', kind: 'number', half: true, value: '1', min: 1 },
    { name: 'mem', label: 'Memory each, MiB', kind: 'number', half: true, value: '512', min: 16 },
    { name: 'disk', label: 'Disk each, MiB', kind: 'number', half: true, value: '2048', min: 16 },
    { name: 'ports', label: 'Ports to publish', half: true, hint: 'Separated by commas.' },
    {
      name: 'lifetime',
      label: 'Lifetime, seconds',
      kind: 'number',
      half: true,
      min: 0,
      hint: 'Empty: 6 hours. 0: for ever.',
    },
    { name: 'deny', label: 'No way out to the network', kind: 'check' },
    { name: 'keys', label: 'SSH keys', kind: 'area', rare: true, hint: 'One a line.' },
    {
      name: 'allow',
      label: 'May reach only',
      kind: 'area',
      rare: true,
      hint: 'host:port, *.host:port or CIDR:port, one a line.',
    },
  ];
  return (
    <FormDialog
      title="Create an environment"
      fields={fields}
      submit="Create"
      done="Environment created"
      make={createOrder}
      onDone={(answer) => go(href('environments', idOf((answer as { env?: Json })?.env ?? null, 'id')))}
    />
  );
}

function createOrder(values: Values): Order {
  const vm = told({
    image: values.image ?? '',
    engine: values.engine ?? 'bubblewrap',
    cpu: numbered(values.cpu),
    mem: numbered(values.mem),
    disk: numbered(values.disk),
    ports: listed(values.ports).map(Number),
    deny_outgoing: Boolean(values.deny),
    egress_allowlist: lines(values.allow).length ? lines(values.allow) : undefined,
  });
  const replicas = Math.max(1, Math.min(1000, numbered(values.replicas) ?? 1));
  const body: Json = {
    id: values.id ?? '',
    owner: values.owner ?? '',
    ssh_keys: lines(values.keys),
    vms: Array.from({ length: replicas }, () => vm),
    ...told({ lifetime: numbered(values.lifetime) }),
  };
  const cli = [
    'tt env create',
    quoted(values.id ?? ''),
    '--image',
    quoted(values.image ?? ''),
    '--engine',
    values.engine ?? '',
    '--cpu',
    values.cpu ?? '',
    '--mem',
    values.mem ?? '',
    '--disk',
    values.disk ?? '',
  ].filter(Boolean);
  if (replicas > 1) cli.push('--dup', String(replicas));
  for (const port of listed(values.ports)) cli.push('--port', port);
  if (values.deny) cli.push('--deny-outgoing');
  if (values.owner) cli.push('--owner', quoted(values.owner));
  if (values.lifetime) cli.push('--lifetime', values.lifetime);
  for (const line of lines(values.allow)) cli.push('--allow', quoted(line));
  for (const line of lines(values.keys)) cli.push('--ssh-key', quoted(line));
  return post('/api/envs', body, cli.join(' '));
}

export function environmentDeeds(env: Environment): Deed[] {
  const at = path`/api/envs/${env.id}`;
  const name = quoted(env.id);
  const turn: Deed = /stopped/i.test(env.state)
    ? {
        label: 'Start',
        tone: 'main',
        done: `${env.id} is started`,
        ...post(`${at}/start`, undefined, `tt env start ${name}`),
      }
    : { label: 'Stop', done: `${env.id} is stopped`, ...post(`${at}/stop`, undefined, `tt env stop ${name}`) };
  return [
    turn,
    {
      label: 'Delete',
      tone: 'danger',
      done: `${env.id} is deleted`,
      confirm: `${env.id} goes, with its machines and their disks.`,
      method: 'DELETE',
      path: at,
      cli: `tt env delete ${name}`,
      after: () => go(href('environments')),
    },
  ];
}

export function machineDeeds(vm: Machine): Deed[] {
  const at = path`/api/vms/${vm.id}`;
  const deeds: Deed[] = [];
  if (vm.state === 'running') {
    deeds.push({ label: 'Stop', done: `${vm.id} is stopped`, ...post(`${at}/stop`, undefined, `tt vm stop ${vm.id}`) });
    deeds.push({
      label: 'Pause',
      done: `${vm.id} is frozen`,
      ...post(`${at}/pause`, undefined, `tt vm pause ${vm.id}`),
    });
  } else if (vm.state === 'stopped' || vm.state === 'paused') {
    deeds.push({
      label: 'Start',
      tone: 'main',
      done: `${vm.id} runs`,
      ...post(`${at}/start`, undefined, `tt vm start ${vm.id}`),
    });
  }
  deeds.push({
    label: 'Destroy',
    tone: 'danger',
    done: `${vm.id} is destroyed`,
    confirm: `Machine ${vm.id} goes, with its disk.`,
    method: 'DELETE',
    path: at,
  });
  return deeds;
}

// -- runs -----------------------------------------------------------------------------------------------------------

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
      onDone={(answer) => go(href('runs', idOf(answer, 'id')))}
    />
  ));
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
