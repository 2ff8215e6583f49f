// Where records come from, who writes them, and which way they take.

import { count, millis, perSecond, total, words } from "../format";
import { rateOf, type Known } from "../stream";
import { State, Table, numbers, texts } from "../table";
import type { Route, Source } from "../told";

export function Sources({ known }: { known: Known }) {
  const { sources } = known.now.health.metrics;
  const rows = Object.entries(sources).map(([name, source]) => ({
    key: name,
    cells: [
      name,
      <SourceState source={source} refuses={(rateOf(known, (h) => h.metrics.sources[name]?.refused_requests) ?? 0) > 0} />,
      perSecond(rateOf(known, (h) => h.metrics.sources[name]?.received)),
      count(source.received),
      count(source.held),
      count(source.lag),
      count(source.uncommitted),
      count(Object.values(source.dropped_by_reason).reduce((sum, reasons) => sum + total(reasons), 0)),
      count(source.released),
    ],
  }));
  return (
    <Table
      title="Sources"
      columns={[
        ...texts("source", "state"),
        ...numbers("in", "received", "held", "lag", "uncommitted", "dropped", "released"),
      ]}
      rows={rows}
      none="No source is configured."
    />
  );
}

/** `refuses`: publishers, in these seconds. */
function SourceState({ source, refuses }: { source: Source; refuses: boolean }) {
  if (!source.connected) return <State tone="bad">away: {source.error ?? "not connected yet"}</State>;
  if (source.paused) return <State tone="warn">paused</State>;
  if (source.held_topics.length > 0) return <State tone="warn">waits: {source.held_topics.join(", ")}</State>;
  if (source.error) return <State tone="warn">{source.error}</State>;
  const refused = source.refused_requests ?? 0;
  if (refuses) return <State tone="warn">refuses publishers: {count(refused)} requests so far</State>;
  if (refused > 0) return <State tone="good">reading; {count(refused)} requests were refused</State>;
  const partitions = source.assigned === undefined ? "" : `, ${count(source.assigned)} partitions`;
  return <State tone="good">reading{partitions}</State>;
}

export function Writers({ known }: { known: Known }) {
  const { writers } = known.now.health.metrics;
  const rows = Object.entries(writers).map(([name, writer]) => {
    const inserts = rateOf(known, (h) => h.metrics.writers[name]?.inserts);
    const seconds = rateOf(known, (h) => h.metrics.writers[name]?.insert_seconds);
    return {
      key: name,
      cells: [
        name,
        perSecond(rateOf(known, (h) => h.metrics.writers[name]?.inserted)),
        count(writer.inserted),
        count(writer.buffered),
        count(writer.in_flight),
        millis(inserts ? (seconds ?? 0) / inserts : null),
        count(writer.inserts),
        writer.failed_inserts > 0 ? <State tone="warn">{count(writer.failed_inserts)}</State> : "0",
      ],
    };
  });
  return (
    <Table
      title="Writers"
      columns={[
        ...texts("writer"),
        ...numbers("out", "stored", "open rows", "in flight", "an insert takes", "inserts", "failed"),
      ]}
      rows={rows}
      none="No writer is configured."
    />
  );
}

export function Routes({ known }: { known: Known }) {
  const { routes } = known.now.health.metrics;
  const rows = Object.entries(routes).map(([name, route]) => ({
    key: name,
    cells: [
      <>
        {name} <span class="soft">→ {route.table ?? "counted only"}</span>
      </>,
      <Guarantees route={route} />,
      <RouteState route={route} />,
      perSecond(rateOf(known, (h) => h.metrics.routes[name]?.received)),
      count(route.received),
      count(route.inserted),
      count(route.held),
      count(route.dead_lettered),
      count(route.filtered),
      count(route.dropped),
    ],
  }));
  return (
    <Table
      title="Routes"
      columns={[
        ...texts("route → table", "guarantee", "state"),
        ...numbers("in", "received", "stored", "held", "dead letters", "filtered", "dropped"),
      ]}
      rows={rows}
      none="No route is configured."
    />
  );
}

function Guarantees({ route }: { route: Route }) {
  const all = Object.entries(route.guarantees);
  return (
    <>
      {all.map(([source, guarantee]) => (
        <span class="guarantee" key={source}>
          {source} <span class="soft">{words(guarantee)}</span>
        </span>
      ))}
    </>
  );
}

function RouteState({ route }: { route: Route }) {
  const tone = { starting: "calm", running: "good", retrying: "warn", awaiting_fix: "bad", removed: "calm" } as const;
  const why = [route.held_back ? "takes nothing" : "", route.reason ?? ""].filter(Boolean).join("; ");
  return (
    <State tone={route.held_back && route.state === "running" ? "warn" : tone[route.state]}>
      {words(route.state)}
      {why && `: ${why}`}
    </State>
  );
}
