// A page is shown when all that it asks for at first is answered: what can be pressed is then where it stays.
import { type ComponentChildren, createContext } from 'preact';
import { useCallback, useContext, useEffect, useLayoutEffect, useRef, useState } from 'preact/hooks';
import { Loading } from './ui/parts';

/** After this it is shown with what there is. */
const LONGEST_MS = 10_000;

type Await = (answer: Promise<unknown>) => void;
const Awaited = createContext<Await>(() => undefined);

/** Lets the page that is being made wait for an answer; to be called in a layout effect, before anything is drawn. */
export const useAwait = (): Await => useContext(Awaited);

export function Whole({ children }: { children: ComponentChildren }) {
  const [whole, setWhole] = useState(false);
  const open = useRef(0);
  const look = useCallback(() => {
    // What an answer brought may ask for more: it has been drawn by then.
    requestAnimationFrame(() => open.current === 0 && setWhole(true));
  }, []);
  const wait = useCallback<Await>((answer) => {
    open.current += 1;
    const answered = (): void => {
      open.current -= 1;
      look();
    };
    answer.then(answered, answered);
  }, []);
  // After those of all that is within.
  useLayoutEffect(() => {
    if (open.current === 0) setWhole(true);
  }, []);
  useEffect(() => {
    const timer = setTimeout(() => setWhole(true), LONGEST_MS);
    return () => clearTimeout(timer);
  }, []);
  return (
    <Awaited.Provider value={wait}>
      {!whole && (
        <div class="arriving">
          <Loading />
        </div>
      )}
      {children}
    </Awaited.Provider>
  );
}
