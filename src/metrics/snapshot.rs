//! Counters and gauges, read off the snapshot at each scrape.

use std::fmt::Error;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::registry::Unit;
use tokio::time::Instant;

use super::fleet::fleet;
use super::out::{NO_LABELS, NONE, Out};
use super::result_name;
use crate::status::{
    BreakerState, Condition, ConfigStatus, Identity, RouteState, RouteStatus, Snapshot, Snapshots,
    SourceStatus, TierStatus,
};

const BYTES: Option<&Unit> = Some(&Unit::Bytes);
const SECONDS: Option<&Unit> = Some(&Unit::Seconds);

#[derive(Debug)]
pub(super) struct SnapshotCollector {
    snapshots: Snapshots,
    identity: Identity,
}

impl SnapshotCollector {
    pub(super) fn new(snapshots: Snapshots, identity: Identity) -> Self {
        Self { snapshots, identity }
    }
}

impl Collector for SnapshotCollector {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> Result<(), Error> {
        let snapshot = Arc::clone(&self.snapshots.borrow());
        let now = Instant::now();
        let mut out = Out::new(encoder);
        process(&mut out, &snapshot, &self.identity, now)?;
        config(&mut out, &snapshot.config)?;
        backpressure(&mut out, &snapshot)?;
        overload(&mut out, &snapshot)?;
        adaptive(&mut out, &snapshot)?;
        fleet(&mut out, &snapshot)?;
        breaker(&mut out, &snapshot)?;
        source_counters(&mut out, &snapshot)?;
        source_gauges(&mut out, &snapshot)?;
        kafka(&mut out, &snapshot)?;
        jetstream(&mut out, &snapshot)?;
        writers(&mut out, &snapshot)?;
        route_accounts(&mut out, &snapshot)?;
        routes(&mut out, &snapshot)
    }
}

fn process(
    out: &mut Out<'_>,
    snapshot: &Snapshot,
    who: &Identity,
    now: Instant,
) -> Result<(), Error> {
    let version = [([("version", Identity::VERSION)], 1_u64)];
    out.gauges("build_info", "The version that runs; always 1", NONE, version)?;
    #[expect(clippy::cast_precision_loss, reason = "milliseconds since 1970 are below 2^53")]
    let started_at = who.started_at as f64 / 1_000.0;
    out.gauge("start_time", "When the process started, Unix time", SECONDS, started_at)?;
    let uptime = now.saturating_duration_since(who.started).as_secs_f64();
    out.gauge("uptime", "How long the process has run", SECONDS, uptime)?;
    // Before the loop turns for the first time, its age is that of the process.
    let turned_at = snapshot.turned_at.unwrap_or(who.started);
    let age = now.saturating_duration_since(turned_at).as_secs_f64();
    out.gauge("snapshot_age", "Since the owner loop last turned and reported", SECONDS, age)?;
    let wedged = u64::from(snapshot.wedged(now).is_some());
    out.gauge("wedged", "1 when the pipeline does not turn: restart it", NONE, wedged)?;
    let condition = snapshot.condition(now);
    let statuses = [
        Condition::Starting,
        Condition::Healthy,
        Condition::Degraded,
        Condition::Critical,
        Condition::Draining,
    ]
    .map(|each| ([("status", each.as_str())], u64::from(each == condition)));
    out.gauges("status", "1 for the status that holds, 0 for the others", NONE, statuses)?;
    let people = snapshot.needs_person.len();
    out.gauge("needs_person", "Things that only a person can mend; see /health", NONE, people)
}

fn config(out: &mut Out<'_>, config: &ConfigStatus) -> Result<(), Error> {
    let hash = [([("hash", config.hash.as_str())], 1_u64)];
    out.gauges("config_info", "The configuration in force, by its hash; always 1", NONE, hash)?;
    #[expect(clippy::cast_precision_loss, reason = "milliseconds since 1970 are below 2^53")]
    let applied_at = config.applied_at as f64 / 1_000.0;
    let help = "When the configuration in force was applied, Unix time";
    out.gauge("config_applied_time", help, SECONDS, applied_at)?;
    let help = "Changes of the configuration while it ran, by what became of them";
    let reloads = [("applied", config.reloads), ("refused", config.refusals)];
    out.counters("config_reloads", help, NONE, reloads.map(|(result, n)| ([("result", result)], n)))
}

