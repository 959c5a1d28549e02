// The ledger: whether it is whole, what is in it, and one entry with its proof.
import { asCurl, path, query } from '../api';
import { usePaged } from '../paged';
import { useResource } from '../resource';
import { ask, href, place } from '../route';
import type { Entry, Verified } from '../types';
import { count, words } from '../ui/format';
import { type Column, List } from '../ui/list';
import { Ago, Badge, Clock, Code, Empty, Facts, Heading, Id, Loading, Panel, Trouble } from '../ui/parts';
import { GOVERNANCE, useNames } from './shared';

const ACTIONS = [
  'ToolInvoke',
  'AccessDenied',
  'ApprovalRequested',
  'HumanApproval',
  'AgentSpawn',
  'AgentTerminate',
  'CapabilityGrant',
  'BudgetExceeded',
  'NetworkAccess',
  'AuthFailure',
  'AnomalyDetected',
];
const OUTCOMES = ['success', 'denied', 'failure', 'pending', 'timeout', 'unknown'];

export function Ledger() {
  const asked = place.value.query;
  const action = asked.get('action') ?? '';
  const outcome = asked.get('outcome') ?? '';
  const agent = asked.get('agent') ?? '';
  const entries = usePaged<Entry>({
    at: query('/audit', { order: 'newest', action, outcome, agent }),
    keyOf: (entry) => String(entry.seq),
    ...GOVERNANCE,
  });
  const name = useNames();
  const columns: Column<Entry>[] = [
    { title: 'Nr', width: '4.5rem', align: 'end', cell: (entry) => <span class="mono">{entry.seq}</span> },
    { title: 'When', width: '5rem', wide: true, cell: (entry) => <Clock at={entry.timestamp} /> },
    {
      title: 'What',
      width: '3fr',
      main: true,
      cell: (entry) => (
        <span class="cut">
          <b>{words(entry.action)}</b> {entry.detail}
        </span>
      ),
    },
    {
      title: 'Outcome',
      width: '6.5rem',
      cell: (entry) => (
        <Badge
          state={entry.kind === 'intent' ? 'asking' : entry.outcome}
          label={entry.kind === 'intent' ? 'intent' : entry.outcome}
        />
      ),
    },
    { title: 'By', width: '1fr', wide: true, cell: (entry) => <span class="cut">{entry.agent_name}</span> },
    {
      title: 'Rule',
      width: '1fr',
      wide: true,
      cell: (entry) => <span class="cut dim">{entry.decision_rule ?? ''}</span>,
    },
  ];
  const rows = entries.items?.sort((one, other) => other.seq - one.seq);
  return (
    <div class="page-list">
      <Heading title="Ledger">
        <a class="button" href={href('ledger', 'export')}>
          How to verify it elsewhere
        </a>
      </Heading>
      <State />
      <div class="filters">
        <Choice label="Action" value={action} choices={ACTIONS} onChange={(value) => ask({ action: value || null })} />
        <Choice
          label="Outcome"
          value={outcome}
          choices={OUTCOMES}
          onChange={(value) => ask({ outcome: value || null })}
        />
        {agent && (
          <span class="chip">
            agent {name(agent)}{' '}
            <button type="button" class="quiet" aria-label="Of all agents" onClick={() => ask({ agent: null })}>
              ✕
            </button>
          </span>
        )}
      </div>
      {entries.error && !rows && <Trouble error={entries.error} what="The ledger’s entries" />}
      {!rows && !entries.error && <Loading />}
      {rows && (
        <List
          label="Entries of the ledger, the newest first"
          rows={rows}
          columns={columns}
          keyOf={(entry) => String(entry.seq)}
          link={(entry) => href('ledger', String(entry.seq))}
          below={(entry) => (
            <>
              {entry.agent_name} · <Ago at={entry.timestamp} />
            </>
          )}
          more={entries.more}
          empty={<Empty title="No entry fits">Choose another action or outcome.</Empty>}
        />
      )}
      <p class="dim small below">
        {rows && `${count(rows.length)} read${entries.more ? '; older ones as you scroll' : ', all that fit'}`}
      </p>
    </div>
  );
}

