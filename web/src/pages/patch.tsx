// What a run changed, as a patch.
import { useLayoutEffect, useState } from 'preact/hooks';
import { Refusal, send } from '../api';
import { Trouble } from '../ui/parts';
import { useAwait } from '../whole';

const MOST_LINES = 3000;

const kindOf = (line: string): string =>
  line.startsWith('@@')
    ? 'hunk'
    : /^(?:\+\+\+|---|diff |index )/.test(line)
      ? 'file'
      : line.startsWith('+')
        ? 'added'
        : line.startsWith('-')
          ? 'removed'
          : '';

export default function Patch({ at }: { at: string }) {
  const [text, setText] = useState<string | null>(null);
  const [error, setError] = useState<Refusal | null>(null);
  const wait = useAwait();
  useLayoutEffect(() => {
    wait(
      send('GET', at)
        .then((answer) => answer.text())
        .then(setText, (problem: unknown) => problem instanceof Refusal && setError(problem)),
    );
  }, [at]);
  if (error) return <Trouble error={error} what="Patches" />;
  if (text === null) return <p class="dim">Loading …</p>;
  const lines = text.split('\n');
  return (
    <>
      <pre class="patch" tabIndex={0} role="region" aria-label="The patch">
        {lines.slice(0, MOST_LINES).map((line, index) => (
          <span key={index} class={kindOf(line)}>
            {`${line}\n`}
          </span>
        ))}
      </pre>
      {lines.length > MOST_LINES && (
        <p class="dim small">{lines.length - MOST_LINES} more lines: borough patch shows all.</p>
      )}
    </>
  );
}
