// Parts that are loaded when they are first shown.
import type { ComponentChildren, ComponentType } from 'preact';
import { useEffect, useState } from 'preact/hooks';

export function lazy<P extends object>(
  load: () => Promise<{ default: ComponentType<P> }>,
  meanwhile: ComponentChildren = <p class="dim">Loading …</p>,
): (props: P) => ComponentChildren {
  let loaded: ComponentType<P> | null = null;
  return function Lazy(props: P) {
    const [, arrived] = useState(false);
    const [wrong, setWrong] = useState(false);
    useEffect(() => {
      if (loaded) return;
      load().then(
        (part) => {
          loaded = part.default;
          arrived(true);
        },
        () => setWrong(true),
      );
    }, []);
    if (wrong)
      return <p class="trouble">This part of the page did not load; the server may be newer. Load the page again.</p>;
    const Part = loaded;
    return Part ? <Part {...props} /> : meanwhile;
  };
}
