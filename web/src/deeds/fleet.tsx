// Hosts, environments, machines: added, made, turned, removed.
import { type Json, type Order, path, quoted } from '../api';
import { resource } from '../resource';
import { go, href } from '../route';
import type { Environment, Host, Machine } from '../types';
import type { Deed } from '../ui/actions';
import { show, showRead } from '../ui/dialog';
import { type Field, FormDialog, lines, listed, numbered, type Values } from '../ui/forms';
import { Badge } from '../ui/parts';
import { idOf, post, told } from './orders';

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

const CREATE = 'Create an environment';
const ENGINES = ['bubblewrap', 'docker', 'qemu', 'firecracker', 'bhyve', 'jail'];

export function createEnvironment(): void {
  const images = resource<{ name: string }[]>('/api/images');
  const hosts = resource<Host[]>('/api/hosts');
  showRead(CREATE, Promise.all([images.read(), hosts.read()]), () => {
    const offered = new Set((hosts.data.peek() ?? []).flatMap((host) => host.engines));
    const names = [...new Set((images.data.peek() ?? []).map((image) => image.name))];
    const engines = [...ENGINES.filter((name) => offered.has(name)), ...ENGINES.filter((name) => !offered.has(name))];
    return <CreateEnvironment engines={engines} offered={offered} images={names} />;
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
      title={CREATE}
      fields={fields}
      submit="Create"
      done="Environment created"
      make={createOrder}
      preview={{
        label: 'Where would it go?',
        path: '/api/envs?dry_run=1',
        show: (answer) => <Placement preview={answer as unknown as Preview} />,
      }}
      onDone={(answer) => go(href('environments', idOf((answer as { env?: Json })?.env ?? null, 'id')))}
    />
  );
}

interface Preview {
  placed: { image: string; engine: string; host_id: string; why: string }[];
  refused?: string;
  hosts?: Record<string, string>;
}

/** Where an environment's machines would go, and why. */
function Placement({ preview }: { preview: Preview }) {
  return (
    <>
      <p>
        {preview.refused === undefined ? (
          <Badge state="ok" label="there is room" />
        ) : (
          <Badge state="refused" label="no room" />
        )}{' '}
        {preview.refused}
      </p>
      <ul class="plain small">
        {preview.placed.map((one, index) => (
          <li key={`${index} ${one.host_id}`}>
            {one.image} on <b>{one.host_id}</b>: {one.why}
          </li>
        ))}
        {Object.entries(preview.hosts ?? {}).map(([host, why]) => (
          <li key={host}>
            <b>{host}</b>: {why}
          </li>
        ))}
      </ul>
    </>
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
