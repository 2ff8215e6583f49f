//! The tables of the pages, from what the bridge told. Pure.

use jiff::tz::TimeZone;

use super::known::Known;
use super::lines::{Section, Tone, count, millis, per_second, time_of_day, words};
use super::told::{Breaker, Endpoint, Health, Letter, Route, Source, Webhook, Writer};
use crate::status::float;

/// More subjects than these help nobody; the rest is in `/health`.
const SUBJECTS: usize = 4;

fn health(known: &Known) -> Option<&Health> {
    known.now.as_ref().map(|now| &now.health)
}

pub(super) fn flow(known: &Known, zone: &TimeZone) -> Vec<Section> {
    vec![sources(known), writers(known), clickhouse(known, zone), routes(known)]
}

pub(super) fn losses(known: &Known, zone: &TimeZone) -> Vec<Section> {
    vec![letters(known, zone), drops(known)]
}

/// Who is told of alerts, and whether it hears of them.
pub(super) fn receivers(known: &Known, zone: &TimeZone) -> Section {
    let all = health(known).into_iter().flat_map(|health| &health.webhooks);
    Section {
        title: "Receivers of alerts",
        note: "",
        numbers: 2..4,
        header: &["receiver", "to", "delivered", "failed", "the last message"],
        rows: all.map(|webhook| of_receiver(webhook, zone)).collect(),
        none: "None is configured: nobody is told but the log.",
    }
}

fn of_receiver(webhook: &Webhook, zone: &TimeZone) -> (Tone, Vec<String>) {
    let Webhook { name, kind, to, state, since, reason, sent, failed } = webhook;
    let since = since.as_deref().and_then(|at| at.parse().ok());
    let since = since.map(|at| format!("since {}", time_of_day(at, zone))).unwrap_or_default();
    let (tone, last) = match state.as_str() {
        "refused" => {
            let why = reason.as_deref().unwrap_or("it was not taken");
            (Tone::Bad, format!("refused {since}: {why}"))
        }
        "delivered" => (Tone::Well, format!("delivered {since}")),
        _ => (Tone::Well, "nothing was to be told yet".to_owned()),
    };
    (tone, vec![format!("{name} ({kind})"), to.clone(), count(*sent), count(*failed), last])
}

fn sources(known: &Known) -> Section {
    let all = health(known).into_iter().flat_map(|health| &health.metrics.sources);
    let rows = all.map(|(name, source)| {
        let rate = known.rate(|health| Some(float(health.metrics.sources.get(name)?.received)));
        let refused =
            known.rate(|health| health.metrics.sources.get(name)?.refused_requests.map(float));
        let (tone, state) = state_of_source(source, refused.is_some_and(|rate| rate > 0.0));
        let dropped: u64 =
            source.dropped_by_reason.values().flat_map(|reasons| reasons.values()).sum();
        let cells = vec![
            name.clone(),
            per_second(rate),
            count(source.received),
            count(source.held),
            count(source.lag.and_then(|lag| u64::try_from(lag).ok())),
            count(source.uncommitted),
            count(dropped),
            count(source.released),
            state,
        ];
        (tone, cells)
    });
    Section {
        title: "Sources",
        note: "",
        numbers: 1..8,
        header: &[
            "source",
            "in",
            "received",
            "held",
            "lag",
            "uncommitted",
            "dropped",
            "released",
            "state",
        ],
        rows: rows.collect(),
        none: "No source is configured.",
    }
}

/// Whether it refuses publishers now.
fn state_of_source(source: &Source, refuses: bool) -> (Tone, String) {
    if !source.connected {
        let why = source.error.as_deref().unwrap_or("not connected yet");
        return (Tone::Bad, format!("away: {why}"));
    }
    if source.paused {
        return (Tone::Look, "paused".to_owned());
    }
    if !source.held_topics.is_empty() {
        return (Tone::Look, format!("waits: {}", source.held_topics.join(", ")));
    }
    if let Some(error) = &source.error {
        return (Tone::Look, error.clone());
    }
    let refused = source.refused_requests.unwrap_or_default();
    if refuses {
        return (Tone::Look, format!("refuses publishers: {} requests so far", count(refused)));
    }
    if refused > 0 {
        return (Tone::Well, format!("reading; {} requests were refused", count(refused)));
    }
    let partitions = source.assigned.map(|n| format!(", {n} partitions")).unwrap_or_default();
    (Tone::Well, format!("reading{partitions}"))
}

