//! Shows a report, for a terminal of 100 columns and for a log: no colours. Pure.

use comfy_table::{ContentArrangement, Table, presets};

use super::compare::{Grade, Report, RouteLine, Verdict};

const COLUMNS: u16 = 100;

const KAFKA: &str = "at least once";
const JETSTREAM: &str = "at least once";
const NATS: &str = "at most once";

pub(super) fn render(report: &Report) -> String {
    let mut text = format!("{}\n\n{}\n", servers(report), routes(report));
    for (words, why) in guarantees(report) {
        text.push('\n');
        text.push_str(&listed(&[(words.to_owned(), why.to_owned())]));
    }
    text.push('\n');
    if !report.problems.is_empty() {
        let numbered = report.problems.iter().enumerate();
        let lines: Vec<_> =
            numbered.map(|(index, text)| (format!("{}.", index + 1), text.clone())).collect();
        text.push_str(&format!("\nProblems\n{}\n", listed(&lines)));
    }
    if !report.notes.is_empty() {
        let lines: Vec<_> =
            report.notes.iter().map(|text| ("-".to_owned(), text.clone())).collect();
        text.push_str(&format!("\nNotes\n{}\n", listed(&lines)));
    }
    text.push_str(&format!("\n{}\n", summary(report)));
    text
}

fn table() -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_content_arrangement(ContentArrangement::Dynamic).set_width(COLUMNS);
    table
}

/// Two blanks between the columns.
fn shown(mut table: Table) -> String {
    let last = table.column_count().saturating_sub(1);
    for (index, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, if index == last { 0 } else { 2 }));
    }
    table.trim_fmt()
}

fn listed(lines: &[(String, String)]) -> String {
    let mut table = table();
    for (mark, text) in lines {
        table.add_row([mark, text]);
    }
    shown(table)
}

fn servers(report: &Report) -> String {
    let mut table = table();
    table.set_header(["CHECK", "SERVER", "ADDRESS", "SAYS"]);
    for server in &report.servers {
        let verdict = word(&server.verdict);
        table.add_row([&verdict, server.name, &server.address, &server.says]);
    }
    shown(table)
}

/// Two lines a route, so that the names of the profile fit side by side: the table stands below
/// the route, the second source below the first.
fn routes(report: &Report) -> String {
    let mut table = table();
    table.set_header(["CHECK", "ROUTE → TABLE", "CLASS", "FROM", "GUARANTEE"]);
    for route in &report.routes {
        let mut sources = sources(route).into_iter();
        let (from, guarantee) = sources.next().unwrap_or_default();
        table.add_row([&word(&route.verdict), &route.name, &route.class, &from, guarantee]);
        let (from, guarantee) = sources.next().unwrap_or_default();
        table.add_row(["", &format!("→ {}", route.into), "", &from, guarantee]);
        for (from, guarantee) in sources {
            table.add_row(["", "", "", &from, guarantee]);
        }
    }
    shown(table)
}

/// Where the records come from, and how sure that is.
fn sources(route: &RouteLine) -> Vec<(String, &'static str)> {
    let jetstream = ("jetstream", &route.jetstream, JETSTREAM);
    [("kafka", &route.kafka, KAFKA), jetstream, ("nats ", &route.nats, NATS)]
        .into_iter()
        .filter(|(_, names, _)| !names.is_empty())
        .map(|(kind, names, guarantee)| (format!("{kind} {}", names.join(", ")), guarantee))
        .collect()
}

/// `ok`, or what is the matter and the numbers of the problems that say why.
fn word(verdict: &Verdict) -> String {
    let word = match verdict.grade {
        Grade::Well => return "ok".to_owned(),
        Grade::Waits => "wait",
        Grade::Unknown => "?",
        Grade::Wrong => "fix",
    };
    let numbers: Vec<String> = verdict.problems.iter().map(ToString::to_string).collect();
    format!("{word} {}", numbers.join(","))
}

/// Why a guarantee holds, and no other.
fn guarantees(report: &Report) -> Vec<(&'static str, &'static str)> {
    let mut all = Vec::new();
    if report.routes.iter().any(|route| !route.kafka.is_empty()) {
        all.push((
            KAFKA,
            "an offset is committed only when ClickHouse has acknowledged everything before it; \
             what was not committed before a crash comes again",
        ));
    }
    if report.routes.iter().any(|route| !route.jetstream.is_empty()) {
        all.push((
            JETSTREAM,
            "a record of a stream is acknowledged only when ClickHouse has acknowledged it; what \
             was not before a crash comes again after ack_wait",
        ));
    }
    if report.routes.iter().any(|route| !route.nats.is_empty()) {
        all.push((
            NATS,
            "core NATS keeps nothing: what is published while the bridge is away, paused or full \
             is lost; losses that the bridge can see are counted",
        ));
    }
    all
}

fn summary(report: &Report) -> String {
    let routes = report.routes.len();
    match report.problems.len() {
        0 => format!("All is well: {} servers, {routes} routes.", report.servers.len()),
        1 => "Not all is well: 1 problem.".to_owned(),
        count => format!("Not all is well: {count} problems."),
    }
}
