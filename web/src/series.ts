// The looks of the last ten minutes as lines of a chart. Rates come from counters, over a few
// seconds; where looks are missing (the bridge was away, or this page slept) a line is broken, and
// never drawn across.

import type { Sample } from "./told";

export const WINDOW_MS = 600_000;

/** Looks come once a second; what is farther apart is a gap. */
const GAP_MS = 3_500;

/** A rate is over so many looks: inserts come in batches, and one second says little. */
const SMOOTH = 5;

export interface Span {
  from: number;
  to: number;
}

export type Values = (number | null)[];

/** All by the same index; times in seconds, as the chart wants them. */
export interface Series {
  at: number[];
  held: Values;
  input: Values;
  output: Values;
  lag: Values;
  insert: Values;
  pauses: Span[];
  gaps: Span[];
}

/** Those before and those that have come, each once, in order, of the last ten minutes. */
export function merged(before: Sample[], come: Sample[]): Sample[] {
  // A clock that was set back: what was before would be in the future for as long.
  const latest = before.at(-1)?.at ?? 0;
  const known = (come.at(-1)?.at ?? latest) < latest - WINDOW_MS ? [] : before;
  const byTime = new Map([...known, ...come].map((sample) => [sample.at, sample]));
  const all = [...byTime.values()].sort((a, b) => a.at - b.at);
  const last = all.at(-1)?.at ?? 0;
  return all.filter((sample) => sample.at > last - WINDOW_MS);
}

export function lines(samples: Sample[]): Series {
  const series: Series = { at: [], held: [], input: [], output: [], lag: [], insert: [], pauses: [], gaps: [] };
  let start = 0;
  samples.forEach((sample, index) => {
    const before = samples[index - 1];
    if (before && isApart(before, sample)) {
      start = index;
      gap(series, before, sample);
    }
    const from = samples[Math.max(start, index - SMOOTH)] ?? sample;
    const seconds = (sample.at - from.at) / 1000;
    const rate = (now: number, then: number) => (seconds > 0 ? (now - then) / seconds : null);
    const inserts = sample.inserts - from.inserts;
    series.at.push(sample.at / 1000);
    series.held.push(sample.held);
    series.input.push(rate(sample.received, from.received));
    series.output.push(rate(sample.inserted, from.inserted));
    series.lag.push(sample.lag);
    series.insert.push(inserts > 0 ? (sample.insert_seconds - from.insert_seconds) / inserts : null);
    if (sample.paused) pause(series, sample, before);
  });
  return series;
}

/** Looks are missing between them, or it is another process that counts anew. */
function isApart(before: Sample, sample: Sample): boolean {
  return sample.at - before.at > GAP_MS || sample.received < before.received || sample.inserts < before.inserts;
}

function gap(series: Series, before: Sample, sample: Sample): void {
  series.gaps.push({ from: before.at / 1000, to: sample.at / 1000 });
  series.at.push((before.at + sample.at) / 2000);
  for (const line of [series.held, series.input, series.output, series.lag, series.insert]) line.push(null);
}

function pause(series: Series, sample: Sample, before: Sample | undefined): void {
  const at = sample.at / 1000;
  const last = series.pauses.at(-1);
  if (last && before?.paused && !isApart(before, sample)) {
    last.to = at;
  } else {
    series.pauses.push({ from: at, to: at + 1 });
  }
}
