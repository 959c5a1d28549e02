// What is pressed stays where it is until it is released: meanwhile nothing is drawn anew, so that what arrives between
// the two moves nothing from under the pointer, and nothing else under it.
import { options } from 'preact';

/** After this a press counts as over, whatever the browser told of it. */
const LONGEST_MS = 10_000;
/** How long after a finger is lifted its click may come. */
const CLICK_MS = 100;

let pressed = false;
let over: ReturnType<typeof setTimeout> | undefined;
let held: (() => void) | null = null;

function release(): void {
  pressed = false;
  clearTimeout(over);
  const draw = held;
  held = null;
  draw?.();
}

function releaseIn(ms: number): void {
  clearTimeout(over);
  over = setTimeout(release, ms);
}

options.debounceRendering = (draw) => {
  if (pressed) held = draw;
  else queueMicrotask(draw);
};

addEventListener(
  'pointerdown',
  (event) => {
    if (!event.isPrimary || event.button !== 0) return;
    pressed = true;
    releaseIn(LONGEST_MS);
  },
  true,
);
addEventListener('pointerup', () => pressed && releaseIn(CLICK_MS), true);
// After all who hear of the click.
addEventListener('click', release);
addEventListener('pointercancel', release, true);
addEventListener('blur', release);
// A release that nobody told of, e.g. over the choices of a select.
addEventListener('pointermove', (event) => pressed && event.buttons === 0 && release(), true);
