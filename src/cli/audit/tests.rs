//! The verdicts and how they are shown, without servers.

use std::ops::Range;

use proptest::prelude::*;

use super::judge::{Asked, Case, Read};
use super::plan::plan;
use super::ranges::Ranges;
use super::render::render;
use super::report::{Partition, Promise, Report, Route, Unknown, Verdict};
use super::{offsets, since};
use crate::config::{self, Config};
use crate::sink::clickhouse::Held;
use crate::source::Extent;
use crate::source::kafka::probe::Cluster;

const ALL: Asked = Asked { offsets: None, from_the_beginning: true, exactly_once: false };

fn place(low: i64, end: i64, committed: Option<i64>) -> Extent {
    Extent { topic: "ticks".to_owned(), number: 3, low, end, committed, since: None }
}

fn held(offsets: Ranges) -> Held {
    let count = offsets.count();
    let stretches = offsets.iter().collect();
    Held { stretches, rows: count, stored: count, ..Held::default() }
}

fn all(offsets: Range<i64>) -> Held {
    held(Ranges::one(offsets))
}

/// Nothing was open, or nothing was read.
fn judged(place: Extent, held: Held, read: Option<Read>, asked: &Asked) -> Partition {
    let case = Case::new(place.clone(), held, asked);
    case.judged(read, &place, asked)
}

#[test]
fn what_is_not_committed_is_not_missing() {
    let partition = judged(place(0, 90, Some(50)), all(0..50), Some(Read::default()), &ALL);
    assert_eq!(partition.verdict, Verdict::Complete);
    assert_eq!((partition.from, partition.to, partition.not_delivered), (0, 50, 40));
}

#[test]
fn without_a_commit_nothing_was_promised_and_rows_are_a_riddle() {
    let none = judged(place(0, 90, None), Held::default(), Some(Read::default()), &ALL);
    assert_eq!((none.verdict, none.not_delivered), (Verdict::Complete, 90));
    let some = judged(place(0, 90, None), all(0..9), Some(Read::default()), &ALL);
    assert_eq!(some.verdict, Verdict::NotProven);
    assert!(some.unknown[0].why.contains("9 of its offsets"), "{some:?}");
    let asked = Asked { offsets: Some(0..9), ..ALL };
    let said = judged(place(0, 90, None), all(0..9), Some(Read::default()), &asked);
    assert_eq!((said.verdict, said.to), (Verdict::Complete, 9));
}

#[test]
fn a_group_that_began_at_the_end_of_its_time_owes_nothing_before_its_first_row() {
    let latest = Asked { from_the_beginning: false, ..ALL };
    let partition = judged(place(0, 90, Some(80)), all(30..80), Some(Read::default()), &latest);
    assert_eq!((partition.verdict, partition.from), (Verdict::Complete, 30));
}

#[test]
fn a_topic_that_was_made_anew_proves_nothing() {
    let anew = judged(place(0, 10, Some(80)), all(0..80), Some(Read::default()), &ALL);
    assert_eq!(anew.verdict, Verdict::NotProven);
    assert!(anew.unknown[0].why.contains("beyond the end"), "{anew:?}");
}

#[test]
fn a_repeated_row_is_a_fault_only_where_exactly_once_is_promised() {
    let twice = || Held { rows: 12, ..all(0..10) };
    let of = |asked| judged(place(0, 10, Some(10)), twice(), Some(Read::default()), asked).verdict;
    assert_eq!(of(&ALL), Verdict::Complete);
    assert_eq!(of(&Asked { exactly_once: true, ..ALL }), Verdict::Repeated);
}

/// What became of an offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Row,
    Lost,
    Tombstone,
    Superseded,
    NoRecord,
}

fn fate() -> impl Strategy<Value = Fate> {
    prop_oneof![
        12 => Just(Fate::Row),
        1 => Just(Fate::Lost),
        1 => Just(Fate::Tombstone),
        1 => Just(Fate::Superseded),
        2 => Just(Fate::NoRecord),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(10_000))]

    /// Whatever became of the offsets: each is counted once, what is lost is named exactly, and
    /// complete is said only when nothing is lost and nothing unknown.
    #[test]
    fn every_offset_is_accounted_for_once(
        fates in prop::collection::vec(fate(), 1..60), low in 0..60_usize, retained in 0..9_usize,
        committed in 0..60_usize, is_read in any::<bool>(),
    ) {
        let end = i64::try_from(fates.len()).unwrap();
        let at = |n: usize| i64::try_from(n).unwrap().min(end);
        let (low, committed) = (at(low), at(committed));
        // Retention goes on while the topic is read.
        let now = Extent { low: at(retained).max(low), ..place(low, end, Some(committed)) };
        let of = |wanted: Fate| -> Ranges {
            let all = (0..).zip(&fates).filter(move |(_, fate)| **fate == wanted);
            all.map(|(offset, _)| offset..offset + 1).collect()
        };
        let rows = of(Fate::Row).within(0..committed);
        let case = Case::new(place(low, end, Some(committed)), held(rows), &ALL);
        let open = case.open.clone();
        // The topic answers for what it still has when it is read.
        let within = |fate| of(fate).within(now.low..committed);
        let records: Ranges = [Fate::Lost, Fate::Tombstone, Fate::Superseded].into_iter()
            .flat_map(|fate| within(fate).iter().collect::<Vec<_>>()).collect();
        let read = is_read.then(|| Read {
            records, tombstones: within(Fate::Tombstone).count(),
            superseded: within(Fate::Superseded).count(), lost: within(Fate::Lost),
            undecided: Vec::new(),
        });
        let partition = case.judged(read, &now, &ALL);
        let unknown: u64 = partition.unknown.iter().map(|u| u.offsets.count()).sum();
        let sum = partition.stored + partition.without_row.count() + partition.missing.count();
        prop_assert_eq!(sum + unknown, partition.to.abs_diff(partition.from), "{:?}", partition);
        if is_read {
            prop_assert_eq!(&partition.missing, &within(Fate::Lost));
        } else {
            prop_assert!(partition.missing.is_empty());
            prop_assert!(open.count() <= unknown);
        }
        let complete = partition.missing.is_empty() && partition.unknown.is_empty();
        prop_assert_eq!(partition.verdict == Verdict::Complete, complete);
        if complete && is_read {
            prop_assert!(of(Fate::Lost).within(now.low..committed).is_empty());
        }
    }
}