fn writers(known: &Known) -> Section {
    let all = health(known).into_iter().flat_map(|health| &health.metrics.writers);
    let rows = all.map(|(name, writer)| {
        let of = |value: fn(&Writer) -> f64| {
            move |health: &Health| health.metrics.writers.get(name).map(value)
        };
        let takes = known.insert_takes(of(|w| float(w.inserts)), of(|w| w.insert_seconds));
        let cells = vec![
            name.clone(),
            per_second(known.rate(of(|writer| float(writer.inserted)))),
            count(writer.inserted),
            count(writer.buffered),
            count(writer.in_flight),
            millis(takes),
            count(writer.inserts),
            count(writer.failed_inserts),
        ];
        (if writer.failed_inserts > 0 { Tone::Look } else { Tone::Well }, cells)
    });
    Section {
        title: "Writers",
        note: "",
        numbers: 1..8,
        header: &[
            "writer",
            "out",
            "stored",
            "open rows",
            "in flight",
            "an insert",
            "inserts",
            "failed",
        ],
        rows: rows.collect(),
        none: "No writer is configured.",
    }
}

fn clickhouse(known: &Known, zone: &TimeZone) -> Section {
    let metrics = health(known).map(|health| &health.metrics);
    let breaker = metrics.map(|metrics| of_breaker(&metrics.breaker, zone));
    let servers = metrics.into_iter().flat_map(|metrics| &metrics.endpoints).map(of_server);
    Section {
        title: "ClickHouse",
        note: "",
        numbers: 3..3,
        header: &["what", "state", "more"],
        rows: breaker.into_iter().chain(servers).collect(),
        none: "Nothing is known of it yet.",
    }
}

fn of_breaker(breaker: &Breaker, zone: &TimeZone) -> (Tone, Vec<String>) {
    let Breaker { state, failures, openings, rejects, probe_at, reason } = breaker;
    let history = match (failures, openings) {
        (0, 0) => "never opened".to_owned(),
        _ => format!(
            "{failures} failures in a row, opened {openings} times, {rejects} batches waited"
        ),
    };
    let (tone, state) = match state.as_str() {
        "closed" => (Tone::Well, "closed: inserts go".to_owned()),
        _ => {
            let next = match probe_at.as_deref().and_then(|at| at.parse().ok()) {
                Some(at) => format!("the next try at {}", time_of_day(at, zone)),
                None => "a try is under way".to_owned(),
            };
            (Tone::Bad, format!("open: {}; {next}", reason.as_deref().unwrap_or("no answer")))
        }
    };
    (tone, vec!["breaker".to_owned(), state, history])
}

fn of_server(server: &Endpoint) -> (Tone, Vec<String>) {
    let (tone, state) = match (server.healthy, &server.reason) {
        (true, _) => (Tone::Well, "answers".to_owned()),
        (false, reason) => {
            (Tone::Bad, format!("away: {}", reason.as_deref().unwrap_or("no answer")))
        }
    };
    let waits = match server.unclear_inserts {
        0 => String::new(),
        inserts => format!("{inserts} inserts wait: it alone knows whether they landed"),
    };
    (tone, vec![server.url.clone(), state, waits])
}

