// Pools: machines that come and go with the work of a role.
import { useState } from 'preact/hooks';
import { path } from '../api';
import { deletePool, setPool } from '../deeds/pools';
import { useResource } from '../resource';
import { href } from '../route';
import type { Pool, PoolStep } from '../types';
import { Action } from '../ui/actions';
import { mebibytes, plural, span } from '../ui/format';
import { Ago, Badge, Empty, Facts, Heading, Loading, Meter, Panel, Trouble } from '../ui/parts';

const CONTEXTS = ['town', 'fleet', 'runs'] as const;

export function Pools() {
  const pools = useResource<{ pools: Pool[] }>('/v1/pools', { contexts: CONTEXTS });
  return (
    <>
      <Heading title="Pools">
        <button type="button" class="main" onClick={() => setPool()}>
          Make a pool
        </button>
      </Heading>
      {!pools.data && (pools.error ? <Trouble error={pools.error} what="Pools" /> : <Loading />)}
      {pools.data?.pools.length === 0 && (
        <Empty title="No pool yet">
          <p>A pool keeps as many workers of a role as its work asks for, each in a machine of its own, down to none.</p>
          <button type="button" class="main" onClick={() => setPool()}>
            Make a pool
          </button>
        </Empty>
      )}
      {pools.data?.pools.map((pool) => (
        <PoolPanel key={pool.role} pool={pool} />
      ))}
    </>
  );
}

function PoolPanel({ pool }: { pool: Pool }) {
  const [all, setAll] = useState(false);
  const step = pool.last_step;
  return (
    <Panel
      title={
        <>
          {pool.role} <Badge state={pool.state} />
        </>
      }
      actions={
        <>
          <span class="action small">
            <button type="button" onClick={() => setPool(pool)}>
              Change
            </button>
          </span>
          <Action deed={deletePool(pool)} small />
        </>
      }
    >
      <div class="meters">
        <Meter label="Workers" used={pool.workers} total={pool.max} told={`${pool.workers} of ${pool.min} to ${pool.max}`} calm />
      </div>
      <Facts
        of={[
          ['Wanted', pool.desired],
          ['Warm', pool.warm],
          ['Engine', pool.engine],
          ['Image', pool.image],
          ['Agent CLI', pool.command.join(' ') || 'the town’s'],
          ['Size', `${pool.cpu} CPU, ${mebibytes(pool.memory_mib)}, ${mebibytes(pool.disk_mib)} disk`],
          ['Idle before one goes', span(pool.quiet_s)],
        ]}
      />
      {step && (
        <p class="small">
          <StepTold step={step} />
        </p>
      )}
      {pool.held && <p class="small">{pool.held}</p>}
      {pool.trouble && (
        <p class="trouble">
          {plural(pool.trouble.count, 'boot')} came to nothing: {pool.trouble.reason}
        </p>
      )}
      <ul class="plain">
        {pool.machines.map((machine) => (
          <li key={machine.env_id} class="line wrap">
            <Badge state={machine.use} />
            <a class="mono" href={href('machines', machine.vm_id)}>
              {machine.vm_id}
            </a>
            {machine.agent && <span>{machine.agent}</span>}
            <span class="dim small">{machine.reason}</span>
            <span class="grow" />
            <span class="dim small">
              <Ago at={machine.since} />
            </span>
          </li>
        ))}
      </ul>
      <details class="rare" onToggle={(event) => setAll(event.currentTarget.open)}>
        <summary>Every step, and why</summary>
        {all && <Steps role={pool.role} />}
      </details>
    </Panel>
  );
}

function StepTold({ step }: { step: PoolStep }) {
  return (
    <>
      <Ago at={step.at} />: from {step.from} to {plural(step.to, 'worker')}, {step.reason}
    </>
  );
}

function Steps({ role }: { role: string }) {
  const pool = useResource<{ steps: PoolStep[] }>(path`/v1/pools/${role}`, { contexts: CONTEXTS });
  if (!pool.data) return pool.error ? <Trouble error={pool.error} what="Steps" /> : <Loading />;
  return (
    <ol class="plain small" aria-label={`Steps of ${role}, the newest first`}>
      {pool.data.steps.map((step) => (
        <li key={step.at + step.reason}>
          <StepTold step={step} />
        </li>
      ))}
    </ol>
  );
}
