// Charts over time, drawn by uPlot in the page's own colours, with the same figures in words.
import { useEffect, useRef } from 'preact/hooks';
import uPlot from 'uplot';
import 'uplot/dist/uPlot.min.css';
import { CHART_PX } from './format';

export interface Series {
  label: string;
  /** A custom property of the page's colours. */
  colour: string;
  values: (number | null)[];
}

interface ChartProps {
  label: string;
  /** Seconds since 1970. */
  times: number[];
  series: Series[];
  told: (value: number) => string;
  height?: number;
  /** The scale goes at least so far. */
  least?: number;
}

const LEAST_SPAN_S = 300;

/** What a colour of ours is just now, in light or dark. */
function painted(property: string, element: Element): string {
  const probe = document.createElement('span');
  probe.style.color = `var(${property})`;
  element.append(probe);
  const colour = getComputedStyle(probe).color;
  probe.remove();
  return colour;
}

export default function Chart({ label, times: given, series, told, height = CHART_PX, least = 4 }: ChartProps) {
  const box = useRef<HTMLDivElement>(null);
  // One point alone says nothing of how long a second is.
  const lone = given.length === 1;
  const times = lone ? [(given[0] ?? 0) - 1, given[0] ?? 0] : given;
  const lines = series.map((one) => (lone ? [null, ...one.values] : one.values));
  const plot = useRef<uPlot | null>(null);
  const shape = `${series.map((one) => one.label).join('|')}|${height}`;

  // Made anew only when its lines are others.
  useEffect(() => {
    const into = box.current;
    if (!into) return;
    const make = (): void => {
      plot.current?.destroy();
      const grid = { stroke: painted('--line', into), width: 1 };
      const axis = { stroke: painted('--dim', into), grid, ticks: { show: false }, font: '11px system-ui', gap: 4 };
      plot.current = new uPlot(
        {
          width: into.clientWidth || 300,
          height,
          legend: { show: false },
          cursor: { y: false, points: { size: 6 } },
          scales: {
            x: { range: (_plot, from, to) => [Math.min(from ?? 0, (to ?? 0) - LEAST_SPAN_S), to ?? LEAST_SPAN_S] },
            y: { range: (_plot, _low, high) => [0, Math.max((high ?? 0) * 1.1, least)] },
          },
          axes: [
            { ...axis, size: 22, space: 70 },
            { ...axis, size: 46, values: (_plot, values) => values.map((value) => told(value)), space: 30 },
          ],
          series: [
            {},
            ...series.map((one) => ({
              label: one.label,
              stroke: painted(one.colour, into),
              width: 1.5,
              points: { show: times.length < 3 },
            })),
          ],
        },
        [times, ...lines] as uPlot.AlignedData,
        into,
      );
    };
    make();
    const resized = new ResizeObserver(() => plot.current?.setSize({ width: into.clientWidth, height }));
    resized.observe(into);
    const scheme = matchMedia('(prefers-color-scheme: dark)');
    const themed = new MutationObserver(make);
    themed.observe(document.documentElement, { attributes: true, attributeFilter: ['data-theme'] });
    scheme.addEventListener('change', make);
    return () => {
      resized.disconnect();
      themed.disconnect();
      scheme.removeEventListener('change', make);
      plot.current?.destroy();
      plot.current = null;
    };
  }, [shape]);

  useEffect(() => {
    plot.current?.setData([times, ...lines] as uPlot.AlignedData);
  }, [given, series]);

  const last = series.map((one) => {
    const value = one.values.findLast((found) => found !== null && found !== undefined);
    return [one, value === undefined || value === null ? '–' : told(value)] as const;
  });
  return (
    <figure class="chart" aria-label={label}>
      <figcaption>
        {last.map(([one, value]) => (
          <span key={one.label}>
            <i style={{ background: `var(${one.colour})` }} />
            {one.label} <b>{value}</b>
          </span>
        ))}
      </figcaption>
      <div ref={box} class="chart-box" style={{ height: `${height}px` }} aria-hidden="true" />
    </figure>
  );
}
