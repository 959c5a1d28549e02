// The page: the way around, and whichever view the address names.
import type { ComponentChildren } from 'preact';
import { useEffect, useRef, useState } from 'preact/hooks';
import { assignTask } from './deeds/tasks';
import { observe } from './figures';
import { listen } from './keys';
import { type Connection, connection, openStream } from './live';
import { Agents, AnyAgent, OneGoverned, OneWorker } from './pages/agents';
import { Approvals } from './pages/approvals';
import { Events } from './pages/events';
import { Environments, Hosts, OneEnvironment, OneMachine } from './pages/fleet';
import { Ledger, LedgerElsewhere, OneEntry } from './pages/ledger';
import { Overview } from './pages/overview';
import { Pools } from './pages/pools';
import { OneRun, Runs } from './pages/runs';
import { Settings } from './pages/settings';
import { GOVERNANCE } from './pages/shared';
import { OneTask, Tasks } from './pages/tasks';
import { openPalette } from './palette';
import { forgetAll, useResource } from './resource';
import { place } from './route';
import { credential } from './session';
import { SignIn } from './signin';
import { turn } from './theme';
import type { Approval } from './types';
import { close, Dialog, Dialogs, open, show } from './ui/dialog';
import { KeyTable } from './ui/keytable';
import { Empty } from './ui/parts';
import { Toasts } from './ui/toasts';
import { Whole } from './whole';

const WAYS: [string, [string, string][]][] = [
  [
    '',
    [
      ['', 'Overview'],
      ['runs', 'Runs'],
      ['tasks', 'Tasks'],
      ['agents', 'Agents'],
    ],
  ],
  [
    'Fleet',
    [
      ['environments', 'Environments'],
      ['hosts', 'Hosts'],
      ['pools', 'Pools'],
    ],
  ],
  [
    'Governance',
    [
      ['approvals', 'Approvals'],
      ['ledger', 'Ledger'],
    ],
  ],
  [
    'Server',
    [
      ['events', 'Live events'],
      ['settings', 'Settings'],
    ],
  ],
];

function view(parts: string[]): ComponentChildren {
  const [where = '', first, second] = parts;
  switch (where) {
    case '':
      return <Overview />;
    case 'runs':
      return first ? <OneRun id={first} key={first} /> : <Runs />;
    case 'tasks':
      return first ? <OneTask id={first} key={first} /> : <Tasks />;
    case 'agents':
      if (first === 'governed' && second) return <OneGoverned id={second} key={second} />;
      if (first === 'workers' && second) return <OneWorker id={second} key={second} />;
      return first === 'any' && second ? <AnyAgent id={second} key={second} /> : <Agents />;
    case 'environments':
      return first ? <OneEnvironment id={first} key={first} /> : <Environments />;
    case 'machines':
      return first ? <OneMachine id={first} key={first} /> : <Environments />;
    case 'hosts':
      return <Hosts />;
    case 'pools':
      return <Pools />;
    case 'approvals':
      return <Approvals />;
    case 'ledger':
      if (first === 'export') return <LedgerElsewhere />;
      return first ? <OneEntry seq={first} key={first} /> : <Ledger />;
    case 'events':
      return <Events />;
    case 'settings':
      return <Settings />;
    default:
      return <Empty title="There is no such page">The menu leads to all there are.</Empty>;
  }
}

export function App() {
  if (!credential.value) return <SignIn />;
  return <Inside />;
}

function Inside() {
  const [menu, setMenu] = useState(false);
  const main = useRef<HTMLElement>(null);
  const { parts } = place.value;
  const where = parts.join('/');
  useEffect(() => {
    const ends = [
      openStream(),
      observe(),
      listen({
        palette: () => (open.peek() ? close() : openPalette()),
        help: () => show(() => <Help />),
        assign: () => assignTask(),
      }),
    ];
    return () => {
      for (const end of ends) end();
      forgetAll();
      close();
    };
  }, []);
  // With each other place.
  useEffect(() => {
    setMenu(false);
    main.current?.scrollTo(0, 0);
    if (!main.current?.querySelector('h1')) document.title = 'Borough';
    // What led here may be gone; then the keyboard goes on in the page, not before everything.
    if (document.activeElement === document.body) main.current?.focus();
  }, [where]);
  return (
    <div class="shell">
      <button type="button" class="skip" onClick={() => main.current?.focus()}>
        Skip to the page
      </button>
      <header class="top">
        <button
          type="button"
          class="menu-button"
          aria-expanded={menu}
          aria-controls="ways"
          aria-label="Menu"
          onClick={() => setMenu(!menu)}
        >
          ☰
        </button>
        <a class="brand" href="#/">
          Borough
        </a>
        <span class="grow" />
        <Connected />
        <button type="button" class="search" onClick={openPalette}>
          Find <kbd>Ctrl K</kbd>
        </button>
        <button type="button" class="quiet" aria-label="Light or dark" title="Light or dark" onClick={turn}>
          ◐
        </button>
      </header>
      <nav id="ways" class={menu ? 'ways open' : 'ways'} aria-label="Pages">
        {WAYS.map(([title, ways]) => (
          <div key={title}>
            {title && <p>{title}</p>}
            <ul>
              {ways.map(([to, name]) => (
                <li key={to}>
                  <a
                    href={`#/${to}`}
                    aria-current={
                      (parts[0] ?? '') === to || (to === 'environments' && parts[0] === 'machines') ? 'page' : undefined
                    }
                    onClick={() => setMenu(false)}
                  >
                    {name}
                    {to === 'approvals' && <Waiting />}
                  </a>
                </li>
              ))}
            </ul>
          </div>
        ))}
      </nav>
      <main id="main" ref={main} tabIndex={-1}>
        <Whole key={where}>{view(parts)}</Whole>
      </main>
      <Toasts />
      <Dialogs />
    </div>
  );
}

function Waiting() {
  const waiting = useResource<Approval[]>('/approvals', { ...GOVERNANCE, every: 3000 }).data?.length ?? 0;
  return waiting ? (
    <span class="count">
      {waiting}
      <span class="hidden"> waiting</span>
    </span>
  ) : null;
}

const TOLD: Record<Connection, [string, string]> = {
  live: ['good', 'Live'],
  connecting: ['wait', 'Connecting'],
  broken: ['bad', 'Connecting again'],
};

function Connected() {
  const [tone, told] = TOLD[connection.value];
  return (
    <span class={`connected ${tone}`} role="status">
      <i />
      <span>{told}</span>
    </span>
  );
}

function Help() {
  return (
    <Dialog title="Keys">
      <KeyTable />
    </Dialog>
  );
}