fn backpressure(out: &mut Out<'_>, snapshot: &Snapshot) -> Result<(), Error> {
    let b = &snapshot.backpressure;
    let help = "Records held: admitted and not yet durable";
    out.gauge("buffer_records", help, NONE, b.current_buffer)?;
    out.gauge("buffer_peak_records", "The most records ever held", NONE, b.peak_buffer)?;
    out.gauge("buffer", "Bytes that the held records take", BYTES, b.current_bytes)?;
    let help = "Records held as a share of max_buffer_size";
    out.gauge("buffer_utilization_ratio", help, NONE, b.utilization())?;
    let help = "Above this many records held every source is paused";
    out.gauge("pause_threshold_records", help, NONE, b.pause_threshold)?;
    let help = "Below this many records held the sources are resumed";
    out.gauge("resume_threshold_records", help, NONE, b.resume_threshold)?;
    out.gauge("max_buffer_records", "The cap on records held", NONE, b.max_buffer_size)?;
    out.gauge("max_buffer", "The limit of bytes held", BYTES, b.max_buffer_bytes)?;
    let help = "Pulled sources take records while fewer than these are held";
    out.gauge("pull_limit_records", help, NONE, b.pull_limit)?;
    let help = "1 while an episode of backpressure lasts";
    out.gauge("backpressure_active", help, NONE, u64::from(b.active))?;
    out.counter("pauses", "Episodes of backpressure", NONE, b.pause_count)?;
    let help = "Time spent in episodes of backpressure";
    out.counter("paused", help, SECONDS, b.paused_seconds_total)?;
    chosen(out, snapshot)?;
    let help = "The furthest that a record's time was ahead of this clock, over the last five \
                minutes";
    out.gauge("record_ahead", help, SECONDS, snapshot.record_ahead_seconds)?;
    let rates = snapshot.rates;
    let help = "Records received per second, over the last heartbeat interval";
    out.gauge("input_records_per_second", help, NONE, rates.input_records_per_second)?;
    let help = "Rows made durable per second, over the last heartbeat interval";
    out.gauge("output_records_per_second", help, NONE, rates.output_records_per_second)
}

/// Where the level goes, and what the limits follow from when they are chosen.
fn chosen(out: &mut Out<'_>, snapshot: &Snapshot) -> Result<(), Error> {
    let one = |value: Option<f64>| value.map(|value| (NO_LABELS, value));
    let help = "Until the cap is reached, if all goes on as at the last seven heartbeats";
    out.gauges("full_in", help, SECONDS, one(snapshot.forecast.full_in_seconds))?;
    let help = "Until nothing is held, if all goes on as at the last seven heartbeats";
    out.gauges("drained_in", help, SECONDS, one(snapshot.forecast.drained_in_seconds))?;
    let auto = snapshot.backpressure.auto.as_ref();
    let budget = snapshot.backpressure.memory_budget_bytes.map(|bytes| (NO_LABELS, bytes));
    let help = "What the process may take in memory, where that is planned with";
    out.gauges("memory_budget", help, BYTES, budget)?;
    let help = "What a record weighs, where the limits are chosen";
    out.gauges("record", help, BYTES, one(auto.map(|auto| auto.record_bytes)))
}

fn overload(out: &mut Out<'_>, snapshot: &Snapshot) -> Result<(), Error> {
    let tiers = || snapshot.overload.tiers.iter();
    let label = |tier: &TierStatus| ("at_percent", tier.at_percent.to_string());
    let in_force = tiers().map(|tier| ([label(tier)], u64::from(tier.in_force)));
    let help = "1 while the tier is in force";
    out.gauges("overload_tier_in_force", help, NONE, in_force)?;
    let entered = tiers().map(|tier| ([label(tier)], tier.entered));
    out.counters("overload_tier_entries", "Times the tier began", NONE, entered)?;
    let lost = tiers().flat_map(|tier| {
        tier.lost.iter().flat_map(move |(class, lost)| {
            [("sampled", lost.sampled), ("tier", lost.dropped)].map(|(reason, count)| {
                let class = ("class", class.clone());
                ([label(tier), class, ("reason", reason.to_owned())], count)
            })
        })
    });
    let help = "Records lost in the tier, by class; part of records_dropped";
    out.counters("overload_records_dropped", help, NONE, lost)
}

