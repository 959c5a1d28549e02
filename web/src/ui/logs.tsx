// What a machine, an agent or a task printed, live: as text, whatever is in it.
import { useEffect, useLayoutEffect, useRef, useState } from 'preact/hooks';
import { Refusal, send } from '../api';
import { frames } from '../live';
import { Trouble } from './parts';

const MOST_LETTERS = 400_000;
// Colours and cursor movements of terminals.
const ESCAPES = /\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\-_])/g;

interface LogProps {
  at: string;
  label: string;
  /** How the stream is read: as events with the member `text`, or as bytes that go on. */
  kind: 'events' | 'text';
  empty: string;
}

export function Log({ at, label, kind, empty }: LogProps) {
  const [text, setText] = useState('');
  const [error, setError] = useState<Refusal | null>(null);
  const [live, setLive] = useState(false);
  const box = useRef<HTMLPreElement>(null);
  const atEnd = useRef(true);

  useEffect(() => {
    const ended = new AbortController();
    let came = '';
    let frame = 0;
    const add = (part: string): void => {
      came += part;
      frame ||= requestAnimationFrame(() => {
        frame = 0;
        const all = came;
        came = '';
        setText((before) => (before + all.replace(ESCAPES, '').replaceAll('\r\n', '\n')).slice(-MOST_LETTERS));
      });
    };
    const follow = async (): Promise<void> => {
      const told: Record<string, string> = kind === 'events' ? { Accept: 'text/event-stream' } : {};
      const answer = await send('GET', at, { headers: told, signal: ended.signal });
      setLive(true);
      if (kind === 'events' && answer.headers.get('content-type')?.startsWith('text/event-stream')) {
        for await (const one of frames(answer)) add(partOf(one.data));
      } else if (answer.body) {
        const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
        for (;;) {
          const { done, value } = await reader.read();
          if (done) break;
          add(value);
        }
      }
    };
    setText('');
    setError(null);
    follow()
      .catch((problem: unknown) => {
        if (!ended.signal.aborted && problem instanceof Refusal) setError(problem);
      })
      .finally(() => setLive(false));
    return () => {
      ended.abort();
      cancelAnimationFrame(frame);
    };
  }, [at, kind]);

  useLayoutEffect(() => {
    if (atEnd.current && box.current) box.current.scrollTop = box.current.scrollHeight;
  }, [text]);

  if (error) return <Trouble error={error} what="Logs" />;
  return (
    <div class="log">
      {live && <span class="log-live">live</span>}
      <pre
        ref={box}
        tabIndex={0}
        role="region"
        aria-label={label}
        onScroll={(event) => {
          const { scrollTop, clientHeight, scrollHeight } = event.currentTarget;
          atEnd.current = scrollTop + clientHeight > scrollHeight - 24;
        }}
      >
        {text || <span class="dim">{empty}</span>}
      </pre>
    </div>
  );
}

function partOf(data: string): string {
  try {
    const part = JSON.parse(data) as { text?: string; data?: string };
    return part.text ?? part.data ?? '';
  } catch {
    return `${data}\n`;
  }
}
