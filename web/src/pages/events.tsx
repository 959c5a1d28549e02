// What happens, as it happens, of everything.
import { useState } from 'preact/hooks';
import { connection, type LiveEvent, missed, recent } from '../live';
import { ask, place } from '../route';
import { close, Dialog, show } from '../ui/dialog';
import { words } from '../ui/format';
import { type Column, List } from '../ui/list';
import { Clock, Code, Empty, Heading, Tabs } from '../ui/parts';
import { Subject } from './shared';

export function Events() {
  const [held, setHeld] = useState<LiveEvent[] | null>(null);
  const context = place.value.query.get('context') ?? '';
  const wanted = place.value.query.get('q')?.toLowerCase() ?? '';
  const all = held ?? recent.value;
  const rows = all.filter(
    (event) =>
      (!context || event.context === context) &&
      (!wanted || `${event.kind} ${event.told}`.toLowerCase().includes(wanted)),
  );
  const columns: Column<LiveEvent>[] = [
    { title: 'When', width: '5rem', cell: (event) => <Clock at={event.at} /> },
    {
      title: 'Of',
      width: '6.5rem',
      wide: true,
      cell: (event) => <span class={`context ${event.context}`}>{event.context}</span>,
    },
    {
      title: 'What',
      width: '3fr',
      main: true,
      cell: (event) => (
        <span class="cut">
          <b>{words(event.kind)}</b> {event.told === event.kind ? '' : event.told}
        </span>
      ),
    },
    {
      title: 'Concerns',
      width: '1.5fr',
      wide: true,
      cell: (event) => (
        <span class="cut small">
          {Object.entries(event.subjects)
            .slice(0, 3)
            .map(([kind, id]) => (
              <span key={kind}>
                <span class="dim">{kind}</span> <Subject kind={kind} id={id} />{' '}
              </span>
            ))}
        </span>
      ),
    },
  ];
  return (
    <div class="page-list">
      <Heading title="Live events">
        <button type="button" aria-pressed={held !== null} onClick={() => setHeld(held ? null : recent.value)}>
          {held ? `Go on (${recent.value.length - held.length} new)` : 'Hold'}
        </button>
      </Heading>
      <div class="filters">
        <Tabs
          label="Of which part"
          tabs={[
            ['', 'All'],
            ['town', 'Town'],
            ['runs', 'Runs'],
            ['governance', 'Governance'],
            ['fleet', 'Fleet'],
          ]}
          chosen={context}
          onChoose={(chosen) => ask({ context: chosen || null })}
        />
        <input
          type="search"
          aria-label="Only events with these words"
          placeholder="Filter"
          value={wanted}
          onInput={(event) => ask({ q: event.currentTarget.value || null })}
        />
        {missed.value > 0 && <span class="dim small">Some events were missed while the connection was broken.</span>}
      </div>
      <List
        label="Events, the newest last"
        rows={rows}
        columns={columns}
        keyOf={(event) => `${event.context} ${event.id}`}
        onOpen={(event) => show(() => <OneEvent event={event} />)}
        below={(event) => event.context}
        follow={held === null}
        empty={
          <Empty title={connection.value === 'live' ? 'Nothing has happened yet' : 'Connecting'}>
            Everything that happens in town, fleet and governance appears here at once.
          </Empty>
        }
      />
    </div>
  );
}

function OneEvent({ event }: { event: LiveEvent }) {
  return (
    <Dialog title={words(event.kind)} wide>
      <Code label="the event">{JSON.stringify(event.raw, null, 2)}</Code>
      <footer>
        <button type="button" class="main" onClick={close}>
          Close
        </button>
      </footer>
    </Dialog>
  );
}
