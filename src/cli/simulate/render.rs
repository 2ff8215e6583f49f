//! What came of the runs, and advice, for people and for scripts. Pure.

use comfy_table::Table;
use serde_json::json;

use super::super::table::{indented, list as list_of, numbers_to_the_right, shown, table};
use super::{Run, shown_bytes};
use crate::simulate::{Advice, Ages, Preset, Scenario, Summary};
use crate::thousands::thousands;

/// One point of the course in so many goes into JSON: one a second.
const EVERY: usize = 10;

pub(super) fn list(scenarios: &[Scenario]) -> String {
    let mut table = table();
    table.set_header(["SCENARIO", "WHAT HAPPENS"]);
    for scenario in scenarios {
        table.add_row([&scenario.name, &scenario.about]);
    }
    format!("{}\n", shown(table))
}

const LEGEND: &str = "\
WAITING: still with the source, which lost nothing. PEAK: the most that was in the buffer. AGE: how
long ago what was delivered had come. LIMIT: the mean of the second half. EVENTS: how often there
was no room.
";

pub(super) fn text(runs: &[Run]) -> String {
    let mut table = table();
    table.set_header([
        "RUN", "CAME", "TAKEN", "DROPPED", "WAITING", "PEAK", "AGE P50", "P99", "LIMIT", "EVENTS",
    ]);
    for run in runs {
        table.add_row(row(run));
    }
    let columns = table.column_count();
    numbers_to_the_right(&mut table, 1..columns);
    let table_of_remarks = list_of(runs.iter().flat_map(remarks));
    let remarks = match table_of_remarks.is_empty() {
        true => String::new(),
        false => format!("\n{}\n", shown(table_of_remarks)),
    };
    format!("\n{}\n\n{LEGEND}{remarks}", shown(table))
}

/// What the row of a run has no room for: why records were dropped, and what happened when.
fn remarks(run: &Run) -> Vec<(String, String)> {
    let Summary { events, dropped_by, .. } = &run.summary;
    let reasons = dropped_by.iter().map(|(why, count)| format!("{} {why}", thousands(*count)));
    let reasons = reasons.collect::<Vec<_>>().join(", ");
    let dropped = (!reasons.is_empty()).then(|| format!("dropped: {reasons}"));
    let happened = events.iter().map(|event| format!("{}: {}", at(event.seconds), event.text));
    dropped.into_iter().chain(happened).map(|text| (run.scenario.name.clone(), text)).collect()
}

fn at(seconds: f64) -> String {
    format!("{seconds:.1} s")
}

fn row(run: &Run) -> [String; 10] {
    let summary = &run.summary;
    let age = |of: fn(&Ages) -> u32| {
        summary.age_ms.as_ref().map_or("-".to_owned(), |ages| at(f64::from(of(ages)) / 1_000.0))
    };
    let limits: Vec<_> = summary.rate_limits.iter().map(|limit| format!("{limit:.0}")).collect();
    [
        run.scenario.name.clone(),
        thousands(summary.came),
        thousands(summary.delivered),
        thousands(summary.dropped),
        thousands(summary.waiting),
        thousands(summary.peak_depth),
        age(|ages| ages.p50),
        age(|ages| ages.p99),
        if limits.is_empty() { "-".to_owned() } else { format!("{}/s", limits.join("+")) },
        thousands(summary.backpressure_events),
    ]
}

pub(super) fn json(seed: u64, runs: &[Run]) -> String {
    let run = |run: &Run| {
        json!({
            "scenario": run.scenario.name,
            "about": run.scenario.about,
            "summary": run.summary,
            "course": run.simulation.points().iter().skip(EVERY - 1).step_by(EVERY)
                .collect::<Vec<_>>(),
        })
    };
    format!("{}\n", json!({ "seed": seed, "runs": runs.iter().map(run).collect::<Vec<_>>() }))
}

pub(super) fn advice(advice: &Advice) -> String {
    let Advice { needs, by_rate, by_burst, .. } = advice;
    let mut sums = table();
    sums.set_header(["", "RECORDS", "FROM"]);
    let delay = humantime::format_duration(needs.delay);
    let from = format!("{:.0}/s x {delay} x {}", needs.rate, needs.safety);
    sums.add_row(["by rate".to_owned(), thousands(*by_rate), from]);
    let (two, five) = (thousands(by_burst.0), thousands(by_burst.1));
    let from = format!("2 to 5 bursts of {}", thousands(needs.burst));
    sums.add_row(["by bursts".to_owned(), format!("{two} to {five}"), from]);
    let from = format!(
        "{} of memory: records of {}, twice",
        shown_bytes(advice.max_buffer_bytes),
        shown_bytes(needs.record_bytes)
    );
    sums.add_row(["the cap".to_owned(), thousands(advice.max_buffer_size), from]);
    let notes = advice.notes.iter().map(|note| ("-".to_owned(), note.clone()));
    format!(
        "{}\n\n{}\n\nLoads to begin with (--preset)\n{}\n\n{}",
        shown(sums),
        shown(list_of(notes)),
        indented(presets()),
        advice.snippet()
    )
}

fn presets() -> Table {
    let mut table = table();
    table.set_header(["PRESET", "RATE", "RECORD", "DELAY", "BURST", "CAP", "MEMORY"]);
    for preset in Preset::ALL {
        let needs = preset.needs();
        let advice = Advice::of(&needs);
        table.add_row([
            preset.name().to_owned(),
            format!("{:.0}/s", needs.rate),
            shown_bytes(needs.record_bytes),
            humantime::format_duration(needs.delay).to_string(),
            thousands(needs.burst),
            thousands(advice.max_buffer_size),
            shown_bytes(advice.max_buffer_bytes),
        ]);
    }
    table
}

pub(super) fn advice_json(advice: &Advice) -> String {
    let Advice { needs, .. } = advice;
    let json = json!({
        "rate": needs.rate,
        "record_bytes": needs.record_bytes,
        "delay_seconds": needs.delay.as_secs_f64(),
        "safety": needs.safety,
        "burst": needs.burst,
        "by_rate": advice.by_rate,
        "by_burst": [advice.by_burst.0, advice.by_burst.1],
        "max_buffer_size": advice.max_buffer_size,
        "pause_threshold": advice.pause_threshold,
        "resume_threshold": advice.resume_threshold,
        "max_buffer_bytes": advice.max_buffer_bytes,
        "batch_rows": advice.batch_rows,
        "linger_seconds": advice.linger.as_secs_f64(),
        "notes": advice.notes,
    });
    format!("{json}\n")
}
