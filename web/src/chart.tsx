// One chart: uPlot draws, this says what. Colours come from the style sheet and follow its light and
// dark; a cursor is moved by mouse, touch or the arrow keys, in all charts at once.

import { useEffect, useRef, useState } from "preact/hooks";
import uPlot from "uplot";
import { timeOfDay } from "./format";
import type { Span, Values } from "./series";

export interface Line {
  name: string;
  values: Values;
  color: "accent" | "soft";
  filled?: boolean;
}

export interface Shown {
  title: string;
  note?: string;
  /** Seconds; the lines' values are at these. */
  at: number[];
  lines: Line[];
  from: number;
  to: number;
  pauses: Span[];
  gaps: Span[];
  /** The scale reaches at least to here. */
  top?: number;
  marks?: { at: number; name: string }[];
  tall?: boolean;
  show: (value: number | null | undefined) => string;
  tick: (value: number) => string;
}

export function Chart(shown: Shown) {
  const place = useRef<HTMLDivElement>(null);
  const latest = useRef(shown);
  const plot = useRef<uPlot | null>(null);
  // The time under the cursor, not its place in the list: what is oldest leaves the list.
  const [cursor, point] = useState<number | null>(null);
  latest.current = shown;

  useEffect(() => {
    const element = place.current as HTMLDivElement;
    const draw = () => {
      plot.current?.destroy();
      plot.current = new uPlot(options(element, () => latest.current, point), dataOf(latest.current), element);
      show(plot.current, latest.current);
    };
    draw();
    const resized = new ResizeObserver(() => plot.current?.setSize(sizeOf(element, latest.current)));
    resized.observe(element);
    const theme = matchMedia("(prefers-color-scheme: dark)");
    theme.addEventListener("change", draw);
    return () => {
      theme.removeEventListener("change", draw);
      resized.disconnect();
      plot.current?.destroy();
    };
  }, []);

  useEffect(() => {
    if (plot.current) show(plot.current, shown);
  }, [shown]);

  const at = cursor === null ? -1 : shown.at.indexOf(cursor);
  const said = at < 0 ? lastOf(shown) : at;
  const values = shown.lines.map((line) => `${line.name} ${shown.show(line.values[said])}`).join(", ");
  const under = shown.at[at];
  const when = under === undefined ? "now" : `at ${timeOfDay(under * 1000)}`;
  const keyed = (event: KeyboardEvent) => {
    if (plot.current && step(plot.current, event.key, said)) event.preventDefault();
  };
  return (
    <figure class={`card chart ${shown.tall ? "tall" : ""}`}>
      <figcaption>
        <h2>{shown.title}</h2>
        <span class="soft note">{shown.note}</span>
        <span class="reading">
          {under !== undefined && <span class="soft">{timeOfDay(under * 1000)}</span>}
          {shown.lines.map((line) => (
            <span class={`value ${line.color}`} key={line.name}>
              {line.name} <b>{shown.show(line.values[said])}</b>
            </span>
          ))}
        </span>
      </figcaption>
      <div
        class="plot"
        ref={place}
        tabIndex={0}
        role="img"
        aria-label={`${shown.title}, the last ten minutes; ${when}: ${values}. Arrow keys move through time.`}
        onKeyDown={keyed}
      />
    </figure>
  );
}

/** What is known now, at its scale; a new plot has none of its own, and would be empty. */
function show(plot: uPlot, shown: Shown): void {
  plot.batch(() => {
    plot.setData(dataOf(shown), false);
    plot.setScale("x", { min: shown.from, max: shown.to });
    plot.setScale("y", { min: 0, max: topOf(shown) });
  });
}

/** Moves the cursor; false for keys that are not ours. */
function step(plot: uPlot, key: string, from: number): boolean {
  const by = { ArrowLeft: -5, ArrowRight: 5 }[key];
  if (key === "Escape") plot.setCursor({ left: -10, top: -10 });
  if (by === undefined) return key === "Escape";
  const times = plot.data[0];
  const to = times[Math.min(times.length - 1, Math.max(0, from + by))];
  if (to !== undefined) plot.setCursor({ left: plot.valToPos(to, "x"), top: 10 });
  return true;
}

function lastOf(shown: Shown): number {
  return shown.at.length - 1;
}

function dataOf(shown: Shown): uPlot.AlignedData {
  return [shown.at, ...shown.lines.map((line) => line.values)];
}

