//! The report for machines. Its shape is described in `docs/check.md`: keys are added, none is
//! renamed while `format` is 1. Pure.

use serde_json::{Value, json};

use super::report::{Exact, Figures, Grade, Kept, Report, RouteLine, Sample, Severity};

pub(super) fn json(report: &Report) -> String {
    let findings: Vec<Value> = (0..report.findings.len()).map(|i| finding(report, i)).collect();
    let exit_code = report.exit_code();
    let value = json!({
        "format": 1,
        "verdict": match exit_code { 0 => "ok", 1 => "mismatch", _ => "unreachable" },
        "exit_code": exit_code,
        "servers": report.servers.iter().map(|server| json!({
            "name": server.name,
            "address": server.address,
            "state": state(server.verdict.grade),
            "says": server.says,
            "findings": server.verdict.findings,
        })).collect::<Vec<_>>(),
        "routes": report.routes.iter().map(route).collect::<Vec<_>>(),
        "topics": report.topics.iter().map(|topic| json!({
            "name": topic.name,
            "partitions": topic.partitions,
            "records_per_second": topic.pace,
            "lag": topic.lag,
            "kept_seconds": match topic.kept { Kept::For(kept) => Some(kept.as_secs()), _ => None },
            "kept_forever": topic.kept == Kept::Forever,
        })).collect::<Vec<_>>(),
        "tables": report.tables.iter().map(|table| json!({
            "name": table.name,
            "engine": table.engine,
            "remembers": table.remembers,
            "partition_key": table.partition_key,
            "tables_behind_views": table.views,
        })).collect::<Vec<_>>(),
        "findings": findings,
    });
    format!("{value:#}\n")
}

fn finding(report: &Report, index: usize) -> Value {
    let finding = &report.findings[index];
    let routes: Vec<&str> =
        finding.routes.iter().map(|route| report.routes[*route].name.as_str()).collect();
    json!({
        "code": finding.code,
        "severity": match finding.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
            Severity::Info => "info",
        },
        "text": finding.text,
        "sql": finding.sql,
        "routes": routes,
    })
}

const fn state(grade: Grade) -> &'static str {
    match grade {
        Grade::Well => "ok",
        Grade::Warned => "warned",
        Grade::Waits => "waits",
        Grade::Unknown => "unknown",
        Grade::Wrong => "wrong",
    }
}

fn route(route: &RouteLine) -> Value {
    let kept = if route.exactly_once { "exactly_once" } else { "at_least_once" };
    let source = |kind: &str, names: &[String], guarantee: &str| {
        (!names.is_empty()).then(|| json!({ "kind": kind, "names": names, "guarantee": guarantee }))
    };
    let sources: Vec<Value> = [
        source("kafka", &route.kafka, kept),
        source("jetstream", &route.jetstream, kept),
        source("nats", &route.nats, "at_most_once"),
        route
            .publish
            .then(|| json!({ "kind": "live", "names": [route.name], "guarantee": "as_answered" })),
    ]
    .into_iter()
    .flatten()
    .collect();
    json!({
        "name": route.name,
        "class": route.class,
        "table": route.table,
        "state": state(route.verdict.grade),
        "sources": sources,
        "findings": route.verdict.findings,
        "sample": route.sample.as_ref().map(sample),
        "exactly_once": route.exact.as_ref().map(|exact| exactly_once(exact, route.exactly_once)),
    })
}

fn sample(sample: &Sample) -> Value {
    json!({
        "records": sample.records,
        "land": sample.land,
        "tombstones": sample.tombstones,
        "dead_letters": sample.letters.iter().map(|letters| json!({
            "reason": letters.reason, "count": letters.count, "first_error": letters.error,
        })).collect::<Vec<_>>(),
        "rounded_values": sample.rounded,
        "unused_keys": sample.unused_keys.iter().map(|(key, count)| json!({
            "key": key, "records": count,
        })).collect::<Vec<_>>(),
        "unfilled_columns": sample.unfilled.iter().map(|(column, instead)| json!({
            "column": column, "stored_instead": instead,
        })).collect::<Vec<_>>(),
        "record_bytes": sample.record_bytes,
        "table_partitions": sample.partitions,
    })
}

fn exactly_once(exact: &Exact, promised: bool) -> Value {
    json!({
        "promised": promised,
        "possible": exact.is_possible(),
        "conditions": exact.conditions.iter().map(|condition| json!({
            "code": condition.code,
            "holds": condition.holds,
            "text": condition.says,
            "sql": condition.sql,
        })).collect::<Vec<_>>(),
        "figures": exact.figures.as_ref().map(figures),
    })
}

fn figures(figures: &Figures) -> Value {
    json!({
        "kafka_partitions": figures.kafka_partitions,
        "rows_per_insert_max": figures.rows_per_insert_max,
        "rows_per_insert": figures.rows_per_insert,
        "window_entries": figures.window_entries,
        "window_entries_per_second": figures.entries_per_second,
        "window_covers_seconds": figures.window.map(|window| window.as_secs()),
    })
}
