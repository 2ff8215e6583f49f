//! Exactly once: refused where it would be a lie, and its price where it is none.

use super::topics::{by_stream, found_with_pace, stream};
use super::*;
use crate::cli::check::compare::compare_with;
use crate::cli::check::report::Exact;
use crate::schema::facts::{Target, View};
use crate::source::nats::jetstream::state::Kept;
use crate::source::nats::probe::streams::StreamSample;

/// The route of the topics promises it, and has no subjects.
fn promising() -> Config {
    let mut config = config();
    config.routes[0].nats_subjects.clear();
    config
}

fn judged(config: &Config, found: &Found) -> Report {
    compare_with(config, found, &|route| route.name == "candles")
}

fn exact(report: &Report) -> &Exact {
    report.routes[0].exact.as_ref().expect("its table is known")
}

fn refusals(report: &Report) -> Vec<String> {
    let refused = report.findings.iter().filter(|f| f.code == "exactly_once_refused");
    refused.map(|finding| format!("{} {}", finding.text, finding.sql.join("; "))).collect()
}

#[test]
fn where_all_conditions_hold_they_are_listed_with_their_price() {
    let report = judged(&promising(), &found_with_pace(10.0));
    assert_eq!((report.exit_code(), refusals(&report)), (0, vec![]));
    assert!(exact(&report).is_possible());
    let text = render(&report);
    let words: Vec<&str> = text.split_whitespace().collect();
    let words = words.join(" ");
    for wanted in [
        "kafka candles exactly once",
        "Exactly once: candles",
        "ok every record can be read again",
        "ok market.aggregates remembers 10,000 inserts",
        "ok market.dead_letters remembers 10,000 inserts",
        "ok inserts are synchronous",
        // 5 a second in each partition, cut after the second that they linger: two inserts a second.
        "each of 2 Kafka partitions is inserted by itself: at most 10,000 rows an insert, about 5",
        "2.0 of 10,000 entries are used a second, so that an outage of 83 min is covered",
    ] {
        assert!(words.contains(wanted), "no {wanted:?} in {text}");
    }
    // A day would need more.
    let window = report.findings.iter().find(|finding| finding.code == "window_short").unwrap();
    assert_eq!(
        window.sql,
        [
            "ALTER TABLE market.aggregates MODIFY SETTING non_replicated_deduplication_window = 180000"
        ]
    );
}

#[test]
fn many_partitions_share_the_cap_and_thresholds_are_suggested() {
    let mut found = found_with_pace(1_000_000.0);
    let topics = found.topics.as_mut().unwrap().as_mut().unwrap();
    topics.get_mut("candles").unwrap().partitions = 60;
    let report = judged(&promising(), &found);
    let figures = exact(&report).figures.unwrap();
    assert_eq!((figures.kafka_partitions, figures.rows_per_insert_max), (60, 500));
    let small = report.findings.iter().find(|finding| finding.code == "small_inserts").unwrap();
    let wanted = "max_buffer_size = 75_000, pause_threshold = 60_000, resume_threshold = 30_000";
    assert!(small.text.contains(wanted), "{small:?}");
}

#[test]
fn inserts_into_several_partitions_of_the_table_use_the_window_sooner() {
    let mut found = found_with_pace(10.0);
    found.samples.get_mut(&0).unwrap().partitions = Some(10);
    let figures = exact(&judged(&promising(), &found)).figures.unwrap();
    assert_eq!(figures.entries_per_second, Some(20.0));
    assert_eq!(figures.window.map(|window| window.as_secs()), Some(500));
}

#[test]
fn a_table_that_forgets_is_refused_with_the_statement_that_mends_it() {
    let mut found = found_with_pace(10.0);
    let forgets = facts("aggregates", "MergeTree", Some(0));
    tables(&mut found).get_mut("aggregates").unwrap().facts = Some(Ok(forgets));
    let report = judged(&promising(), &found);
    assert_eq!((report.exit_code(), grades(&report)[0]), (1, Grade::Wrong));
    let refused = refusals(&report);
    assert_eq!(refused.len(), 1, "{refused:?}");
    assert!(refused[0].starts_with("route candles: delivery = \"exactly_once\" would be a lie"));
    let sql =
        "ALTER TABLE market.aggregates MODIFY SETTING non_replicated_deduplication_window = 10000";
    assert!(refused[0].ends_with(sql), "{refused:?}");
    // Nobody who promises nothing is told off.
    assert_eq!(compare(&promising(), &found).exit_code(), 0);
}

#[test]
fn a_target_behind_a_view_and_the_dead_letters_are_looked_at_too() {
    let mut found = found_with_pace(10.0);
    let place = Place { database: "market".to_owned(), name: "v".to_owned() };
    let mut viewed = facts("aggregates", "MergeTree", Some(9));
    let target = Box::new(facts("sums", "SummingMergeTree", Some(0)));
    viewed.views.push(View { place, target: Target::Table(target) });
    tables(&mut found).get_mut("aggregates").unwrap().facts = Some(Ok(viewed));
    let letters = facts("dead_letters", "Memory", None);
    tables(&mut found).get_mut("dead_letters").unwrap().facts = Some(Ok(letters));
    let refused = refusals(&judged(&promising(), &found));
    assert_eq!(refused.len(), 2, "{refused:?}");
    assert!(refused[0].contains("ALTER TABLE market.sums MODIFY SETTING"), "{refused:?}");
    assert!(refused[1].contains("market.dead_letters has the engine Memory"), "{refused:?}");
}

