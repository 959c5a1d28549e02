// Environments, machines, hosts, images.
import { useState } from 'preact/hooks';
import { path } from '../api';
import { addHost, createEnvironment, environmentDeeds, hostDeeds, machineDeeds } from '../deeds/fleet';
import { usePaged } from '../paged';
import { useResource } from '../resource';
import { href } from '../route';
import type { Environment, Host, Image, Machine } from '../types';
import { Action } from '../ui/actions';
import { bytes, mebibytes, plural } from '../ui/format';
import { type Column, List } from '../ui/list';
import { Log } from '../ui/logs';
import { Ago, Badge, Empty, Facts, Heading, Id, Loading, Meter, Panel, Trouble } from '../ui/parts';
import { lazy } from './lazy';
import { FLEET, Machines, Ports, Why } from './shared';

const Terminal = lazy(() => import('../ui/terminal'));

export function Environments() {
  const envs = usePaged<Environment>({
    at: '/api/envs',
    keyOf: (env) => env.id,
    ...FLEET,
    one: (event) => (event.subjects.env ? path`/api/envs/${event.subjects.env}` : null),
    pick: (body) => (body as { env: Environment }).env,
  });
  return <EnvironmentList envs={envs} />;
}

function EnvironmentList({ envs }: { envs: ReturnType<typeof usePaged<Environment>> }) {
  const columns: Column<Environment>[] = [
    { title: 'Name', width: '2fr', cell: (env) => <span class="cut">{env.id}</span> },
    { title: 'State', width: '7.5rem', cell: (env) => <Badge state={env.state} /> },
    { title: 'Owner', width: '1fr', wide: true, cell: (env) => <span class="cut">{env.owner || '–'}</span> },
    { title: 'Machines', width: '5rem', align: 'end', wide: true, cell: (env) => env.vm_ids.length },
    { title: 'Created', width: '8rem', wide: true, cell: (env) => <Ago at={env.created_at} /> },
    {
      title: 'Ends',
      width: '8rem',
      wide: true,
      cell: (env) => (env.expires_at ? <Ago at={env.expires_at} /> : 'never'),
    },
    {
      title: 'Actions',
      width: '11rem',
      wide: true,
      align: 'end',
      cell: (env) => (
        <div class="row end">
          {environmentDeeds(env).map((deed) => (
            <Action key={deed.label} deed={deed} small />
          ))}
        </div>
      ),
    },
  ];
  return (
    <div class="page-list">
      <Heading title="Environments">
        <button type="button" class="main" onClick={createEnvironment}>
          Create an environment
        </button>
      </Heading>
      {envs.error && !envs.items && <Trouble error={envs.error} what="Environments" />}
      {!envs.items && !envs.error && <Loading />}
      {envs.items && (
        <List
          label="Environments"
          rows={envs.items}
          columns={columns}
          keyOf={(env) => env.id}
          link={(env) => href('environments', env.id)}
          below={(env) => `${env.vm_ids.length} machines${env.owner ? `, ${env.owner}` : ''}`}
          more={envs.more}
          empty={
            <Empty title="No environment yet">
              <p>
                An environment is a group of machines – sandboxes, containers or virtual machines – with an owner and an
                end.
              </p>
              <button type="button" class="main" onClick={createEnvironment}>
                Create an environment
              </button>
            </Empty>
          }
        />
      )}
    </div>
  );
}

export function OneEnvironment({ id }: { id: string }) {
  const detail = useResource<{ env: Environment; vms: Machine[]; warnings?: string[] }>(path`/api/envs/${id}`, FLEET);
  const found = detail.data;
  if (!found) return detail.error ? <Trouble error={detail.error} what="Environments" /> : <Loading />;
  const { env, vms } = found;
  return (
    <>
      <Heading title={env.id} back={[href('environments'), 'Environments']}>
        {environmentDeeds(env).map((deed) => (
          <Action key={deed.label} deed={deed} />
        ))}
      </Heading>
      <Panel title="Facts">
        <Facts
          of={[
            ['State', <Badge key="state" state={env.state} />],
            ['Owner', env.owner],
            ['Created', <Ago key="created" at={env.created_at} />],
            [
              env.on_expiry === 'stop' ? 'Is stopped' : 'Is deleted',
              env.expires_at ? <Ago key="ends" at={env.expires_at} /> : 'never',
            ],
            [
              'Labels',
              Object.entries(env.labels ?? {})
                .map(([name, value]) => `${name}=${value}`)
                .join(', '),
            ],
          ]}
        />
        {found.warnings?.map((warning) => (
          <p class="dim small" key={warning}>
            {warning}
          </p>
        ))}
      </Panel>
      <Panel title={plural(vms.length, 'machine')} flush>
        <Machines vms={vms} empty={<Empty title="It has no machines" />} />
      </Panel>
    </>
  );
}

