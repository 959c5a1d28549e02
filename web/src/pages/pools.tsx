// Pools: machines that come and go with the work of a role.
import { deletePool, setPool } from '../deeds/pools';
import { useResource } from '../resource';
import { href } from '../route';
import type { Pool } from '../types';
import { Action } from '../ui/actions';
import { mebibytes, plural } from '../ui/format';
import { Ago, Badge, Empty, Facts, Heading, Loading, Meter, Panel, Trouble } from '../ui/parts';

export function Pools() {
  const pools = useResource<{ pools: Pool[] }>('/v1/pools', { contexts: ['town', 'fleet', 'runs'] });
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
          <button type="button" onClick={() => setPool(pool)}>
            Change
          </button>
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
          ['Size', `${pool.cpu} CPU, ${mebibytes(pool.memory_mib)}`],
        ]}
      />
      {step && (
        <p class="small">
          <Ago at={step.at} />: from {step.from} to {plural(step.to, 'worker')}, {step.reason}
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
    </Panel>
  );
}
