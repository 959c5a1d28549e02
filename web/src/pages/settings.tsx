// How the server stands, who is signed in, how the page looks, which keys it knows.
import { perform } from '../api';
import { connection } from '../live';
import { useResource } from '../resource';
import { credential, forget, isSession } from '../session';
import { choose, type Theme, theme } from '../theme';
import { download } from '../ui/download';
import { span } from '../ui/format';
import { KeyTable } from '../ui/keytable';
import { Ago, Badge, Facts, Heading, Panel, Tabs } from '../ui/parts';

interface Health {
  status: string;
  version?: string;
  uptime_secs: number;
}

interface Ready {
  status: string;
  redis?: string;
  redis_latency_ms?: number;
  durability?: string;
  fleet?: string;
}

export async function signOut(): Promise<void> {
  if (isSession(credential.value)) {
    await perform({ method: 'DELETE', path: '/v1/sessions/current' }).catch(() => undefined);
  }
  forget('You have signed out.');
}

export function Settings() {
  const health = useResource<Health>('/health').data;
  const ready = useResource<Ready>('/ready').data;
  const town = useResource<{ name: string; root: string }>('/v1/town').data;
  const session = useResource<{ kind: string; expires_at: string | null }>('/v1/sessions/current', {
    every: 60_000,
  }).data;
  return (
    <>
      <Heading title="Settings" />
      <div class="halves">
        <Panel title="Server">
          <Facts
            of={[
              ['Town', town?.name],
              ['Folder', town && <code>{town.root}</code>],
              ['Version', health?.version],
              ['Up', health && span(health.uptime_secs)],
              ['Store', ready?.redis && `${ready.redis}, ${ready.redis_latency_ms} ms`],
              ['Durability', ready?.durability],
              ['Fleet', ready?.fleet],
              ['Live events', <Badge key="live" state={connection.value} />],
            ]}
          />
        </Panel>
        <Panel title="You">
          <Facts
            of={[
              ['Signed in as', session ? 'the operator' : 'the holder of a key'],
              ['By', session?.kind === 'session' ? 'a session of this browser tab' : 'a credential that was typed in'],
              ['Until', session?.expires_at ? <Ago key="until" at={session.expires_at} /> : ''],
            ]}
          />
          <p class="dim small">The credential is kept in this tab only, and gone when the tab is closed.</p>
          <button type="button" onClick={() => void signOut()}>
            Sign out
          </button>
        </Panel>
        <Panel title="Appearance">
          <Tabs
            label="Appearance"
            tabs={[
              ['system', 'As the system'],
              ['light', 'Light'],
              ['dark', 'Dark'],
            ]}
            chosen={theme.value}
            onChoose={(name) => choose(name as Theme)}
          />
        </Panel>
        <Panel title="For programs">
          <ul class="plain links">
            <li>
              <a href="/docs">The API of the town</a>
            </li>
            <li>
              <a href="/governance/docs">The API of governance</a>
            </li>
            <li>
              <a href="/metrics">Metrics for Prometheus</a>
            </li>
            <li>
              <button type="button" class="quiet" onClick={() => void download('/audit/export', 'ledger.borough')}>
                Download the whole ledger
              </button>
            </li>
          </ul>
        </Panel>
        <Panel title="Keys">
          <KeyTable />
        </Panel>
      </div>
    </>
  );
}