fn config(routes: &str) -> Config {
    let file = tempfile::NamedTempFile::with_suffix(".toml").unwrap();
    std::fs::write(file.path(), format!("[kafka]\n[clickhouse]\n{routes}")).unwrap();
    config::load(&[file.path().to_owned()]).unwrap()
}

fn cluster(topics: &[&str]) -> Cluster {
    let topics = topics.iter().map(|topic| ((*topic).to_owned(), 2)).collect();
    Cluster { brokers: 1, topics, ..Cluster::default() }
}

const PLACE: &str = "p = \"@partition\", o = \"@offset\"";

#[test]
fn the_columns_are_found_by_what_they_hold_and_not_by_their_names() {
    let config = config(&format!(
        "[[routes]]\nname = \"a\"\nkafka_topics = [\"a\"]\ntable = \"t\"\n\
         columns = {{ {PLACE}, t = \"@topic\" }}\n\
         [[routes]]\nname = \"b\"\nkafka_topics = [\"b\", \"c\"]\ntable = \"u\"\n\
         columns = {{ {PLACE} }}\n\
         [[routes]]\nname = \"d\"\nkafka_topics = [\"^d\"]\ntable = \"v\"\n\
         columns = {{ {PLACE} }}\n\
         [[routes]]\nname = \"e\"\nkafka_topics = [\"e\", \"f\"]\naction = \"count\"\n"
    ));
    let plan = plan(&config, Some(&cluster(&["a", "b", "c", "d1", "e"])), &[]).unwrap();
    let topics: Vec<_> = plan.targets.iter().map(|t| t.topic.as_str()).collect();
    assert_eq!(topics, ["a", "b", "c", "d1", "e"]);
    assert_eq!(plan.absent, ["f"]);
    let of =
        |topic: &str| &plan.targets.iter().find(|target| target.topic == topic).unwrap().columns;
    let a = of("a").as_ref().unwrap();
    let found = (a.topic.as_deref(), a.partition.as_deref(), a.offset.as_str());
    assert_eq!(found, (Some("t"), Some("p"), "o"));
    // Without its topic a row of u could be of either; v has one topic only.
    assert!(of("b").as_ref().unwrap_err().contains("no column from @topic, and takes b, c"));
    assert_eq!(of("d1").as_ref().unwrap().topic, None);
    assert!(of("e").as_ref().unwrap_err().contains("counts its records"));
    let wrong = super::plan::plan(&config, Some(&cluster(&["a"])), &["z".to_owned()]).unwrap_err();
    assert_eq!(wrong, "no route takes topic z (--topic)");
}

#[test]
fn offsets_and_times_are_read_as_people_write_them() {
    assert_eq!(offsets("5,000..6000"), Ok(5_000..6_000));
    for wrong in ["5", "5..", "6..5", "5..5", "-1..5", "a..b"] {
        assert!(offsets(wrong).unwrap_err().contains("5000..6000"), "{wrong}");
    }
    assert_eq!(since("2026-01-01T10:30:15.123Z"), Ok(1_767_263_415_123));
    let now = jiff::Timestamp::now().as_millisecond();
    assert!((now - 7_200_000 - since("2h").unwrap()).abs() < 60_000);
    assert!(since("soon").unwrap_err().contains("2h"));
}

#[test]
fn a_report_fits_a_terminal_and_says_what_to_do() {
    let read = Read { lost: Ranges::from_iter([0..3, 7..8]), ..Read::default() };
    let read = Read { records: read.lost.clone(), ..read };
    let many: Ranges = (3..60).filter(|n| n % 4 != 3).map(|n| n..n + 1).collect();
    let missing = judged(place(0, 60, Some(60)), held(many.clone()), Some(read), &ALL);
    let mut unproven = judged(place(0, 60, Some(60)), held(many), None, &ALL);
    unproven.unknown.push(Unknown { why: "why ".repeat(60), offsets: Ranges::default() });
    let route = Route {
        route: "ticks".to_owned(),
        table: Some("market.a_table_with_a_very_long_name".to_owned()),
        promise: Promise::AtLeastOnce,
        keeps: "every row".to_owned(),
        partitions: vec![missing, unproven],
        not_provable: Vec::new(),
    };
    let report = Report { routes: vec![route], ..Report::default() }.settled();
    assert_eq!(report.exit_code(), 1);
    let text = render(&report);
    for line in text.lines() {
        assert!(line.chars().count() <= 100 && line == line.trim_end(), "{line:?}");
    }
    let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
    for wanted in [
        "MISSING 4 records: offset 0-2, 7",
        "if the group began behind them, say where with --offsets",
        "run with --read-topic",
        "MISSING: 4 records of 120 offsets in 2 partitions.",
    ] {
        assert!(words.contains(wanted), "no {wanted:?} in\n{text}");
    }
}