export function OneMachine({ id }: { id: string }) {
  const machine = useResource<Machine>(path`/api/vms/${id}`, FLEET);
  const found = machine.data;
  if (!found) return machine.error ? <Trouble error={machine.error} what="Machines" /> : <Loading />;
  return (
    <>
      <Heading title={<span class="mono">{found.id}</span>} back={[href('environments', found.env_id), found.env_id]}>
        {machineDeeds(found).map((deed) => (
          <Action key={deed.label} deed={deed} />
        ))}
      </Heading>
      <div class="columns">
        <div class="main-column">
          <Why id={id} />
          <TerminalPanel vm={found} />
          <Panel title="Log">
            <Log
              at={path`/api/vms/${id}/logs?follow=1`}
              kind="text"
              label="What the machine printed"
              empty="It has printed nothing."
            />
          </Panel>
        </div>
        <div class="side-column">
          <Panel title="Facts">
            <Facts
              of={[
                ['State', <Badge key="state" state={found.state} />],
                ['Error', found.error ?? ''],
                ['Image', found.image],
                ['Engine', found.engine],
                ['Size', `${found.cpu} CPU, ${mebibytes(found.mem)}, ${mebibytes(found.disk)} disk`],
                [
                  'Address',
                  <span key="ip" class="mono">
                    {found.ip || '–'}
                  </span>,
                ],
                ['Ports', Object.keys(found.port_map).length ? <Ports key="ports" of={found.port_map} /> : ''],
                [
                  'Environment',
                  <a key="env" href={href('environments', found.env_id)}>
                    {found.env_id}
                  </a>,
                ],
                ['Host', <Id key="host" value={found.host_id} />],
                ['Created', <Ago key="created" at={found.created_at} />],
              ]}
            />
          </Panel>
          {found.state === 'running' && <Usage id={id} mem={found.mem} />}
        </div>
      </div>
    </>
  );
}

export function TerminalPanel({ vm }: { vm: { id: string; state: string; engine: string } }) {
  const [shown, setShown] = useState<'exec' | 'console' | null>(null);
  const command = `tt exec -it ${vm.id} -- sh`;
  return (
    <Panel
      title="Terminal"
      actions={
        shown && (
          <button type="button" onClick={() => setShown(null)}>
            Close
          </button>
        )
      }
    >
      {shown ? (
        <Terminal vm={vm.id} kind={shown} />
      ) : (
        <div class="row wrap">
          <button type="button" disabled={vm.state !== 'running'} onClick={() => setShown('exec')}>
            Open a terminal
          </button>
          {vm.engine === 'qemu' && (
            <button type="button" disabled={vm.state !== 'running'} onClick={() => setShown('console')}>
              Sit down at its console
            </button>
          )}
          <code class="dim small">{command}</code>
        </div>
      )}
    </Panel>
  );
}

interface Stats {
  cpu_seconds?: number;
  memory_bytes?: number;
  disk_bytes?: number;
  processes?: number;
  received_bytes?: number;
  sent_bytes?: number;
}

function Usage({ id, mem }: { id: string; mem: number }) {
  const stats = useResource<Stats>(path`/api/vms/${id}/stats`, { every: 4000, late: true }).data;
  if (!stats) return null;
  const amount = (value: number | undefined): string => (value === undefined ? '' : bytes(value));
  return (
    <Panel title="Use">
      {stats.memory_bytes !== undefined && (
        <Meter
          label="Memory"
          used={stats.memory_bytes}
          total={mem * 1_048_576}
          told={`${bytes(stats.memory_bytes)} of ${mebibytes(mem)}`}
        />
      )}
      <Facts
        of={[
          ['CPU time', stats.cpu_seconds === undefined ? '' : `${stats.cpu_seconds.toFixed(1)} s`],
          ['Processes', stats.processes ?? ''],
          ['Disk', amount(stats.disk_bytes)],
          ['Received', amount(stats.received_bytes)],
          ['Sent', amount(stats.sent_bytes)],
        ]}
      />
    </Panel>
  );
}

