// How the server stands, who is signed in, how the page looks, which keys it knows.
import { perform } from '../api';
import { connection } from '../live';
import { type Shown, useResource } from '../resource';
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

interface Town {
  name: string;
  root: string;
}

interface Session {
  kind: string;
  expires_at: string | null;
}

export async function signOut(): Promise<void> {
  if (isSession(credential.value)) {
    await perform({ method: 'DELETE', path: '/v1/sessions/current' }).catch(() => undefined);
  }
  forget('You have signed out.');
}

export function Settings() {
  return (
    <>
      <Heading title="Settings" />
      <div class="halves">
        <You />
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
        <Server />
        <Panel title="Keys">
          <KeyTable />
        </Panel>
      </div>
    </>
  );
}

function You() {
  const { data, error } = useResource<Session>('/v1/sessions/current', { every: 60_000, late: true });
  const isKey = error?.status === 401 || error?.status === 403;
  return (
    <Panel
      title="You"
      actions={
        <button type="button" onClick={() => void signOut()}>
          Sign out
        </button>
      }
    >
      <Facts
        of={[
          ['Signed in as', data ? 'the operator' : isKey ? 'the holder of a key' : error?.message],
          ['By', isSession(credential.value) ? 'a session of this browser tab' : 'a credential that was typed in'],
          ['Until', data?.expires_at ? <Ago key="until" at={data.expires_at} /> : (data || error) && 'it is withdrawn'],
        ]}
      />
      <p class="dim small">The credential is kept in this tab only, and gone when the tab is closed.</p>
    </Panel>
  );
}

/** A part of a document: without value while the document is not there, empty where it has no such part. */
function of<T, V>({ data, error }: Shown<T>, part: (document: T) => V | undefined): V | '' | undefined {
  if (data) return part(data) ?? '';
  return error && '';
}

function Server() {
  const health = useResource<Health>('/health', { late: true });
  const ready = useResource<Ready>('/ready', { late: true });
  const town = useResource<Town>('/v1/town', { late: true });
  return (
    <Panel title="Server">
      <Facts
        of={[
          ['Town', of(town, (it) => it.name)],
          ['Folder', of(town, (it) => <code>{it.root}</code>)],
          ['Version', of(health, (it) => it.version)],
          ['Up', of(health, (it) => span(it.uptime_secs))],
          ['Store', of(ready, (it) => it.redis && `${it.redis}, ${it.redis_latency_ms} ms`)],
          ['Durability', of(ready, (it) => it.durability)],
          ['Fleet', of(ready, (it) => it.fleet)],
          ['Live events', <Badge key="live" state={connection.value} />],
        ]}
      />
    </Panel>
  );
}