function sizeOf(element: HTMLElement, shown: Shown): { width: number; height: number } {
  return { width: element.clientWidth, height: shown.tall ? 240 : 150 };
}

/** A little air above the largest, so that no line runs along the edge. */
function topOf(shown: Shown): number {
  const most = shown.lines.flatMap((line) => line.values).reduce<number>((max, v) => Math.max(max, v ?? 0), 0);
  return Math.max(most, shown.top ?? 0) * 1.06 || 1;
}

function options(element: HTMLElement, shown: () => Shown, point: (time: number | null) => void): uPlot.Options {
  const style = getComputedStyle(element);
  const color = (name: string) => style.getPropertyValue(`--${name}`).trim();
  const font = `11px ${style.fontFamily}`;
  const axis = { stroke: color("soft"), font, grid: { stroke: color("line"), width: 1 }, ticks: { show: false } };
  const line = ({ color: name, filled }: Line): uPlot.Series => ({
    stroke: color(name),
    width: 1.5,
    points: { show: false },
    ...(filled ? { fill: `${color(name)}22` } : {}),
  });
  return {
    ...sizeOf(element, shown()),
    padding: [8, 26, 0, 0],
    legend: { show: false },
    cursor: { y: false, drag: { x: false, y: false }, sync: { key: "time" }, points: { size: 6 } },
    scales: { x: { time: true, auto: false }, y: { auto: false } },
    axes: [
      { ...axis, space: 90, size: 26, values: (_, times) => times.map((time) => clock(time, shown())) },
      { ...axis, size: 52, values: (_, ticks) => ticks.map((tick) => shown().tick(tick)) },
    ],
    series: [{}, ...shown().lines.map(line)],
    hooks: {
      drawClear: [(plot) => shade(plot, shown(), color)],
      draw: [(plot) => mark(plot, shown(), color, font)],
      setCursor: [(plot) => point(plot.data[0][plot.cursor.idx ?? -1] ?? null)],
    },
  };
}

/** With seconds where minutes would repeat. */
function clock(time: number, { from, to }: Shown): string {
  return timeOfDay(time * 1000).slice(0, to - from < 300 ? 8 : 5);
}

type Colors = (name: string) => string;

/** What lies behind the lines: when it was paused, and when nothing is known. */
function shade(plot: uPlot, shown: Shown, color: Colors): void {
  const { ctx, bbox } = plot;
  const fill = (spans: Span[], style: string | CanvasPattern | null) => {
    ctx.fillStyle = style ?? "transparent";
    for (const span of spans) {
      const left = Math.max(bbox.left, plot.valToPos(span.from, "x", true));
      const right = Math.min(bbox.left + bbox.width, plot.valToPos(span.to, "x", true));
      if (right > left) ctx.fillRect(left, bbox.top, right - left, bbox.height);
    }
  };
  ctx.save();
  fill(shown.pauses, `${color("warn")}2e`);
  fill(shown.gaps, hatched(ctx, color("line")));
  ctx.restore();
}

function hatched(ctx: CanvasRenderingContext2D, color: string): CanvasPattern | null {
  const tile = document.createElement("canvas");
  tile.width = tile.height = 8;
  const pen = tile.getContext("2d");
  if (!pen) return null;
  pen.strokeStyle = color;
  pen.lineWidth = 2;
  for (const offset of [-8, 0, 8]) {
    pen.moveTo(offset, 8);
    pen.lineTo(offset + 8, 0);
  }
  pen.stroke();
  return ctx.createPattern(tile, "repeat");
}

function mark(plot: uPlot, shown: Shown, color: Colors, font: string): void {
  const { ctx, bbox } = plot;
  const scale = devicePixelRatio;
  ctx.save();
  ctx.font = font.replace("11px", `${11 * scale}px`);
  ctx.textAlign = "left";
  ctx.textBaseline = "bottom";
  ctx.lineWidth = scale;
  ctx.setLineDash([4 * scale, 4 * scale]);
  for (const { at, name } of shown.marks ?? []) {
    const y = Math.round(plot.valToPos(at, "y", true));
    ctx.strokeStyle = ctx.fillStyle = color("soft");
    ctx.beginPath();
    ctx.moveTo(bbox.left, y);
    ctx.lineTo(bbox.left + bbox.width, y);
    ctx.stroke();
    ctx.fillText(`${name} ${shown.show(at)}`, bbox.left + 6 * scale, y - 2 * scale);
  }
  ctx.restore();
}