/// Where inserts are adaptive.
fn adaptive(out: &mut Out<'_>, snapshot: &Snapshot) -> Result<(), Error> {
    let adaptive = || snapshot.overload.adaptive.iter();
    let help = "Inserts that may be under way at a time, where inserts are adaptive";
    let limit = adaptive().map(|adaptive| (NO_LABELS, adaptive.in_flight_limit));
    out.gauges("insert_limit", help, NONE, limit)?;
    let rows = adaptive().flat_map(|adaptive| {
        adaptive.batch_rows.iter().map(|(table, rows)| ([("table", table.clone())], *rows))
    });
    let help = "Rows at which a batch is cut, where inserts are adaptive";
    out.gauges("batch_limit_rows", help, NONE, rows)
}

fn breaker(out: &mut Out<'_>, snapshot: &Snapshot) -> Result<(), Error> {
    let breaker = &snapshot.breaker;
    let states =
        BreakerState::ALL.map(|each| ([("state", each.name())], u64::from(each == breaker.state)));
    out.gauges("breaker_state", "1 for the state the circuit breaker is in", NONE, states)?;
    let help = "Failed inserts in a row that speak of ClickHouse as a whole";
    out.gauge("breaker_failures", help, NONE, breaker.failures)?;
    let help = "Times the circuit breaker opened; a probe that fails does not count";
    out.counter("breaker_openings", help, NONE, breaker.openings)?;
    let help = "Batches that were due and waited because the circuit breaker was open";
    out.counter("breaker_rejects", help, NONE, breaker.rejects)?;
    let endpoints = || snapshot.endpoints.iter();
    let healthy = endpoints().map(|e| ([("url", e.url.as_str())], u64::from(e.healthy)));
    let help = "1 while the ClickHouse server answers";
    out.gauges("clickhouse_healthy", help, NONE, healthy)?;
    let unclear = endpoints().map(|e| ([("url", e.url.as_str())], e.unclear_inserts));
    let help = "Inserts of which only this ClickHouse server can tell whether they landed";
    out.gauges("clickhouse_unclear_inserts", help, NONE, unclear)
}

fn source_counters(out: &mut Out<'_>, snapshot: &Snapshot) -> Result<(), Error> {
    // received = inserted + dead-lettered + filtered + dropped + released + held
    let by_source = |value: fn(&SourceStatus) -> u64| {
        snapshot.sources.iter().map(move |(name, s)| ([("source", name.as_str())], value(s)))
    };
    let received = by_source(|s| s.received);
    out.counters("records_received", "Records that came from the source", NONE, received)?;
    let inserted = by_source(|s| s.inserted);
    out.counters("records_inserted", "Records durable in their table", NONE, inserted)?;
    let help = "Records durable among the dead letters";
    out.counters("records_dead_lettered", help, NONE, by_source(|s| s.dead_lettered))?;
    let help = "Records counted and not stored: tombstones, count routes, no route";
    out.counters("records_filtered", help, NONE, by_source(|s| s.filtered))?;
    let help = "Records handed back to the source; they come again";
    out.counters("records_released", help, NONE, by_source(|s| s.released))?;
    let dropped = snapshot.sources.iter().flat_map(|(source, status)| {
        status.dropped.iter().flat_map(move |(class, reasons)| {
            reasons.iter().map(move |(reason, count)| {
                let labels =
                    [("source", source.as_str()), ("class", class.as_str()), ("reason", reason)];
                (labels, *count)
            })
        })
    });
    out.counters("records_dropped", "Records lost, by class and reason", NONE, dropped)?;
    let help = "Times the client came back to its server";
    out.counters("reconnects", help, NONE, by_source(|s| s.reconnects))?;
    let help = "Times the client reported that it dropped records (events, not records)";
    out.counters("slow_consumer_events", help, NONE, by_source(|s| s.slow_consumer_events))?;
    let refused = snapshot
        .sources
        .iter()
        .filter_map(|(name, source)| Some(([("source", name.as_str())], source.refused_requests?)));
    let help = "Requests of publishers that were told to come again, because there was no room";
    out.counters("publish_refused_requests", help, NONE, refused)
}

