//! From a record to a commit, with the sink's faults in between.

use std::collections::BTreeSet;
use std::time::Duration;

use data_bridge::alert::AlertId;
use data_bridge::pipeline::{Ending, Stop};
use data_bridge::sink::InsertError;
use data_bridge::source::{SourceEvent, Stage};
use data_bridge::status::{Condition, RouteState};
use tokio::time::{Instant, timeout};

use crate::rig::sink::{DEAD_LETTER_COLUMNS, DEAD_LETTERS, Mode, TestSink, down, refusal, retry};
use crate::rig::source::{Kind, Manners, id};
use crate::rig::{Rig, Sources, config};

const CLEAN: Ending = Ending { abandoned: 0, closed: true, aborted: false };

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Good records, one of them poisoned.
fn poisoned_at(count: usize, at: usize) -> Vec<Kind> {
    (0..count).map(|i| if i == at { Kind::Poison } else { Kind::Good }).collect()
}

#[tokio::test(start_paused = true)]
async fn records_of_both_sources_land_once_and_the_stop_is_clean() {
    let mut rig = Rig::both("");
    let candles = rig.kafka().assign("candles", 0, 1).await;
    rig.kafka().pull(&candles, 25_000).await;
    rig.nats().push("market.eurusd.m1", 3_000).await;
    rig.nats().push("external.calendar", 10).await;
    let snapshot = rig.drained().await;
    assert_eq!(rig.sink.ids("candles").len(), 28_000);
    assert_eq!(rig.sink.ids("external").len(), 10);
    assert!(rig.sink.everything().values().all(|times| *times == 1));
    assert_eq!(snapshot.backpressure.pause_count, 0);
    rig.after(secs(2)).await;
    assert_eq!(rig.kafka().wanted_commit(&candles), Some(25_000));
    assert_eq!(rig.stop().await, CLEAN);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_wanted_for_commit_before_it_is_durable() {
    let mut rig = Rig::kafka_alone("");
    rig.sink.all(Mode::Hold);
    let candles = rig.kafka().assign("candles", 0, 1).await;
    rig.kafka().pull(&candles, 500).await;
    rig.after(secs(30)).await;
    assert_eq!(rig.kafka().story.lock().unwrap().commits.len(), 0);
    rig.sink.all(Mode::FailAfterWrite);
    rig.after(secs(30)).await;
    // It is there, but nobody has said so.
    assert_eq!(rig.sink.ids("candles").len(), 500);
    assert_eq!(rig.kafka().wanted_commit(&candles), None);
    rig.sink.all(Mode::Accept);
    rig.drained().await;
    rig.after(secs(2)).await;
    assert_eq!(rig.kafka().wanted_commit(&candles), Some(500));
    assert!(rig.sink.ids("candles").values().all(|times| *times == 1));
}

#[tokio::test(start_paused = true)]
async fn offsets_that_no_record_has_hold_up_nothing() {
    use Kind::{Control, Good};
    let mut rig = Rig::kafka_alone("");
    let candles = rig.kafka().assign("candles", 0, 1).await;
    assert_eq!(rig.credits.reserve(5), 5);
    let kinds = [Good, Good, Control, Good, Control, Control, Good, Good];
    rig.kafka().hand_over(&candles, "", &kinds).await;
    rig.drained().await;
    rig.after(secs(2)).await;
    assert_eq!(rig.sink.ids("candles").len(), 5);
    assert_eq!(rig.kafka().wanted_commit(&candles), Some(8));
    assert_eq!(rig.stop().await, CLEAN);
}

#[tokio::test(start_paused = true)]
async fn a_commit_waits_for_the_slower_of_two_tables_of_one_partition() {
    let mut rig = Rig::kafka_alone("");
    // A partition of a stream: its records go to tables by their subjects.
    let stream = rig.kafka().assign("STREAM", 0, 1).await;
    let good = [Kind::Good; 3];
    assert_eq!(rig.credits.reserve(9), 9);
    rig.sink.table("external", Mode::Hold);
    rig.kafka().hand_over(&stream, "market.a", &good).await;
    rig.kafka().hand_over(&stream, "external.b", &good).await;
    rig.kafka().hand_over(&stream, "market.c", &good).await;
    rig.after(secs(20)).await;
    assert_eq!(rig.sink.ids("candles").len(), 6);
    assert_eq!(rig.kafka().wanted_commit(&stream), Some(3), "not past what is held");
    rig.sink.table("external", Mode::Accept);
    rig.drained().await;
    rig.after(secs(2)).await;
    assert_eq!(rig.kafka().wanted_commit(&stream), Some(9));
    commits_never_go_back(&mut rig);
}

fn commits_never_go_back(rig: &mut Rig) {
    let story = rig.kafka().story.lock().unwrap();
    for pair in story.commits.windows(2) {
        for before in &pair[0] {
            let after = pair[1].iter().find(|after| after.partition == before.partition);
            assert!(after.is_none_or(|after| after.offset >= before.offset), "{pair:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn commits_never_go_back_while_batches_finish_in_any_order() {
    let mut rig =
        Rig::kafka_alone("[clickhouse]\nmax_in_flight = 8\n[writers.aggregate]\nbatch_rows = 100");
    let candles = rig.kafka().assign("candles", 0, 1).await;
    for round in 0..40 {
        for _ in 0..round % 4 {
            rig.sink.once("candles", down());
        }
        rig.kafka().pull(&candles, 250).await;
        rig.after(Duration::from_millis(300)).await;
    }
    rig.drained().await;
    rig.after(secs(2)).await;
    assert_eq!(rig.kafka().wanted_commit(&candles), Some(10_000));
    commits_never_go_back(&mut rig);
}

#[tokio::test(start_paused = true)]
async fn a_revocation_cuts_waits_and_answers_with_what_is_durable() {
    let mut rig = Rig::kafka_alone("");
    let external = rig.kafka().assign("external", 0, 1).await;
    let stays = rig.kafka().assign("candles", 0, 1).await;
    rig.kafka().pull(&external, 70).await;
    rig.kafka().pull(&stays, 70).await;
    let began = Instant::now();
    let answer = rig.kafka().revoke(&[&external], secs(20)).await;
    let answer = timeout(secs(60), answer).await.unwrap().unwrap();
    // Far below the linger of 5 s: it was cut for this.
    assert!(began.elapsed() < secs(1), "{:?}", began.elapsed());
    assert_eq!(answer.len(), 1);
    assert_eq!((&answer[0].partition, answer[0].offset), (&external, 70));
    let snapshot = rig.drained().await;
    assert_eq!(snapshot.sources["kafka"].released, 0);
    assert_eq!(snapshot.sources["kafka"].assigned, Some(1));
}

#[tokio::test(start_paused = true)]
async fn past_the_deadline_of_a_revocation_the_rest_is_released_and_a_late_insert_commits_nothing()
{
    let mut rig = Rig::kafka_alone("");
    let old = rig.kafka().assign("candles", 0, 1).await;
    rig.kafka().pull(&old, 100).await;
    rig.drained().await;
    rig.sink.all(Mode::Hold);
    rig.kafka().pull(&old, 50).await;
    let answer = rig.kafka().revoke(&[&old], secs(5)).await;
    let began = Instant::now();
    let answer = timeout(secs(60), answer).await.unwrap().unwrap();
    assert_eq!(began.elapsed().as_secs(), 5);
    assert_eq!(answer[0].offset, 100, "only what is durable");
    rig.moment().await;
    let snapshot = rig.accounts_close();
    assert_eq!(snapshot.sources["kafka"].released, 50);
    // It comes again, under another epoch, while the old insert is still under way.
    let new = rig.kafka().assign("candles", 0, 2).await;
    rig.kafka().seek(&new, 100);
    rig.sink.all(Mode::Accept);
    rig.after(secs(3)).await;
    assert_eq!(rig.sink.ids("candles").len(), 150);
    assert_eq!(rig.kafka().wanted_commit(&new), None, "the late insert commits nothing");
    rig.kafka().pull(&new, 50).await;
    rig.drained().await;
    rig.after(secs(2)).await;
    assert_eq!(rig.kafka().wanted_commit(&new), Some(150));
    assert_eq!(rig.kafka().wanted_commit(&old), None);
}

#[tokio::test(start_paused = true)]
async fn rows_of_a_lost_partition_that_were_not_sent_yet_are_forgotten() {
    let mut rig = Rig::kafka_alone("");
    let lost = rig.kafka().assign("external", 0, 1).await;
    let kept = rig.kafka().assign("external", 1, 1).await;
    rig.kafka().pull(&lost, 30).await;
    rig.kafka().pull(&kept, 40).await;
    rig.kafka().send(SourceEvent::Lost(vec![std::sync::Arc::clone(&lost)])).await;
    let snapshot = rig.drained().await;
    assert_eq!(snapshot.sources["kafka"].released, 30);
    assert_eq!(rig.sink.ids("external").len(), 40);
    // What of it was still on its way is given back as well.
    rig.kafka().pull(&lost, 5).await;
    let snapshot = rig.drained().await;
    assert_eq!(snapshot.sources["kafka"].released, 35);
    assert_eq!(rig.credits.used(), 0);
    assert_eq!(snapshot.backpressure.current_bytes, 0);
}

#[tokio::test(start_paused = true)]
async fn the_linger_begins_with_the_first_row_that_is_still_there() {
    let mut rig = Rig::kafka_alone("");
    let lost = rig.kafka().assign("external", 0, 1).await;
    let kept = rig.kafka().assign("external", 1, 1).await;
    rig.kafka().pull(&lost, 30).await;
    rig.after(secs(4)).await;
    rig.kafka().send(SourceEvent::Lost(vec![std::sync::Arc::clone(&lost)])).await;
    rig.moment().await;
    rig.kafka().pull(&kept, 40).await;
    rig.after(secs(4)).await;
    assert_eq!(rig.sink.attempts("external").len(), 0, "they are not as old as what is gone");
    rig.drained().await;
    assert_eq!(rig.sink.rows("external"), 40);
}

#[tokio::test(start_paused = true)]
async fn what_is_durable_would_come_again_until_its_commit_is_taken() {
    let mut rig = Rig::kafka_alone("");
    let candles = rig.kafka().assign("candles", 0, 1).await;
    rig.kafka().refuse_commits(Some("no coordinator")).await;
    rig.kafka().pull(&candles, 10).await;
    rig.drained().await;
    rig.after(secs(5)).await; // the interval of commits is over
    let uncommitted = |rig: &Rig| rig.now().sources["kafka"].uncommitted;
    assert_eq!((rig.sink.rows("candles"), uncommitted(&rig)), (10, 10));
    rig.kafka().refuse_commits(None).await;
    rig.moment().await;
    assert_eq!((rig.kafka().wanted_commit(&candles), uncommitted(&rig)), (Some(10), 0));
}

#[tokio::test(start_paused = true)]
async fn a_dead_letter_is_held_until_it_is_durable_and_then_the_commit_passes_it() {
    let mut rig = Rig::kafka_alone("");
    rig.sink.table(DEAD_LETTERS, Mode::Hold);
    let candles = rig.kafka().assign("candles", 0, 1).await;
    let kinds = [Kind::Good, Kind::Broken, Kind::Good];
    rig.kafka().pull_kinds(&candles, &kinds).await;
    rig.after(secs(10)).await;
    let snapshot = rig.accounts_close();
    assert_eq!(rig.sink.ids("candles").len(), 2, "good rows beside it land");
    assert_eq!(snapshot.backpressure.current_buffer, 1);
    assert_eq!(snapshot.dead_letters.pending, 1);
    assert_eq!(rig.kafka().wanted_commit(&candles), Some(1), "not past what is held");
    rig.sink.table(DEAD_LETTERS, Mode::Accept);
    let snapshot = rig.drained().await;
    assert_eq!(snapshot.sources["kafka"].dead_lettered, 1);
    assert_eq!(snapshot.routes["candles"].dead_lettered, 1);
    let reasons: Vec<_> = snapshot.dead_letters.by_reason.keys().cloned().collect();
    assert_eq!(reasons, [("candles".to_owned(), "invalid_json")]);
    rig.after(secs(2)).await;
    assert_eq!(rig.kafka().wanted_commit(&candles), Some(3));
    assert!(rig.sink.ids(DEAD_LETTERS).contains_key(&id(&candles, 1)));
}

#[tokio::test(start_paused = true)]
async fn while_the_dead_letter_table_is_broken_bad_records_are_held_and_the_status_is_critical() {
    let mut rig = Rig::kafka_alone("");
    let missing = InsertError::AwaitFix(refusal(60, "the table dead_letters does not exist"));
    rig.sink.table(DEAD_LETTERS, Mode::Refuse(missing));
    let candles = rig.kafka().assign("candles", 0, 1).await;
    rig.kafka().pull_kinds(&candles, &poisoned_at(10, 4)).await;
    rig.after(secs(120)).await;
    let snapshot = rig.accounts_close();
    assert_eq!(snapshot.condition(Instant::now()), Condition::Critical);
    assert!(snapshot.needs_person[0].contains("does not exist"), "{:?}", snapshot.needs_person);
    assert_eq!((snapshot.backpressure.current_buffer, rig.sink.rows("candles")), (1, 9));
    // A dead-letter table that refuses a value is for a person too, not for another dead letter.
    let refused = InsertError::Reject(refusal(27, "cannot parse"));
    rig.sink.table(DEAD_LETTERS, Mode::Refuse(refused));
    rig.after(secs(120)).await;
    let snapshot = rig.accounts_close();
    assert_eq!(snapshot.condition(Instant::now()), Condition::Critical);
    assert_eq!(snapshot.backpressure.current_buffer, 1);
    rig.sink.table(DEAD_LETTERS, Mode::Accept);
    rig.drained().await;
    assert!(rig.sink.ids(DEAD_LETTERS).contains_key(&id(&candles, 4)));
    assert_eq!(rig.now().condition(Instant::now()), Condition::Healthy);
}

#[tokio::test(start_paused = true)]
async fn a_dead_letter_that_does_not_fit_its_own_table_waits_with_its_reason_until_it_does() {
    let mut rig = Rig::kafka_alone("");
    let unfit = DEAD_LETTER_COLUMNS.map(|(name, kind)| match name {
        "payload" => (name, "UUID"),
        _ => (name, kind),
    });
    rig.sink.set_columns(DEAD_LETTERS, &unfit);
    let candles = rig.kafka().assign("candles", 0, 1).await;
    rig.kafka().pull_kinds(&candles, &[Kind::Good, Kind::Broken]).await;
    rig.after(secs(120)).await;
    let snapshot = rig.accounts_close();
    assert_eq!(snapshot.condition(Instant::now()), Condition::Critical);
    assert!(snapshot.needs_person[0].contains("column payload"), "{:?}", snapshot.needs_person);
    assert_eq!((snapshot.backpressure.current_buffer, rig.sink.rows("candles")), (1, 1));
    rig.sink.set_columns(DEAD_LETTERS, &DEAD_LETTER_COLUMNS);
    let snapshot = rig.drained().await;
    let reasons: Vec<_> = snapshot.dead_letters.by_reason.keys().cloned().collect();
    assert_eq!(reasons, [("candles".to_owned(), "invalid_json")]);
}

#[tokio::test(start_paused = true)]
async fn one_bad_row_in_ten_thousand_is_found_with_few_inserts() {
    let mut rig = Rig::kafka_alone("");
    let candles = rig.kafka().assign("candles", 0, 1).await;
    rig.kafka().pull_kinds(&candles, &poisoned_at(10_000, 7_777)).await;
    rig.drained().await;
    assert_eq!(rig.sink.ids("candles").len(), 9_999);
    assert!(rig.sink.everything().values().all(|times| *times == 1));
    let letters: Vec<String> = rig.sink.ids(DEAD_LETTERS).into_keys().collect();
    assert_eq!(letters, [id(&candles, 7_777)]);
    // Two inserts a level, 14 levels, and the first.
    let inserts = rig.sink.attempts("candles").len();
    assert!(inserts <= 2 * 14 + 1, "{inserts} inserts");
}

#[tokio::test(start_paused = true)]
async fn a_schema_that_moved_is_read_again_and_the_same_batch_goes_on_under_its_token() {
    let routes = "[[routes]]\nname = \"typed\"\nkafka_topics = [\"typed\"]\nwriter = \"external\"\n\
                  table = \"typed\"";
    let sink = TestSink::new();
    sink.set_columns("typed", &[("id", "String")]);
    let manners = Manners { drains: true, closes: true };
    let mut rig = Rig::start_with(&config(Sources::Kafka, routes), manners, sink);
    let typed = rig.kafka().assign("typed", 0, 1).await;
    rig.moment().await;
    assert_eq!(rig.sink.schema_reads("typed"), 1);
    rig.sink.set_columns("typed", &[("id", "Nullable(String)")]);
    rig.sink.once("typed", Mode::Refuse(InsertError::SchemaChanged(refusal(16, "no such column"))));
    rig.kafka().pull(&typed, 20).await;
    rig.drained().await;
    assert_eq!(rig.sink.rows("typed"), 20);
    assert_eq!(rig.sink.schema_reads("typed"), 2, "read again, once");
    let attempts = rig.sink.attempts("typed");
    assert_eq!(attempts.len(), 2);
    assert_eq!(attempts[0].token, attempts[1].token);
    assert_ne!(attempts[0].body, attempts[1].body, "rebuilt for what the table is now");
    assert_eq!(rig.now().condition(Instant::now()), Condition::Healthy);
}

#[tokio::test(start_paused = true)]
async fn an_unchanged_schema_that_an_insert_keeps_complaining_about_needs_a_person() {
    let mut rig = Rig::kafka_alone("");
    let moved = InsertError::SchemaChanged(refusal(16, "no such column"));
    rig.sink.table("candles", Mode::Refuse(moved));
    let candles = rig.kafka().assign("candles", 0, 1).await;
    rig.kafka().pull(&candles, 20).await;
    rig.after(secs(120)).await;
    assert!(matches!(rig.now().routes["candles"].state, RouteState::AwaitingFix(_)));
    assert_eq!(rig.now().backpressure.current_buffer, 20, "never dropped, never a dead letter");
    rig.sink.table("candles", Mode::Accept);
    rig.drained().await;
    assert_eq!(rig.sink.ids("candles").len(), 20);
}

#[tokio::test(start_paused = true)]
async fn a_retry_sends_the_same_bytes_under_the_same_token() {
    let mut rig = Rig::kafka_alone("");
    for mode in [down(), Mode::FailAfterWrite, down(), down()] {
        rig.sink.once("candles", mode);
    }
    let fix = InsertError::AwaitFix(refusal(516, "wrong password"));
    rig.sink.once("candles", Mode::Refuse(fix));
    let candles = rig.kafka().assign("candles", 0, 1).await;
    rig.kafka().pull(&candles, 300).await;
    let snapshot = rig.drained().await;
    let attempts = rig.sink.attempts("candles");
    assert_eq!(attempts.len(), 6);
    let same: BTreeSet<_> = attempts.iter().map(|a| (&a.token, a.body, a.rows)).collect();
    assert_eq!(same.len(), 1);
    assert!(rig.sink.ids("candles").values().all(|times| *times == 1));
    assert_eq!(snapshot.writers["aggregate"].failed_inserts, 5);
    assert_eq!(snapshot.writers["aggregate"].inserts, 1);
    assert_eq!(snapshot.writers["aggregate"].inserted, 300, "counted when durable, once");
}

#[tokio::test(start_paused = true)]
async fn a_table_that_is_broken_does_not_stop_the_others() {
    let mut rig = Rig::kafka_alone("");
    let fix = InsertError::AwaitFix(refusal(60, "the table external does not exist"));
    rig.sink.table("external", Mode::Refuse(fix));
    let candles = rig.kafka().assign("candles", 0, 1).await;
    let external = rig.kafka().assign("external", 0, 1).await;
    rig.kafka().pull(&external, 5_000).await;
    rig.kafka().pull(&candles, 60_000).await;
    rig.until("the candles are through", |now| now.writers["aggregate"].inserted == 60_000).await;
    let snapshot = rig.accounts_close();
    assert_eq!(snapshot.backpressure.current_buffer, 5_000);
    assert!(matches!(snapshot.routes["external"].state, RouteState::AwaitingFix(_)));
    assert_eq!(snapshot.routes["candles"].state, RouteState::Running);
    assert_eq!(snapshot.condition(Instant::now()), Condition::Critical);
    // The moment it is mended, work goes on.
    rig.sink.table("external", Mode::Accept);
    rig.drained().await;
    assert_eq!(rig.sink.ids("external").len(), 5_000);
}

#[tokio::test(start_paused = true)]
async fn a_table_that_is_missing_at_the_start_is_waited_for_while_others_run() {
    let sink = TestSink::new();
    let missing = InsertError::AwaitFix(refusal(60, "the table external does not exist"));
    sink.set_schema_error("external", Some(missing));
    let manners = Manners { drains: true, closes: true };
    let mut rig = Rig::start_with(&config(Sources::Kafka, ""), manners, sink);
    let candles = rig.kafka().assign("candles", 0, 1).await;
    let external = rig.kafka().assign("external", 0, 1).await;
    rig.kafka().pull(&external, 100).await;
    rig.kafka().pull(&candles, 100).await;
    rig.until("the candles land", |now| now.writers["aggregate"].inserted == 100).await;
    assert_eq!(rig.now().condition(Instant::now()), Condition::Critical);
    assert!(rig.sink.attempts("external").is_empty());
    rig.after(secs(300)).await;
    rig.sink.set_schema_error("external", None);
    rig.drained().await;
    assert_eq!(rig.sink.ids("external").len(), 100);
    assert_eq!(rig.now().condition(Instant::now()), Condition::Healthy);
}

#[tokio::test(start_paused = true)]
async fn retries_of_a_refusing_table_back_off_although_another_table_works() {
    let mut rig = Rig::kafka_alone("");
    rig.sink.table("external", Mode::Refuse(retry("too many parts")));
    let candles = rig.kafka().assign("candles", 0, 1).await;
    let external = rig.kafka().assign("external", 0, 1).await;
    rig.kafka().pull(&external, 1_000).await;
    // A hundred inserts of the table that works.
    for _ in 0..100 {
        rig.kafka().pull(&candles, 10_000).await;
    }
    rig.after(secs(60)).await;
    let tries = rig.sink.attempts("external").len();
    assert!(tries < 50, "{tries} attempts at a table that says it has too much to do");
}

#[tokio::test(start_paused = true)]
async fn tombstones_unrouted_and_counted_records_settle_at_once() {
    let mut rig = Rig::both("");
    rig.sink.all(Mode::Hold);
    let candles = rig.kafka().assign("candles", 0, 1).await;
    let counted = rig.kafka().assign("counted", 0, 1).await;
    let unknown = rig.kafka().assign("unknown", 0, 1).await;
    rig.kafka().pull_kinds(&candles, &[Kind::Tombstone; 3]).await;
    rig.kafka().pull(&counted, 4).await;
    rig.kafka().pull(&unknown, 5).await;
    rig.nats().push("nobody.knows.it", 6).await;
    rig.nats().push("system.health.x", 7).await;
    rig.after(secs(3)).await;
    let snapshot = rig.accounts_close();
    let (kafka, nats) = (&snapshot.sources["kafka"], &snapshot.sources["nats"]);
    assert_eq!((kafka.filtered, kafka.held), (12, 0));
    assert_eq!((nats.filtered, nats.held), (13, 0));
    assert_eq!(kafka.unrouted["unknown"], 5);
    assert_eq!(nats.unrouted["nobody.knows.it"], 6);
    assert_eq!(nats.system["system.health.x"].count, 7);
    assert_eq!(snapshot.routes["counted"].filtered, 4);
    assert_eq!(rig.credits.used(), 0);
    assert_eq!(kafka.uncommitted, 0);
    let wanted = [&candles, &counted, &unknown].map(|p| rig.kafka().wanted_commit(p));
    assert_eq!(wanted, [Some(3), Some(4), Some(5)], "so that the lag reaches zero");
    // A tombstone behind something held waits for it.
    rig.kafka().pull_kinds(&candles, &[Kind::Good, Kind::Tombstone]).await;
    rig.after(secs(3)).await;
    assert_eq!(rig.kafka().wanted_commit(&candles), Some(3));
}

#[tokio::test(start_paused = true)]
async fn health_goes_on_being_published_while_the_sink_hangs() {
    let mut rig = Rig::both("");
    rig.sink.all(Mode::Hold);
    for round in 1..=20 {
        rig.nats().push("market.x", 10).await;
        rig.after(Duration::from_millis(110)).await;
        assert_eq!(rig.now().backpressure.current_buffer, round * 10);
    }
    // With nothing happening at all, the heartbeat says it.
    rig.after(secs(20)).await;
    assert!(rig.now().turned_at.unwrap().elapsed() <= secs(5));
    assert_eq!(rig.health()["metrics"]["backpressure"]["current_buffer"], 200);
    assert_eq!(rig.now().wedged(Instant::now()), None);
}

#[tokio::test(start_paused = true)]
async fn an_insert_that_never_ends_counts_as_wedged() {
    let mut rig = Rig::both("");
    rig.sink.all(Mode::Hold);
    rig.nats().push("market.x", 10).await;
    rig.after(secs(80)).await;
    assert_eq!(rig.now().wedged(Instant::now()), None, "within time-out and grace");
    rig.after(secs(20)).await;
    let wedged = rig.now().wedged(Instant::now());
    assert!(wedged.is_some_and(|why| why.contains("neither ends nor times out")));
}

// The stop.

#[tokio::test(start_paused = true)]
async fn a_stop_cuts_drains_and_commits_exactly_what_is_durable() {
    let mut rig = Rig::both("");
    let candles = rig.kafka().assign("candles", 0, 1).await;
    let external = rig.kafka().assign("external", 0, 1).await;
    rig.kafka().pull(&candles, 777).await;
    rig.kafka().pull(&external, 333).await;
    rig.nats().push("external.x", 55).await;
    let began = Instant::now();
    assert_eq!(rig.stop().await, CLEAN);
    assert!(began.elapsed() < secs(1), "no linger is waited for: {:?}", began.elapsed());
    let snapshot = rig.accounts_close();
    assert_eq!(snapshot.backpressure.current_buffer, 0);
    assert_eq!(snapshot.inserted(), 777 + 333 + 55);
    assert_eq!(rig.kafka().stages(), [Stage::Draining, Stage::Closing]);
    assert_eq!(rig.nats().stages(), [Stage::Draining, Stage::Closing]);
    assert_eq!(rig.kafka().wanted_commit(&candles), Some(777));
    assert_eq!(rig.kafka().wanted_commit(&external), Some(333));
}

#[tokio::test(start_paused = true)]
async fn a_stop_writes_the_dead_letters_as_well() {
    let mut rig = Rig::kafka_alone("");
    let candles = rig.kafka().assign("candles", 0, 1).await;
    rig.kafka().pull_kinds(&candles, &poisoned_at(1_000, 500)).await;
    assert_eq!(rig.stop().await, CLEAN);
    assert_eq!(rig.sink.ids(DEAD_LETTERS).len(), 1);
    assert_eq!(rig.kafka().wanted_commit(&candles), Some(1_000));
}

#[tokio::test(start_paused = true)]
async fn a_stop_with_the_sink_down_ends_within_the_grace_and_says_what_was_abandoned() {
    let mut rig = Rig::both("[shutdown]\ngrace = \"30s\"");
    let candles = rig.kafka().assign("candles", 0, 1).await;
    rig.kafka().pull(&candles, 100).await;
    rig.drained().await;
    rig.sink.all(down());
    rig.kafka().pull(&candles, 700).await;
    rig.nats().push("market.x", 50).await;
    rig.after(secs(10)).await;
    let began = Instant::now();
    let ending = rig.stop().await;
    assert!(began.elapsed() <= secs(30), "{:?}", began.elapsed());
    assert_eq!(ending, Ending { abandoned: 750, closed: true, aborted: false });
    let snapshot = rig.accounts_close();
    assert_eq!(snapshot.backpressure.current_buffer, 0);
    assert_eq!(snapshot.sources["kafka"].released, 700, "they come again");
    assert_eq!(snapshot.sources["nats"].dropped_total(), 50, "they are lost");
    assert_eq!(rig.kafka().wanted_commit(&candles), Some(100), "never what is not durable");
}

#[tokio::test(start_paused = true)]
async fn a_sink_that_hangs_does_not_keep_the_stop_either() {
    let mut rig = Rig::both("");
    rig.sink.all(Mode::Hold);
    rig.nats().push("market.x", 50).await;
    rig.after(secs(3)).await;
    let began = Instant::now();
    assert_eq!(rig.stop().await.abandoned, 50);
    assert!(began.elapsed() <= secs(30), "{:?}", began.elapsed());
    rig.accounts_close();
}

#[tokio::test(start_paused = true)]
async fn a_sink_that_comes_back_during_the_drain_gets_everything() {
    let mut rig = Rig::both("[retry]\nmax_delay = \"2s\"");
    rig.sink.all(down());
    let candles = rig.kafka().assign("candles", 0, 1).await;
    rig.kafka().pull(&candles, 700).await;
    rig.nats().push("market.x", 50).await;
    rig.after(secs(10)).await;
    rig.tell(Stop::Drain);
    rig.after(secs(12)).await;
    rig.sink.all(Mode::Accept);
    assert_eq!(rig.ending().await, CLEAN);
    assert_eq!(rig.sink.ids("candles").len(), 750);
    assert_eq!(rig.kafka().wanted_commit(&candles), Some(700));
}

#[tokio::test(start_paused = true)]
async fn a_second_stop_ends_at_once() {
    let mut rig = Rig::both("");
    rig.sink.all(Mode::Hold);
    let candles = rig.kafka().assign("candles", 0, 1).await;
    rig.kafka().pull(&candles, 20).await;
    rig.nats().push("market.x", 5).await;
    rig.after(secs(3)).await;
    rig.tell(Stop::Drain);
    rig.after(secs(2)).await;
    let began = Instant::now();
    rig.tell(Stop::Abort);
    let ending = rig.ending().await;
    assert!(began.elapsed() <= secs(1), "{:?}", began.elapsed());
    assert_eq!((ending.abandoned, ending.aborted), (25, true));
    let snapshot = rig.accounts_close();
    assert_eq!(snapshot.sources["kafka"].released, 20);
    assert_eq!(snapshot.sources["nats"].dropped_total(), 5);
}

#[tokio::test(start_paused = true)]
async fn an_insert_that_ends_in_the_moment_of_giving_up_changes_nothing_any_more() {
    for abort_first in [true, false] {
        let mut rig = Rig::both("");
        rig.sink.all(Mode::Hold);
        rig.nats().push("market.x", 5).await;
        rig.after(secs(3)).await;
        // Both are there to be looked at in the same turn.
        if abort_first {
            rig.tell(Stop::Abort);
            rig.sink.all(Mode::Accept);
        } else {
            rig.sink.all(Mode::Accept);
            for _ in 0..3 {
                tokio::task::yield_now().await;
            }
            rig.tell(Stop::Abort);
        }
        let ending = rig.ending().await;
        assert!(ending.abandoned == 5 || ending.abandoned == 0, "{ending:?}");
        rig.accounts_close();
    }
}

#[tokio::test(start_paused = true)]
async fn a_source_that_does_not_leave_is_not_waited_for_and_the_end_is_not_clean() {
    let manners = Manners { drains: false, closes: false };
    let mut rig = Rig::start_with(&config(Sources::Both, ""), manners, TestSink::new());
    rig.nats().push("market.x", 5).await;
    let began = Instant::now();
    let ending = rig.stop().await;
    assert!(began.elapsed() <= secs(10), "{:?}", began.elapsed());
    assert_eq!(ending, Ending { abandoned: 0, closed: false, aborted: false });
    assert_eq!(rig.sink.ids("candles").len(), 5);
}

#[tokio::test(start_paused = true)]
async fn records_whose_credits_were_reserved_before_the_stop_are_waited_for() {
    let mut rig = Rig::kafka_alone("");
    let candles = rig.kafka().assign("candles", 0, 1).await;
    assert_eq!(rig.credits.reserve(10), 10);
    rig.tell(Stop::Drain);
    rig.after(secs(3)).await;
    assert_eq!(rig.credits.reserve(1), 0, "no credits while draining");
    assert_eq!(rig.kafka().stages(), [Stage::Draining]);
    rig.kafka().hand_over(&candles, "", &[Kind::Good; 10]).await;
    assert_eq!(rig.ending().await, CLEAN);
    assert_eq!(rig.sink.ids("candles").len(), 10);
    assert_eq!(rig.kafka().wanted_commit(&candles), Some(10));
}

#[tokio::test(start_paused = true)]
async fn records_that_come_after_giving_up_are_accounted_for() {
    let manners = Manners { drains: false, closes: false };
    let mut rig = Rig::start_with(&config(Sources::Both, ""), manners, TestSink::new());
    let candles = rig.kafka().assign("candles", 0, 1).await;
    assert_eq!(rig.credits.reserve(10), 10);
    rig.sink.all(Mode::Hold);
    rig.nats().push("market.x", 5).await;
    rig.tell(Stop::Drain);
    rig.after(secs(26)).await;
    assert_eq!(rig.nats().stages(), [Stage::Draining, Stage::Closing]);
    rig.nats().push("market.x", 7).await;
    rig.kafka().hand_over(&candles, "", &[Kind::Good; 10]).await;
    let ending = rig.ending().await;
    assert_eq!(ending.abandoned, 22, "of NATS 12, of Kafka 10");
    let snapshot = rig.accounts_close();
    assert_eq!(snapshot.backpressure.current_buffer, 0);
    assert_eq!(snapshot.sources["nats"].dropped_total(), 12);
    assert_eq!(snapshot.sources["kafka"].released, 10);
}

#[tokio::test(start_paused = true)]
async fn a_revocation_under_way_when_the_stop_gives_up_is_answered_and_counted_once() {
    let mut rig = Rig::kafka_alone("");
    let candles = rig.kafka().assign("candles", 0, 1).await;
    rig.kafka().pull(&candles, 10).await;
    rig.drained().await;
    rig.sink.all(Mode::Hold);
    rig.kafka().pull(&candles, 30).await;
    let answer = rig.kafka().revoke(&[&candles], secs(300)).await;
    rig.tell(Stop::Drain);
    let ending = rig.ending().await;
    assert_eq!(ending.abandoned, 30);
    let snapshot = rig.accounts_close();
    assert_eq!(snapshot.sources["kafka"].released, 30);
    let answer = timeout(secs(1), answer).await.unwrap().unwrap();
    assert_eq!(answer[0].offset, 10);
}

#[tokio::test(start_paused = true)]
async fn a_source_that_ends_by_itself_ends_the_bridge_after_a_drain() {
    let mut rig = Rig::both("");
    rig.nats().push("market.x", 5).await;
    rig.kafka().send(SourceEvent::Closed { error: Some("beyond help".to_owned()) }).await;
    let ending = rig.ending().await;
    assert_eq!(ending, Ending { abandoned: 0, closed: false, aborted: false });
    assert_eq!(rig.sink.rows("candles"), 5);
    assert_eq!(rig.now().source_ended, Some("kafka"));
    let firing: Vec<_> = rig.firing().iter().map(|alert| (alert.id, alert.of.clone())).collect();
    assert_eq!(firing, [(AlertId::SourceEnded, Some("source kafka".to_owned()))]);

    let mut told = Rig::both("");
    assert_eq!(told.stop().await, CLEAN);
    assert_eq!(told.now().source_ended, None, "it was told to");
}

#[tokio::test(start_paused = true)]
async fn what_waits_out_a_long_backoff_is_tried_at_once_when_the_stop_begins() {
    let mut rig = Rig::nats_alone("[shutdown]\ngrace = \"1s\"");
    rig.sink.table("candles", down());
    rig.nats().push("market.x", 5).await;
    rig.after(secs(300)).await;
    rig.sink.table("candles", Mode::Accept);
    assert_eq!(rig.stop().await, CLEAN);
    assert_eq!(rig.sink.rows("candles"), 5);
}

#[tokio::test(start_paused = true)]
async fn a_route_that_does_not_fit_a_table_does_not_stop_another_that_does() {
    let more = "[[routes]]\nname = \"candles\"\nnats_subjects = [\"market.>\"]\n\
                table = \"candles\"\nformat = \"json\"\n\
                [[routes]]\nname = \"unfit\"\nnats_subjects = [\"unfit.>\"]\n\
                table = \"candles\"\n[routes.columns]\nno_such_column = \"x\"";
    let mut rig = Rig::nats_alone(more);
    rig.sink.set_columns("candles", &[("id", "String")]);
    rig.nats().push("market.x", 5).await;
    rig.nats().push("unfit.x", 3).await;
    rig.after(secs(60)).await;
    let snapshot = rig.accounts_close();
    assert_eq!((rig.sink.rows("candles"), snapshot.backpressure.current_buffer), (5, 3));
    assert_eq!(snapshot.routes["candles"].state, RouteState::Running);
    assert!(snapshot.needs_person[0].contains("no_such_column"), "{:?}", snapshot.needs_person);
}

#[tokio::test(start_paused = true)]
async fn a_source_that_is_gone_without_a_word_ends_the_bridge_as_well() {
    let mut rig = Rig::kafka_alone("");
    let candles = rig.kafka().assign("candles", 0, 1).await;
    rig.kafka().pull(&candles, 5).await;
    rig.moment().await;
    rig.lose_sources();
    let ending = rig.ending().await;
    assert_eq!(ending, Ending { abandoned: 0, closed: false, aborted: false });
    assert_eq!(rig.sink.rows("candles"), 5);
    assert_eq!(rig.now().source_ended, Some("kafka"), "and it says why");
}
