// The last ten minutes.

import { Chart } from "../chart";
import { brief, count, millis, perSecond } from "../format";
import { lines, WINDOW_MS } from "../series";
import type { Known } from "../stream";

/** A chart of a few seconds would say nothing. */
const LEAST_SECONDS = 60;

export function Charts({ known }: { known: Known }) {
  const series = lines(known.samples);
  const level = known.now.health.metrics.backpressure;
  // While the bridge is silent its clock goes on, so that the silence is seen.
  const silence = known.speaks ? 0 : Date.now() - known.heardAt;
  const to = (known.now.sample.at + silence) / 1000;
  const gaps = known.speaks ? series.gaps : [...series.gaps, { from: known.now.sample.at / 1000, to }];
  const paused = series.pauses.length;
  // What is not known yet takes no room.
  const first = series.at[0] ?? to;
  const from = Math.max(to - WINDOW_MS / 1000, Math.min(first, to - LEAST_SECONDS));
  const time = { at: series.at, from, to, pauses: series.pauses, gaps };
  const note = [paused > 0 && `shaded: paused (${paused})`, gaps.length > 0 && "hatched: no data"]
    .filter(Boolean)
    .join(" · ");
  return (
    <section class="charts" aria-label="The last ten minutes">
      <Chart
        {...time}
        title="Records held"
        note={note}
        tall
        show={count}
        tick={brief}
        top={level.max_buffer_size}
        marks={[
          { at: level.max_buffer_size, name: "cap" },
          { at: level.pause_threshold, name: "pause above" },
          { at: level.resume_threshold, name: "resume below" },
        ]}
        lines={[{ name: "held", values: series.held, color: "accent", filled: true }]}
      />
      <Chart
        {...time}
        title="Records a second"
        top={10}
        show={perSecond}
        tick={brief}
        lines={[
          { name: "in", values: series.input, color: "soft" },
          { name: "out", values: series.output, color: "accent" },
        ]}
      />
      <Chart
        {...time}
        title="Lag"
        top={10}
        show={count}
        tick={brief}
        lines={[{ name: "records", values: series.lag, color: "accent" }]}
      />
      <Chart
        {...time}
        title="An insert takes"
        top={0.01}
        show={millis}
        tick={(seconds) => millis(seconds)}
        lines={[{ name: "mean", values: series.insert, color: "accent" }]}
      />
    </section>
  );
}