fn source_gauges(out: &mut Out<'_>, snapshot: &Snapshot) -> Result<(), Error> {
    let by_source = |value: fn(&SourceStatus) -> u64| {
        snapshot.sources.iter().map(move |(name, s)| ([("source", name.as_str())], value(s)))
    };
    let held = by_source(|s| u64::try_from(s.held).unwrap_or(u64::MAX));
    out.gauges("held_records", "Records held, by the source they came from", NONE, held)?;
    let help = "Records admitted and not committed: they would come again after a crash";
    out.gauges("uncommitted_records", help, NONE, by_source(|s| s.uncommitted))?;
    let paused = by_source(|s| u64::from(s.paused));
    out.gauges("source_paused", "1 while the source is paused", NONE, paused)?;
    let held_topics = by_source(|s| u64::try_from(s.held_topics.len()).unwrap_or(u64::MAX));
    let help = "Topics of which nothing is taken: their table is broken and holds its share, or \
                their route is over its rate";
    out.gauges("source_held_topics", help, NONE, held_topics)?;
    let limited = snapshot.sources.iter();
    let limits =
        limited.filter_map(|(name, s)| Some(([("source", name.as_str())], s.current_rate_limit?)));
    let help = "Records per second that the source may take; none without a limit";
    out.gauges("source_current_rate_limit", help, NONE, limits)?;
    let connected = by_source(|s| u64::from(s.connected));
    out.gauges("source_connected", "1 while the source is connected", NONE, connected)?;
    let ended = snapshot.sources.keys().map(|name| {
        let has_ended = snapshot.source_ended == Some(name.as_str());
        ([("source", name.as_str())], u64::from(has_ended))
    });
    let help = "1 of the source that ended by itself, and the bridge with it";
    out.gauges("source_ended", help, NONE, ended)?;
    let natively = snapshot.sources.iter().filter_map(|(name, source)| {
        Some(([("source", name.as_str())], u64::from(source.natively_paused?)))
    });
    let help = "1 while the client itself is paused on all its partitions";
    out.gauges("source_natively_paused", help, NONE, natively)?;
    let gaps = snapshot.sources.iter().map(|(name, s)| ([("source", name.as_str())], s.gap()));
    let help =
        "Records received, less all that became of them; other than 0 is a bug of the bridge";
    out.gauges("accounting_gap", help, NONE, gaps)
}

fn kafka(out: &mut Out<'_>, snapshot: &Snapshot) -> Result<(), Error> {
    let kafka = snapshot.sources.get("kafka");
    let partitions = kafka.map_or(&[][..], |kafka| &kafka.partitions[..]);
    let labels =
        |topic: &str, number: i32| [("topic", topic.to_owned()), ("partition", number.to_string())];
    let assigned = snapshot
        .sources
        .iter()
        .filter_map(|(name, source)| Some(([("source", name.as_str())], source.assigned?)));
    let help = "Partitions assigned to this instance; for JetStream its consumers";
    out.gauges("assigned_partitions", help, NONE, assigned)?;
    let lag = partitions.iter().filter_map(|p| Some((labels(&p.topic, p.number), p.lag?)));
    let help = "Records between the committed offset and the end of the partition";
    out.gauges("kafka_lag_records", help, NONE, lag)?;
    let committed =
        partitions.iter().filter_map(|p| Some((labels(&p.topic, p.number), p.committed?)));
    let help = "The offset that this instance last committed";
    out.gauges("kafka_committed_offset", help, NONE, committed)
}

fn jetstream(out: &mut Out<'_>, snapshot: &Snapshot) -> Result<(), Error> {
    let jetstream = snapshot.sources.get("jetstream");
    let consumers = jetstream.map_or(&[][..], |jetstream| &jetstream.partitions[..]);
    let labels = |name: &str| {
        let (stream, consumer) = name.split_once('/').unwrap_or((name, ""));
        [("stream", stream.to_owned()), ("consumer", consumer.to_owned())]
    };
    let lag = consumers.iter().filter_map(|c| Some((labels(&c.topic), c.lag?)));
    let help = "Records of the stream that the consumer has not delivered yet";
    out.gauges("jetstream_lag_records", help, NONE, lag)?;
    let floor = consumers.iter().filter_map(|c| Some((labels(&c.topic), c.committed?)));
    let help = "Everything up to this sequence of the stream is acknowledged, or kept as done";
    out.gauges("jetstream_ack_floor_sequence", help, NONE, floor)
}