fn routes(known: &Known) -> Section {
    let all = health(known).into_iter().flat_map(|health| &health.metrics.routes);
    let rows = all.map(|(name, route)| {
        let rate = known.rate(|health| Some(float(health.metrics.routes.get(name)?.received)));
        let guarantees = route.guarantees.iter();
        let guarantees: Vec<String> =
            guarantees.map(|(source, how)| format!("{source} {}", words(how))).collect();
        let (tone, state) = state_of_route(route);
        let cells = vec![
            format!("{name} → {}", route.table.as_deref().unwrap_or("counted only")),
            per_second(rate),
            count(route.inserted),
            count(route.held),
            count(route.dead_lettered),
            count(route.dropped),
            guarantees.join(", "),
            state,
        ];
        (tone, cells)
    });
    Section {
        title: "Routes",
        note: "",
        numbers: 1..6,
        header: &[
            "route → table",
            "in",
            "stored",
            "held",
            "letters",
            "dropped",
            "guarantee",
            "state",
        ],
        rows: rows.collect(),
        none: "No route is configured.",
    }
}

fn state_of_route(route: &Route) -> (Tone, String) {
    let tone = match route.state.as_str() {
        "awaiting_fix" => Tone::Bad,
        "retrying" => Tone::Look,
        _ if route.held_back => Tone::Look,
        _ => Tone::Well,
    };
    let waits = route.held_back.then_some("takes nothing");
    let why: Vec<&str> = waits.into_iter().chain(route.reason.as_deref()).collect();
    let why = if why.is_empty() { String::new() } else { format!(": {}", why.join("; ")) };
    (tone, format!("{}{why}", words(&route.state)))
}

fn letters(known: &Known, zone: &TimeZone) -> Section {
    let newest = known.now.as_ref().map(|now| now.letters.as_slice()).unwrap_or_default();
    let all = health(known).into_iter().flat_map(|health| &health.metrics.dead_letters_by_reason);
    let rows = all.flat_map(|(route, reasons)| {
        reasons.iter().map(move |(reason, letters)| {
            let sample = newest.iter().find(|one| one.route == *route && one.reason == *reason);
            let sample = sample.map(|letter| of_letter(letter, zone)).unwrap_or_default();
            (Tone::Look, vec![route.clone(), count(*letters), words(reason), sample])
        })
    });
    Section {
        title: "Dead letters",
        note: "kept with their payload: data-bridge dead-letters list",
        numbers: 1..2,
        header: &["route", "count", "reason", "the newest"],
        rows: rows.collect(),
        none: "None: every record fitted its table.",
    }
}

fn of_letter(letter: &Letter, zone: &TimeZone) -> String {
    let at = letter.time.parse().ok().map(|at| time_of_day(at, zone)).unwrap_or_default();
    let place = match (letter.partition, letter.offset) {
        (Some(partition), Some(offset)) => format!(" [{partition}] @{offset}"),
        _ => String::new(),
    };
    format!("{}: {at} {}{place}", letter.why, letter.topic_or_subject)
}

fn drops(known: &Known) -> Section {
    let all = health(known).into_iter().flat_map(|health| &health.metrics.sources);
    let rows = all.flat_map(|(name, source)| {
        let by_reason = source.dropped_by_reason.iter().flat_map(move |(class, reasons)| {
            reasons.iter().filter(|(_, records)| **records > 0).map(move |(reason, records)| {
                let of = format!("{name}, class {class}");
                (Tone::Look, vec![of, count(*records), words(reason), String::new()])
            })
        });
        // Of which subjects they were is known of all together.
        let all: u64 = source.dropped_subjects.values().sum();
        let in_all = vec![format!("{name}, in all"), count(all), String::new(), most_of(source)];
        by_reason.chain((all > 0).then_some((Tone::Look, in_all)))
    });
    Section {
        title: "Dropped",
        note: "lost for good, and counted",
        numbers: 1..2,
        header: &["source and class", "count", "reason", "most of them from"],
        rows: rows.collect(),
        none: "None.",
    }
}

fn most_of(source: &Source) -> String {
    let mut subjects: Vec<_> = source.dropped_subjects.iter().collect();
    subjects.sort_by_key(|(_, records)| std::cmp::Reverse(**records));
    let most = subjects.iter().take(SUBJECTS);
    let most: Vec<String> =
        most.map(|(subject, records)| format!("{subject} {}", count(**records))).collect();
    most.join(", ")
}
