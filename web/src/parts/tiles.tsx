// The few numbers that are looked at first.

import { brief, bytes, count, duration, millis, perSecond, roughly } from "../format";
import { rateOf, type Known } from "../stream";
import type { Health, Source, Writer } from "../told";

const ofSources = (value: (source: Source) => number) => (health: Health) =>
  Object.values(health.metrics.sources).reduce((sum, source) => sum + value(source), 0);
const ofWriters = (value: (writer: Writer) => number) => (health: Health) =>
  Object.values(health.metrics.writers).reduce((sum, writer) => sum + value(writer), 0);

const received = ofSources((source) => source.received);
const inserted = ofWriters((writer) => writer.inserted);
const inserts = ofWriters((writer) => writer.inserts);
const insertSeconds = ofWriters((writer) => writer.insert_seconds);

export function Tiles({ known }: { known: Known }) {
  const { health, sample } = known.now;
  const { backpressure: level, dead_letters, dead_letters_pending, dropped } = health.metrics;
  const perInsert = rateOf(known, inserts);
  const insert = perInsert ? (rateOf(known, insertSeconds) ?? 0) / perInsert : null;
  const share = `${Math.round(level.utilization * 100)} %`;
  return (
    <dl class="tiles" aria-label="Now">
      <Tile name="held" value={count(level.current_buffer)} more={`${share} · ${bytes(level.current_bytes)}`} />
      <Tile name="in" value={perSecond(rateOf(known, received))} more={`${brief(received(health))} in all`} />
      <Tile name="out" value={perSecond(rateOf(known, inserted))} more={`${brief(inserted(health))} stored`} />
      <Outlook health={health} />
      <Tile name="lag" value={count(sample.lag)} more="not fetched yet" />
      <Tile name="an insert takes" value={millis(insert)} more="mean of 10 s" />
      <Tile name="pauses" value={count(level.pause_count)} more={`${duration(level.paused_seconds_total)} in all`} />
      <Tile
        name="dead letters"
        value={count(dead_letters)}
        more={`${count(dead_letters_pending)} on their way`}
        warns={dead_letters > 0}
      />
      <Tile name="dropped" value={count(dropped)} more="lost for good" warns={dropped > 0} />
    </dl>
  );
}

/** Soon enough to hurry. */
const SOON_SECONDS = 300;

function Outlook({ health }: { health: Health }) {
  const { full_in_seconds: full, drained_in_seconds: drained } = health.metrics.forecast;
  if (full === null && drained === null) return <Tile name="full in" value="never" more="the level stands" />;
  return (
    <Tile
      name={full === null ? "drained in" : "full in"}
      value={roughly(full ?? drained)}
      more="if all goes on so"
      warns={full !== null && full < SOON_SECONDS}
    />
  );
}

function Tile({ name, value, more, warns = false }: { name: string; value: string; more: string; warns?: boolean }) {
  return (
    <div class={warns ? "tile warn" : "tile"}>
      <dt>{name}</dt>
      <dd>
        <span class="value">{value}</span>
        <span class="soft">{more}</span>
      </dd>
    </div>
  );
}