#[test]
fn core_subjects_and_inserts_that_the_server_collects_are_refused() {
    let mut found = found_with_pace(10.0);
    found.clickhouse.as_mut().unwrap().session.async_insert = true;
    let refused = refusals(&judged(&config(), &found));
    assert_eq!(refused.len(), 2, "{refused:?}");
    assert!(refused[0].contains("core NATS keeps nothing"), "{refused:?}");
    assert!(refused[1].contains("ALTER USER default SETTINGS async_insert = 0"), "{refused:?}");
}

#[test]
fn a_table_that_cannot_be_looked_into_is_no_promise_and_the_grant_can_be_pasted() {
    let mut found = found_with_pace(10.0);
    let message =
        "user `few` may not read what tables remember: GRANT SELECT ON system.parts TO few";
    let refusal = Refusal::of_code(497, message.to_owned());
    for table in ["aggregates", "dead_letters"] {
        let refused = Err(InsertError::AwaitFix(refusal.clone()));
        tables(&mut found).get_mut(table).unwrap().facts = Some(refused);
    }
    let report = judged(&promising(), &found);
    let unreadable: Vec<_> =
        report.findings.iter().filter(|finding| finding.code == "facts_unreadable").collect();
    assert_eq!(unreadable.len(), 1, "the same for all tables: {report:?}");
    assert_eq!(unreadable[0].sql, ["GRANT SELECT ON system.parts TO few"]);
    assert_eq!((report.exit_code(), refusals(&report).len()), (1, 1));
    assert_eq!(compare(&promising(), &found).exit_code(), 0);
}

#[test]
fn what_keeper_forgets_by_time_is_said() {
    let mut found = found_with_pace(0.01);
    let mut replicated = facts("aggregates", "ReplicatedMergeTree", Some(10_000));
    replicated.window = Some(Window { entries: 10_000, seconds: Some(3_600) });
    tables(&mut found).get_mut("aggregates").unwrap().facts = Some(Ok(replicated));
    let report = judged(&promising(), &found);
    assert!(exact(&report).is_possible());
    let figures = exact(&report).figures.unwrap();
    assert_eq!(figures.window.map(|window| window.as_secs()), Some(3_600));
    assert!(render(&report).contains("remembers 10,000 inserts, for 60 min at most"));
    let window = report.findings.iter().find(|finding| finding.code == "window_short").unwrap();
    assert_eq!(
        window.sql,
        [
            "ALTER TABLE market.aggregates MODIFY SETTING replicated_deduplication_window_seconds = 604800"
        ]
    );
}

#[test]
fn without_its_position_a_row_cannot_be_found_again() {
    let mut found = found_with_pace(10.0);
    let mut blind = facts("aggregates", "MergeTree", Some(10_000));
    blind.positions = PositionColumns::default();
    tables(&mut found).get_mut("aggregates").unwrap().facts = Some(Ok(blind));
    let report = judged(&promising(), &found);
    assert!(report.findings.iter().any(|finding| finding.code == "cannot_verify"), "{report:?}");
    assert_eq!(report.exit_code(), 0);
}

#[test]
fn routes_that_could_promise_it_are_named() {
    let text = render(&compare(&promising(), &found_with_pace(10.0)));
    let words: Vec<&str> = text.split_whitespace().collect();
    assert!(words.join(" ").contains("Exactly once is possible for candles"), "{text}");
}

fn with_stream(stream: StreamSample) -> Report {
    let mut found = found_with_pace(10.0);
    found.streams = [(0, Ok(stream))].into();
    judged(&by_stream("delivery = 'exactly_once'"), &found)
}

fn kept() -> Kept {
    Kept { bucket: "state".to_owned(), replicas: Some(1), ..Kept::default() }
}

#[test]
fn a_stream_that_one_instance_reads_at_a_time_keeps_the_promise() {
    let says = |kept: Kept| {
        let report = with_stream(StreamSample { kept: Some(Ok(kept)), ..stream() });
        assert_eq!((report.exit_code(), refusals(&report)), (0, vec![]));
        let conditions = &exact(&report).conditions;
        conditions.iter().find(|it| it.code == "jetstream").unwrap().says.clone()
    };
    let read = Kept { owner: Some("bridge-1/a".to_owned()), next: Some(42), ..kept() };
    let text = "one instance at a time reads stream S (bucket state, now bridge-1/a, up to 42)";
    assert_eq!(says(read), text);
    assert!(says(Kept { next: Some(42), ..kept() }).ends_with("now none, up to 42)"));
    assert!(says(Kept { replicas: None, ..kept() }).ends_with("which is made at the start)"));
}

#[test]
fn a_stream_or_a_bucket_that_does_not_keep_what_it_has_is_refused() {
    let deletes = StreamSample { deletes_acknowledged: true, ..stream() };
    let wrong = Some("is kept in memory".to_owned());
    let forgets = StreamSample { kept: Some(Ok(Kept { wrong, ..kept() })), ..stream() };
    let unknown = StreamSample { kept: Some(Err("no answer".to_owned())), ..stream() };
    for (stream, says) in [
        (deletes, "give it the retention limits"),
        (forgets, "the bucket state is kept in memory: name another one"),
        (unknown, "is not known: no answer"),
    ] {
        let report = with_stream(stream);
        let refused = refusals(&report);
        assert!(refused.len() == 1 && refused[0].contains(says), "{says}: {refused:?}");
        assert_eq!(report.exit_code(), 1);
    }
}

#[test]
fn a_bucket_with_fewer_replicas_than_its_stream_is_told() {
    let stream = StreamSample { replicas: 3, kept: Some(Ok(kept())), ..stream() };
    let report = with_stream(stream);
    let told = report.findings.iter().find(|finding| finding.code == "bucket_replicas").unwrap();
    assert!(told.text.ends_with("nats stream edit KV_state --replicas 3"), "{}", told.text);
    assert_eq!(report.exit_code(), 0);
}