export function Hosts() {
  const hosts = useResource<Host[]>('/api/hosts', FLEET);
  const images = useResource<Image[]>('/api/images', FLEET);
  return (
    <>
      <Heading title="Hosts">
        <button type="button" class="main" onClick={addHost}>
          Add a host
        </button>
      </Heading>
      {!hosts.data && (hosts.error ? <Trouble error={hosts.error} what="Hosts" /> : <Loading />)}
      {hosts.data?.length === 0 && (
        <Empty title="No host yet">
          <p>A host is a machine that runs tt-agent. “tt deploy agent” installs it over SSH.</p>
          <button type="button" class="main" onClick={addHost}>
            Add a host
          </button>
        </Empty>
      )}
      {hosts.data?.map((host) => (
        <HostPanel key={host.id} host={host} />
      ))}
      <Panel title="Images" flush>
        <ImageTable images={images.data} />
      </Panel>
    </>
  );
}

function HostPanel({ host }: { host: Host }) {
  const has = host.resource;
  return (
    <Panel
      title={
        <>
          {host.addr} <Badge state={host.state} /> {host.cordoned && <Badge state="cordoned" />}{' '}
          {host.draining && <Badge state="draining" />}
        </>
      }
      actions={hostDeeds(host).map((deed) => <Action key={deed.label} deed={deed} small />)}
    >
      {host.error && <p class="bad-text">{host.error}</p>}
      <div class="meters">
        <Meter
          label="Processors"
          used={has.cpu_used}
          total={has.cpu_total}
          told={`${has.cpu_used} of ${has.cpu_total}`}
        />
        <Meter
          label="Memory"
          used={has.mem_used}
          total={has.mem_total}
          told={`${mebibytes(has.mem_used)} of ${mebibytes(has.mem_total)}`}
        />
        <Meter
          label="Disk"
          used={has.disk_used}
          total={has.disk_total}
          told={`${mebibytes(has.disk_used)} of ${mebibytes(has.disk_total)}`}
        />
      </div>
      <Facts
        of={[
          ['Id', <Id key="id" value={host.id} />],
          ['Machines', has.vm_count],
          ['Engines', host.engines.join(', ')],
          ['Storage', host.storage],
          ['Heard', host.heard_at ? <Ago key="heard" at={host.heard_at} /> : ''],
          [
            'Labels',
            Object.entries(host.labels ?? {})
              .map(([name, value]) => `${name}=${value}`)
              .join(', '),
          ],
        ]}
      />
      {Boolean(host.offers?.length) && (
        <details class="rare">
          <summary>
            What its engines can do{host.warnings?.length ? `, and ${plural(host.warnings.length, 'warning')}` : ''}
          </summary>
          {host.warnings?.map((warning) => (
            <p class="small" key={warning}>
              {warning}
            </p>
          ))}
          {host.offers?.map((offer) => (
            <div key={offer.engine} class="offer">
              <strong>
                {offer.engine} {offer.version}{' '}
                {offer.acceleration && <span class="dim small">{offer.acceleration}</span>}
              </strong>
              <p class="small">{offer.capabilities.join(', ')}</p>
              {Object.entries(offer.reasons).map(([what, why]) => (
                <p class="dim small" key={what}>
                  <b>{what}</b>: {why}
                </p>
              ))}
            </div>
          ))}
        </details>
      )}
    </Panel>
  );
}

function ImageTable({ images }: { images: Image[] | undefined }) {
  if (!images?.length)
    return (
      <Empty title="No image on any host">
        “tt image create” makes one; containers need none: their images are pulled.
      </Empty>
    );
  return (
    <div class="scroll">
      <table>
        <thead>
          <tr>
            <th scope="col">Name</th>
            <th scope="col">Host</th>
            <th scope="col">Digest</th>
          </tr>
        </thead>
        <tbody>
          {images.map((image) => (
            <tr key={image.name + image.host_id}>
              <td data-title="Name">{image.name}</td>
              <td data-title="Host">
                <Id value={image.host_id} />
              </td>
              <td data-title="Digest" class="mono small">
                {image.digest?.slice(0, 19) ?? '–'}
              </td>
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}
