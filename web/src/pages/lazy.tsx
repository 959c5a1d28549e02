// Parts that are loaded when they are first shown.
import type { ComponentChildren, ComponentType } from 'preact';
import { useLayoutEffect, useState } from 'preact/hooks';
import { useAwait } from '../whole';

export function lazy<P extends object>(
  load: () => Promise<{ default: ComponentType<P> }>,
  /** What keeps its room; without it a page waits for it. */
  meanwhile?: ComponentChildren,
): (props: P) => ComponentChildren {
  let loaded: ComponentType<P> | null = null;
  return function Lazy(props: P) {
    const [, arrived] = useState(false);
    const [wrong, setWrong] = useState(false);
    const wait = useAwait();
    useLayoutEffect(() => {
      if (loaded) return;
      const loading = load().then(
        (part) => {
          loaded = part.default;
          arrived(true);
        },
        () => setWrong(true),
      );
      if (meanwhile === undefined) wait(loading);
    }, []);
    if (wrong)
      return <p class="trouble">This part of the page did not load; the server may be newer. Load the page again.</p>;
    const Part = loaded;
    return Part ? <Part {...props} /> : (meanwhile ?? <p class="dim">Loading …</p>);
  };
}
