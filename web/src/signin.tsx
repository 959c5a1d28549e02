// Signing in: by the address that was printed, or by a credential that is typed in.
import { useEffect, useState } from 'preact/hooks';
import { perform, Refusal } from './api';
import { keep, offered, signedOutBecause } from './session';

/** Whether a credential opens anything that nobody else can open. */
async function opens(secret: string): Promise<boolean> {
  const asked = async (at: string, told: Record<string, string>): Promise<number> =>
    (await fetch(at, { headers: told })).status;
  const shown = { Authorization: `Bearer ${secret}` };
  for (const at of ['/v1/sessions/current', '/status', '/v1/town']) {
    if ((await asked(at, shown)) !== 200) continue;
    if ((await asked(at, {})) !== 200) return true;
  }
  return false;
}

export function SignIn() {
  const [secret, setSecret] = useState('');
  const [trouble, setTrouble] = useState<string | null>(null);
  const code = offered.value;
  const [busy, setBusy] = useState(code !== null);
  useEffect(() => {
    if (code === null) return;
    offered.value = null;
    setBusy(true);
    perform<{ token: string }>({ method: 'POST', path: '/v1/sessions', body: { code } })
      .then((session) => keep(session.token))
      .catch((error: unknown) =>
        setTrouble(
          error instanceof Refusal ? [error.message, error.resolution].filter(Boolean).join('; ') : String(error),
        ),
      )
      .finally(() => setBusy(false));
  }, [code]);
  const told = trouble ?? signedOutBecause.value;
  return (
    <main class="signin">
      <div class="signin-card">
        <h1>Borough</h1>
        <p class="dim">Runs, houses and governs fleets of AI agents on your own machines.</p>
        {told && (
          <p class="trouble" role="alert">
            {told}
          </p>
        )}
        {busy ? (
          <p role="status">Signing you in …</p>
        ) : (
          <>
            <ol>
              <li>
                In the town’s folder, run <code>borough open</code>
              </li>
              <li>Open the address that it prints. It signs you in, once.</li>
            </ol>
            <form
              onSubmit={async (event) => {
                event.preventDefault();
                setBusy(true);
                setTrouble(null);
                const given = secret.trim();
                try {
                  if (await opens(given)) keep(given);
                  else setTrouble('This credential opens nothing here.');
                } catch {
                  setTrouble('The server does not answer.');
                }
                setBusy(false);
              }}
            >
              <label htmlFor="secret">Or a credential: the operator’s, or a key</label>
              <div class="row">
                <input
                  id="secret"
                  type="password"
                  required
                  autocomplete="current-password"
                  value={secret}
                  onInput={(event) => setSecret(event.currentTarget.value)}
                />
                <button type="submit" class="main">
                  Sign in
                </button>
              </div>
            </form>
          </>
        )}
      </div>
    </main>
  );
}
