// Pools of workers: made, changed, given up.
import { type Order, path, quoted } from '../api';
import type { Pool } from '../types';
import type { Deed } from '../ui/actions';
import { show } from '../ui/dialog';
import { type Field, FormDialog, numbered, type Values } from '../ui/forms';
import { told } from './orders';

type Amount = 'min' | 'max' | 'warm' | 'cpu' | 'memory_mib' | 'disk_mib' | 'quiet_s';

export function setPool(pool?: Pool): void {
  const number = (name: Amount, label: string, usual: number): Field => ({
    name,
    label,
    kind: 'number',
    half: true,
    min: 0,
    value: String(pool?.[name] ?? usual),
  });
  const fields: Field[] = [
    { name: 'role', label: 'Role', required: true, half: true, value: pool?.role ?? '', hint: 'Whose work it follows.' },
    {
      name: 'command',
      label: 'Agent CLI',
      half: true,
      value: pool?.command.join(' ') ?? '',
      hint: 'Words, cut at blanks. Empty: the town’s default.',
    },
    { name: 'image', label: 'Image', half: true, value: pool?.image ?? 'host' },
    { name: 'engine', label: 'Engine', half: true, value: pool?.engine ?? 'bubblewrap' },
    number('min', 'Workers, at least', 0),
    number('max', 'Workers, at most', 4),
    number('warm', 'Ready machines beyond them', 0),
    number('cpu', 'Processors of each', 1),
    number('memory_mib', 'Memory of each, MiB', 512),
    number('disk_mib', 'Disk of each, MiB', 2048),
    number('quiet_s', 'Seconds idle before one goes', 60),
    { name: 'manifest', label: 'Manifest', kind: 'area', rare: true, value: pool?.manifest ?? '', hint: 'What bounds its machines, in YAML.' },
  ];
  show(() => (
    <FormDialog title={pool ? `Change the pool ${pool.role}` : 'Make a pool'} fields={fields} submit="Set" done="The pool is set" make={poolOrder} />
  ));
}

function poolOrder(values: Values): Order {
  const command = (values.command ?? '').split(/\s+/).filter(Boolean);
  const cli = ['borough pool set', quoted(values.role ?? '')];
  for (const [option, name] of Object.entries({ min: 'min', max: 'max', warm: 'warm', cpu: 'cpu', memory: 'memory_mib', disk: 'disk_mib', quiet: 'quiet_s', image: 'image', engine: 'engine' })) {
    const value = values[name];
    if (value) cli.push(`--${option}`, quoted(value));
  }
  if (values.manifest) cli.push('--manifest', 'MANIFEST.yaml');
  if (command.length) cli.push('--', ...command.map(quoted));
  return {
    method: 'PUT',
    path: path`/v1/pools/${values.role ?? ''}`,
    body: told({
      image: values.image,
      engine: values.engine,
      manifest: values.manifest,
      command,
      min: numbered(values.min),
      max: numbered(values.max),
      warm: numbered(values.warm),
      cpu: numbered(values.cpu),
      memory_mib: numbered(values.memory_mib),
      disk_mib: numbered(values.disk_mib),
      quiet_s: numbered(values.quiet_s),
    }),
    cli: cli.join(' '),
  };
}

export const deletePool = (pool: Pool): Deed => ({
  label: 'Delete',
  tone: 'danger',
  done: `The pool ${pool.role} is given up`,
  confirm: `Workers of ${pool.role} finish what they have; then their machines go.`,
  method: 'DELETE',
  path: path`/v1/pools/${pool.role}`,
  cli: `borough pool delete ${quoted(pool.role)}`,
});
