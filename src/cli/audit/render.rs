//! Shows a report: one line a partition, a verdict, what to do. For a terminal of 100 columns and
//! for a log: no colours. Pure.

use comfy_table::CellAlignment;

use super::report::{AtMostOnce, Partition, Promise, Report, Route, Sequence, Verdict};
use crate::cli::table::{indented, list, table};
use crate::thousands::thousands;

pub(super) fn render(report: &Report) -> String {
    let mut text = String::new();
    for route in &report.routes {
        text.push_str(&self::route(route));
        text.push('\n');
    }
    if !report.at_most_once.is_empty() {
        text.push_str(AT_MOST_ONCE);
        text.push_str(&listed(report.at_most_once.iter().map(sequence)));
        text.push('\n');
    }
    if !report.notes.is_empty() {
        text.push_str("Notes\n");
        text.push_str(&listed(report.notes.iter().map(|note| ("-".to_owned(), note.clone()))));
        text.push('\n');
    }
    text + &summary(report)
}

const AT_MOST_ONCE: &str = "\
core NATS (at most once: without positions nothing can be proved; losses are counted)
";

/// An absent number may be lost, a dead letter, in another table, or replaced: it proves nothing.
fn sequence(of: &AtMostOnce) -> (String, String) {
    let route = format!("{} → {}", of.route, of.table);
    let Some(Sequence { first, last, rows, different, absent }) = &of.sequence else {
        return (route, "no producer's numbers (_seq) in its rows".to_owned());
    };
    let (from, to) = (thousands(*first), thousands(*last));
    let mut text = format!("_seq {from}-{to}: {} there", thousands(*different));
    if !absent.is_empty() {
        let count = thousands(absent.count());
        text.push_str(&format!(
            ", {count} not (lost, refused, in another table, or replaced by a row of their key): \
             {absent}"
        ));
    }
    if rows > different {
        text.push_str(&format!(", {} too many", many(rows - different, "row")));
    }
    (route, text)
}

fn route(route: &Route) -> String {
    let Route { route: name, table, promise, keeps, partitions, not_provable } = route;
    let promise = match promise {
        Promise::AtLeastOnce => "at least once",
        Promise::ExactlyOnce => "exactly once",
    };
    let Some(table) = table else { return format!("{name}: keeps {keeps}\n") };
    let mut text = format!("{name} → {table} ({promise}; keeps {keeps})\n");
    if !partitions.is_empty() {
        text.push_str(&lines(partitions));
    }
    let of_topics =
        not_provable.iter().map(|not| (not.topic.clone(), format!("not provable: {}", not.why)));
    let details: Vec<_> = partitions.iter().flat_map(details).chain(of_topics).collect();
    if !details.is_empty() {
        text.push('\n');
        text.push_str(&listed(details));
    }
    text
}

fn lines(partitions: &[Partition]) -> String {
    let mut table = table();
    table.set_header(["VERDICT", "PARTITION", "OFFSETS", "STORED", "LETTERS", "NO ROW", "TO COME"]);
    for column in table.column_iter_mut().skip(3) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    for partition in partitions {
        let offsets = if partition.from < partition.to {
            format!("{}..{}", thousands(partition.from), thousands(partition.to))
        } else {
            "none".to_owned()
        };
        table.add_row([
            word(partition).to_owned(),
            place(partition),
            offsets,
            thousands(partition.stored),
            thousands(partition.dead_lettered),
            thousands(partition.without_row.count()),
            thousands(partition.not_delivered),
        ]);
    }
    indented(table) + "\n"
}

fn word(partition: &Partition) -> &'static str {
    match partition.verdict {
        Verdict::Complete => "complete",
        Verdict::NotProven => "not proven",
        Verdict::Repeated => "REPEATED",
        Verdict::Missing => "MISSING",
    }
}

fn place(partition: &Partition) -> String {
    format!("{}/{}", partition.topic, partition.partition)
}