fn writers(out: &mut Out<'_>, snapshot: &Snapshot) -> Result<(), Error> {
    let writers = || snapshot.writers.iter();
    let rows = writers().map(|(name, w)| ([("writer", name.as_str())], w.inserted));
    out.counters("rows_inserted", "Rows durable in ClickHouse", NONE, rows)?;
    let inserts = writers().flat_map(|(name, writer)| {
        [(true, writer.inserts), (false, writer.failed_inserts)]
            .map(|(ok, count)| ([("writer", name.as_str()), ("result", result_name(ok))], count))
    });
    out.counters("inserts", "Attempts to insert a batch", NONE, inserts)?;
    let held = writers().flat_map(|(name, writer)| {
        [("open", writer.buffered), ("in_flight", writer.in_flight)]
            .map(|(state, rows)| ([("writer", name.as_str()), ("state", state)], rows))
    });
    let help = "Rows in open batches, and in batches cut and not yet durable";
    out.gauges("writer_rows", help, NONE, held)?;
    let letters =
        snapshot.dead_letters.by_reason.iter().map(|((route, reason), count)| {
            ([("route", route.as_str()), ("reason", *reason)], *count)
        });
    out.counters("dead_letters", "Records refused, by route and reason code", NONE, letters)?;
    let pending = snapshot.dead_letters.pending;
    out.gauge("dead_letters_pending", "Dead letters not durable yet", NONE, pending)
}

/// The same sum as that of a source, over all sources.
fn route_accounts(out: &mut Out<'_>, snapshot: &Snapshot) -> Result<(), Error> {
    let by_route = |value: fn(&RouteStatus) -> u64| {
        snapshot.routes.iter().map(move |(name, r)| ([("route", name.as_str())], value(r)))
    };
    let received = by_route(|r| r.received);
    out.counters("route_records_received", "Records that took the route", NONE, received)?;
    let help = "Records of the route durable in its table";
    out.counters("route_records_inserted", help, NONE, by_route(|r| r.inserted))?;
    let help = "Records of the route durable among the dead letters";
    out.counters("route_records_dead_lettered", help, NONE, by_route(|r| r.dead_lettered))?;
    let help = "Records of the route counted and not stored";
    out.counters("route_records_filtered", help, NONE, by_route(|r| r.filtered))?;
    let help = "Records of the route lost";
    out.counters("route_records_dropped", help, NONE, by_route(|r| r.dropped))?;
    let help = "Records of the route handed back to their source; they come again";
    out.counters("route_records_released", help, NONE, by_route(|r| r.released))?;
    let held = by_route(|r| u64::try_from(r.held).unwrap_or(u64::MAX));
    out.gauges("route_held_records", "Records of the route held", NONE, held)?;
    let gaps = snapshot.routes.iter().map(|(name, r)| ([("route", name.as_str())], r.gap()));
    let help = "As data_bridge_accounting_gap, by route";
    out.gauges("route_accounting_gap", help, NONE, gaps)
}

/// Of routes that promise exactly once.
fn windows(out: &mut Out<'_>, snapshot: &Snapshot) -> Result<(), Error> {
    let of = |(name, route): (&'_ String, &RouteStatus)| Some((name.clone(), route.window?));
    let windows: Vec<_> = snapshot.routes.iter().filter_map(of).collect();
    let entries = windows.iter().map(|(name, w)| ([("route", name.as_str())], w.entries));
    let help = "Inserts that the route's table recognises when they are repeated";
    out.gauges("deduplication_window_entries", help, NONE, entries)?;
    let covers = windows
        .iter()
        .filter_map(|(name, w)| Some(([("route", name.as_str())], w.covers_seconds?)));
    let help = "How long an outage the deduplication window covers at the rate of now";
    out.gauges("deduplication_window", help, SECONDS, covers)
}

fn routes(out: &mut Out<'_>, snapshot: &Snapshot) -> Result<(), Error> {
    windows(out, snapshot)?;
    let rounded = snapshot.routes.iter().map(|(name, r)| ([("route", name.as_str())], r.rounded));
    let help = "Values rounded to the scale or precision of their column";
    out.counters("rounded_values", help, NONE, rounded)?;
    let states = snapshot.routes.iter().flat_map(|(name, route)| {
        let state = route.state.name();
        RouteState::NAMES
            .map(|each| ([("route", name.as_str()), ("state", each)], u64::from(each == state)))
    });
    out.gauges("route_state", "1 for the state the route is in", NONE, states)?;
    let held_back = snapshot
        .routes
        .iter()
        .map(|(name, r)| ([("route", name.as_str())], u64::from(r.held_back)));
    let help = "1 while the route takes nothing: its table is broken and holds its share";
    out.gauges("route_held_back", help, NONE, held_back)?;
    let limited = snapshot.routes.iter();
    let limits =
        limited.filter_map(|(name, r)| Some(([("route", name.as_str())], r.current_rate_limit?)));
    let help = "Records per second that the route may take; none without a limit";
    out.gauges("route_current_rate_limit", help, NONE, limits)
}
