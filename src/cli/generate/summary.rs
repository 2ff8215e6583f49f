//! What was sent, for people and for scripts.

use std::fmt::Write as _;
use std::time::Duration;

use indicatif::HumanCount;
use serde_json::json;

use crate::generate::{Counts, Plan, Tally};

pub(super) fn total(plan: &Plan, tally: &Tally) -> Counts {
    plan.streams.iter().map(|stream| tally.counts(stream)).fold(Counts::default(), |a, b| Counts {
        sent: a.sent + b.sent,
        bad: a.bad + b.bad,
        failed: a.failed + b.failed,
    })
}

pub(super) fn text(plan: &Plan, tally: &Tally, elapsed: Duration) -> String {
    let mut text = String::new();
    let mut line = |cells: [&str; 6]| {
        let [target, kind, sent, bad, failed, seqs] = cells;
        writeln!(text, "{target:<7} {kind:<9} {sent:>11} {bad:>6} {failed:>7}  {seqs}")
            .expect("a String takes every write");
    };
    line(["target", "kind", "sent", "bad", "failed", "_seq"]);
    for stream in &plan.streams {
        let counts = tally.counts(stream);
        line([
            stream.target.name(),
            stream.kind.name(),
            &HumanCount(counts.sent).to_string(),
            &counts.bad.to_string(),
            &counts.failed.to_string(),
            &format!("{}..{}", stream.first, stream.end() - 1),
        ]);
    }
    let sums = total(plan, tally);
    let seconds = elapsed.as_secs_f64();
    let rate = u64::try_from(u128::from(sums.sent) * 1_000 / elapsed.as_millis().max(1));
    line([
        "total",
        "",
        &HumanCount(sums.sent).to_string(),
        &sums.bad.to_string(),
        &sums.failed.to_string(),
        &format!("in {seconds:.1} s, {}/s", HumanCount(rate.unwrap_or(u64::MAX))),
    ]);
    text.trim_end().to_owned()
}

pub(super) fn json(plan: &Plan, tally: &Tally, elapsed: Duration, interrupted: bool) -> String {
    let streams: Vec<_> = plan
        .streams
        .iter()
        .map(|stream| {
            let counts = tally.counts(stream);
            json!({
                "target": stream.target.name(),
                "kind": stream.kind.name(),
                "seq_first": stream.first,
                "seq_last": stream.end() - 1,
                "sent": counts.sent,
                "bad": counts.bad,
                "failed": counts.failed,
                "expected_rows": plan.expected_rows(stream),
            })
        })
        .collect();
    let sums = total(plan, tally);
    json!({
        "seed": plan.recipe.seed,
        "revisions": plan.recipe.revisions,
        "bad_every": plan.recipe.bad_every,
        "seconds": elapsed.as_secs_f64(),
        "interrupted": interrupted,
        "sent": sums.sent,
        "bad": sums.bad,
        "failed": sums.failed,
        "streams": streams,
    })
    .to_string()
}