/// What a line has no room for.
fn details(partition: &Partition) -> Vec<(String, String)> {
    let missing = &partition.missing;
    let mut said = Vec::new();
    if !missing.is_empty() {
        said.push(format!("MISSING {}: offset {missing}", many(missing.count(), "record")));
    }
    said.extend(repeated(partition));
    let without = &partition.without_row;
    let kinds = [
        (without.no_record, "hold no record (a transaction's end, aborted, or compacted away)"),
        (without.tombstones, "are tombstones"),
        (without.superseded, "were replaced by a row of their key"),
    ];
    let kinds = kinds.iter().filter(|(count, _)| *count > 0);
    let kinds: Vec<String> =
        kinds.map(|(count, what)| format!("{} {what}", thousands(*count))).collect();
    if !kinds.is_empty() {
        said.push(format!("no row, and rightly so: {}", kinds.join(", ")));
    }
    said.extend(partition.unknown.iter().map(|unknown| match unknown.offsets.count() {
        0 => format!("not proven: {}", unknown.why),
        count => {
            format!("not proven, {}: {}: {}", many(count, "offset"), unknown.why, unknown.offsets)
        }
    }));
    let mut place = place(partition);
    said.into_iter().map(|text| (std::mem::take(&mut place), text)).collect()
}

fn repeated(partition: &Partition) -> Vec<String> {
    /// Of these few the JSON has more.
    const NAMED: usize = 8;
    let repeated = &partition.repeated;
    let fault = match partition.verdict {
        Verdict::Repeated => "REPEATED, although exactly once is promised",
        _ => "repeated, which is allowed here",
    };
    let mut said = Vec::new();
    if repeated.rows > 0 {
        let some = repeated.offsets.iter().take(NAMED);
        let some: Vec<String> =
            some.map(|(offset, rows)| format!("{offset} ({rows} rows)")).collect();
        let count = many(repeated.rows, "row");
        said.push(format!("{fault}, {count} too many: offset {}", some.join(", ")));
    }
    if repeated.both > 0 {
        let count = many(repeated.both, "offset");
        said.push(format!("{fault}: {count} with a row and a dead letter that was not replayed"));
    }
    said
}

fn many(count: u64, what: &str) -> String {
    format!("{} {what}{}", thousands(count), if count == 1 { "" } else { "s" })
}

fn listed(lines: impl IntoIterator<Item = (String, String)>) -> String {
    indented(list(lines)) + "\n"
}

fn summary(report: &Report) -> String {
    let partitions = || report.routes.iter().flat_map(|route| &route.partitions);
    let offsets: u64 = partitions().map(|p| p.to.abs_diff(p.from)).sum();
    let among = many(partitions().count() as u64, "partition");
    let looked = format!("{} in {among}", many(offsets, "offset"));
    let repeated: u64 = partitions().map(|p| p.repeated.rows + p.repeated.both).sum();
    let missing: u64 = partitions().map(|p| p.missing.count()).sum();
    match report.verdict {
        Verdict::Complete => format!("Complete: {looked}, each accounted for.\n"),
        Verdict::NotProven => {
            format!("Not proven: {looked}; nothing is known to be missing, not all is proved.\n")
        }
        Verdict::Repeated => format!("REPEATED: {} too many; {looked}.\n", many(repeated, "row")),
        Verdict::Missing => {
            format!("MISSING: {} of {looked}.\n{}", many(missing, "record"), remedy(report))
        }
    }
}

/// What to do about what is missing.
fn remedy(report: &Report) -> String {
    let partitions = || report.routes.iter().flat_map(|route| &route.partitions);
    let mut lines = vec![
        "These records were delivered and committed, the topic still has them, and neither their \
         table nor the dead letters have anything of them. To bring them back, stop the bridge, \
         reset its group to the first of them (kafka-consumer-groups.sh --reset-offsets), and start \
         it again: what follows them is then stored a second time.",
    ];
    if partitions().any(|p| p.missing.first() == Some(p.from)) {
        lines.push(
            "A partition lacks its first offsets: if the group began behind them, say where with \
             --offsets.",
        );
    }
    listed(lines.into_iter().map(|line| ("-".to_owned(), line.to_owned())))
}
