//! Shows a report, for a terminal of 100 columns and for a log: no colours. Pure.

use std::fmt::Write as _;

use comfy_table::{CellAlignment, Table};

use super::exact::span;
use super::report::{
    Exact, Figures, Finding, Grade, Kept, Report, RouteLine, Severity, TopicLine, Verdict,
};
use crate::cli::table::{list, shown, table};
use crate::thousands::thousands;

const ONCE: &str = "exactly once";
const LEAST: &str = "at least once";
const MOST: &str = "at most once";
const ANSWERED: &str = "as answered";

pub(super) fn render(report: &Report) -> String {
    let mut text = format!("{}\n\n{}\n", servers(report), routes(report));
    if !report.topics.is_empty() {
        write!(text, "\n{}\n", topics(&report.topics)).expect("a String takes everything");
    }
    if !report.tables.is_empty() {
        write!(text, "\n{}\n", tables(report)).expect("a String takes everything");
    }
    text.push('\n');
    let why: Vec<_> =
        guarantees(report).into_iter().map(|(is, why)| (is.to_owned(), why)).collect();
    writeln!(text, "{}", shown(list(why))).expect("a String takes everything");
    for route in report.routes.iter().filter(|route| route.exactly_once) {
        if let Some(exact) = &route.exact {
            text.push_str(&promised(route, exact));
        }
    }
    for (title, severity) in
        [("Problems", Severity::Error), ("Warnings", Severity::Warning), ("Notes", Severity::Info)]
    {
        text.push_str(&findings(report, title, severity));
    }
    write!(text, "\n{}\n", summary(report)).expect("a String takes everything");
    text
}