export function Choice({
  label,
  value,
  choices,
  onChange,
}: {
  label: string;
  value: string;
  choices: string[];
  onChange: (value: string) => void;
}) {
  return (
    <label class="choice">
      <span>{label}</span>
      <select value={value} onChange={(event) => onChange(event.currentTarget.value)}>
        <option value="">All</option>
        {choices.map((one) => (
          <option key={one} value={one}>
            {words(one)}
          </option>
        ))}
      </select>
    </label>
  );
}

function State() {
  const verified = useResource<Verified>('/audit/verify', { every: 30_000 });
  const found = verified.data;
  if (!found) return verified.error ? <Trouble error={verified.error} what="Verification" /> : null;
  return (
    <p class={found.ok ? 'verified' : 'verified broken'} role="status">
      <Badge state={found.ok ? 'ok' : 'broken'} label={found.ok ? 'whole' : 'broken'} />
      {found.ok ? (
        <span>
          {count(found.entries)} entries, each chained to the one before; checked just now by this server. Head{' '}
          <code>{found.head.slice(0, 16)}</code>
        </span>
      ) : (
        <span>
          Entry {found.first_bad} is not what was written: {found.reason}
        </span>
      )}
    </p>
  );
}

export function OneEntry({ seq }: { seq: string }) {
  const found = useResource<Entry>(path`/audit/entries/${seq}`, { every: 0 });
  const proof = useResource<{
    leaf_index: number;
    tree_size: number;
    leaf: string;
    hashes: string[];
    checkpoint: string;
  }>(path`/audit/proof?seq=${seq}`, { every: 0 });
  const name = useNames();
  const entry = found.data;
  if (!entry) return found.error ? <Trouble error={found.error} what="The ledger’s entries" /> : <Loading />;
  return (
    <>
      <Heading title={`${words(entry.action)} · entry ${seq}`} back={[href('ledger'), 'Ledger']} />
      <div class="columns">
        <div class="main-column">
          <Panel title="What is recorded">
            <Code label="the entry">{JSON.stringify(entry, null, 2)}</Code>
          </Panel>
        </div>
        <div class="side-column">
          <Panel title="Facts">
            <Facts
              of={[
                ['Outcome', <Badge key="outcome" state={entry.outcome} />],
                ['Kind', entry.kind],
                ['When', <Ago key="when" at={entry.timestamp} />],
                ['By', entry.agent_name],
                [
                  'For',
                  entry.on_behalf_of ? (
                    <a href={href('agents', 'any', entry.on_behalf_of)}>{name(entry.on_behalf_of)}</a>
                  ) : (
                    ''
                  ),
                ],
                ['Rule', entry.decision_rule ?? ''],
                ['Via', entry.via],
                ['Hash', <Id key="hash" value={entry.hash.slice(0, 16)} />],
              ]}
            />
          </Panel>
          <Panel title="Proof that it is there">
            {proof.data ? (
              <Facts
                of={[
                  ['Leaf', `${proof.data.leaf_index} of ${proof.data.tree_size}`],
                  ['Hashes', proof.data.hashes.length],
                  [
                    'Checkpoint',
                    <Code key="checkpoint" label="the checkpoint">
                      {proof.data.checkpoint}
                    </Code>,
                  ],
                ]}
              />
            ) : (
              <Empty title={proof.error?.message ?? 'Reading it'} />
            )}
          </Panel>
        </div>
      </div>
    </>
  );
}

export function LedgerElsewhere() {
  const key = useResource<string>('/audit/key', { every: 0 });
  return (
    <>
      <Heading title="Verify the ledger elsewhere" back={[href('ledger'), 'Ledger']} />
      <Panel title="On any machine, without this server">
        <p>
          An export proves itself: every entry is chained to the one before, and a signed checkpoint seals them all.
          Whoever has the public key can check it.
        </p>
        <Code label="the commands">{`${asCurl({ method: 'GET', path: '/audit/export' })} -o ledger.borough\nborough verify ledger.borough`}</Code>
      </Panel>
      {key.data !== undefined && (
        <Panel title="The public key">
          <Code label="the key">{key.data}</Code>
        </Panel>
      )}
    </>
  );
}