/// With the numbers in these columns under each other.
fn with_numbers(mut table: Table, columns: &[usize]) -> String {
    for index in columns {
        if let Some(column) = table.column_mut(*index) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    shown(table)
}

fn servers(report: &Report) -> String {
    let mut table = table();
    table.set_header(["CHECK", "SERVER", "ADDRESS", "SAYS"]);
    for server in &report.servers {
        let verdict = word(report, &server.verdict);
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
        let verdict = word(report, &route.verdict);
        table.add_row([&verdict, &route.name, &route.class, &from, guarantee]);
        let (from, guarantee) = sources.next().unwrap_or_default();
        let into = format!("→ {}", route.table.as_deref().unwrap_or("count"));
        table.add_row(["", &into, "", &from, guarantee]);
        for (from, guarantee) in sources {
            table.add_row(["", "", "", &from, guarantee]);
        }
    }
    shown(table)
}

/// Where the records come from, and how sure that is.
fn sources(route: &RouteLine) -> Vec<(String, &'static str)> {
    let kafka = if route.exactly_once { ONCE } else { LEAST };
    let jetstream = ("jetstream", &route.jetstream, LEAST);
    let published = route.publish.then(|| ("published".to_owned(), ANSWERED));
    [("kafka", &route.kafka, kafka), jetstream, ("nats ", &route.nats, MOST)]
        .into_iter()
        .filter(|(_, names, _)| !names.is_empty())
        .map(|(kind, names, guarantee)| (format!("{kind} {}", names.join(", ")), guarantee))
        .chain(published)
        .collect()
}

fn topics(topics: &[TopicLine]) -> String {
    let mut table = table();
    table.set_header(["TOPIC", "PARTITIONS", "RECORDS/S", "LAG", "KEPT FOR", "SAMPLED"]);
    for topic in topics {
        let pace = topic.pace.map_or_else(|| "?".to_owned(), |pace| format!("{pace:.1}"));
        let lag = topic.lag.map_or_else(|| "-".to_owned(), thousands);
        let kept = match topic.kept {
            Kept::Unknown => "?".to_owned(),
            Kept::Forever => "ever".to_owned(),
            Kept::For(kept) => span(kept),
        };
        let partitions = thousands(topic.partitions as u64);
        table.add_row([&topic.name, &partitions, &pace, &lag, &kept, &topic.sampled]);
    }
    with_numbers(table, &[1, 2, 3])
}

fn tables(report: &Report) -> String {
    let mut table = table();
    table.set_header(["TABLE", "ENGINE", "REMEMBERS", "PARTITION BY", "BEHIND VIEWS"]);
    for line in &report.tables {
        let views = match line.views {
            0 => "-".to_owned(),
            1 => "1 table".to_owned(),
            count => format!("{count} tables"),
        };
        let partition = if line.partition_key.is_empty() { "-" } else { &line.partition_key };
        table.add_row([&line.name, &line.engine, &line.remembers, partition, &views]);
    }
    shown(table)
}

/// `ok`, or what is the matter and the numbers of the findings that say why.
fn word(report: &Report, verdict: &Verdict) -> String {
    let word = match verdict.grade {
        Grade::Well => return "ok".to_owned(),
        Grade::Warned => "warn",
        Grade::Waits => "wait",
        Grade::Unknown => "?",
        Grade::Wrong => "fix",
    };
    let mut numbers: Vec<usize> =
        verdict.findings.iter().filter_map(|finding| report.number(*finding)).collect();
    numbers.sort_unstable();
    let numbers: Vec<String> = numbers.iter().map(ToString::to_string).collect();
    format!("{word} {}", numbers.join(","))
}

/// Why a guarantee holds, and no other.
fn guarantees(report: &Report) -> Vec<(&'static str, String)> {
    let mut all = Vec::new();
    let routes = || report.routes.iter();
    if routes().any(|route| route.exactly_once) {
        let why = "what is about to be inserted is noted with the offset first; after a crash the \
                   same records are sent again as the same insert, which ClickHouse recognises";
        all.push((ONCE, why.to_owned()));
    }
    if routes().any(|route| !route.kafka.is_empty() && !route.exactly_once) {
        let why = "an offset is committed only when ClickHouse has acknowledged everything before \
                   it; what was not committed before a crash comes again";
        all.push((LEAST, format!("{why}{}", possible(report))));
    }
    if routes().any(|route| !route.jetstream.is_empty()) {
        let why = "a record of a stream is acknowledged only when ClickHouse has acknowledged it; \
                   what was not before a crash comes again after ack_wait";
        all.push((LEAST, why.to_owned()));
    }
    if routes().any(|route| !route.nats.is_empty()) {
        let why = "core NATS keeps nothing: what is published while the bridge is away, paused or \
                   full is lost; losses that the bridge can see are counted";
        all.push((MOST, why.to_owned()));
    }
    if routes().any(|route| route.publish) {
        let why = "what was called durable is in ClickHouse, or a dead letter; what was only \
                   accepted is in memory, and lost if the bridge is killed";
        all.push((ANSWERED, why.to_owned()));
    }
    all
}

/// Which routes could promise more.
fn possible(report: &Report) -> String {
    let others = || {
        let routes = report.routes.iter().filter(|r| !r.exactly_once && !r.kafka.is_empty());
        routes.filter_map(|route| Some((route, route.exact.as_ref()?)))
    };
    let able: Vec<&str> = others()
        .filter(|(_, exact)| exact.is_possible())
        .map(|(route, _)| route.name.as_str())
        .collect();
    // Of the others those for which only their subjects stand in the way.
    let mixed = others().any(|(_, exact)| {
        let mut broken = exact.conditions.iter().filter(|condition| !condition.holds).peekable();
        broken.peek().is_some() && broken.all(|condition| condition.code == "core_nats")
    });
    let mut text = String::new();
    if !able.is_empty() {
        write!(text, ". Exactly once is possible for {}", able.join(", "))
            .expect("a String takes everything");
    }
    if mixed {
        text.push_str(
            ". Exactly once needs a route of its own for the topics, without core NATS subjects",
        );
    }
    text
}

/// The conditions of a route that promises exactly once, and what it costs.
fn promised(route: &RouteLine, exact: &Exact) -> String {
    let mut lines: Vec<(String, String)> = exact
        .conditions
        .iter()
        .map(|condition| {
            (if condition.holds { "ok" } else { "no" }.to_owned(), condition.says.clone())
        })
        .collect();
    if let Some(figures) = &exact.figures {
        lines.push(("-".to_owned(), figures_in_words(figures)));
    }
    format!("\nExactly once: {}\n{}\n", route.name, shown(list(lines)))
}

fn figures_in_words(figures: &Figures) -> String {
    let mut text = format!(
        "each of {} Kafka partitions is inserted by itself: at most {} rows an insert",
        figures.kafka_partitions,
        thousands(figures.rows_per_insert_max as u64)
    );
    match (figures.rows_per_insert, figures.entries_per_second, figures.window) {
        (Some(rows), ..) if figures.window_entries == 0 => {
            write!(text, ", about {rows:.0} at the observed pace; no outage is covered")
        }
        (Some(rows), Some(entries), Some(window)) => write!(
            text,
            ", about {rows:.0} at the observed pace; {entries:.1} of {} entries are used a second, \
             so that an outage of {} is covered",
            thousands(figures.window_entries),
            span(window)
        ),
        _ => write!(text, "; no record came in the last day, so that no pace is known"),
    }
    .expect("a String takes everything");
    text
}

/// Numbered where a line refers to them. SQL stands on lines of its own, whole, to be pasted.
fn findings(report: &Report, title: &str, severity: Severity) -> String {
    let of_severity = |(_, finding): &(usize, &Finding)| finding.severity == severity;
    let found: Vec<_> = report.findings.iter().enumerate().filter(of_severity).collect();
    if found.is_empty() {
        return String::new();
    }
    let mut text = format!("\n{title}\n");
    for (index, finding) in found {
        let mark = report.number(index).map_or_else(|| "-".to_owned(), |n| format!("{n}."));
        let indent = " ".repeat(mark.chars().count() + 2);
        text.push_str(&shown(list([(mark, finding.text.clone())])));
        text.push('\n');
        for sql in &finding.sql {
            writeln!(text, "{indent}  {sql};").expect("a String takes everything");
        }
    }
    text
}

fn summary(report: &Report) -> String {
    let counted = |count: usize, one: &str| match count {
        1 => format!("1 {one}"),
        count => format!("{} {one}s", thousands(count as u64)),
    };
    let warnings = report.count(Severity::Warning);
    let also = match warnings {
        0 => String::new(),
        count => format!(", {}", counted(count, "warning")),
    };
    match report.count(Severity::Error) {
        0 => format!(
            "All is well: {}, {}{also}.",
            counted(report.servers.len(), "server"),
            counted(report.routes.len(), "route"),
        ),
        count => format!("Not all is well: {}{also}.", counted(count, "problem")),
    }
}
