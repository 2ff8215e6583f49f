//! How the old service failed: one test a failure, named by its number in the list of the market
//! profile. Those that can only be shown with real servers (10, 14, 18, and what of 8, 9 and 17 is
//! about the clients and HTTP) are with the other tests of those servers.

use std::time::Duration;

use data_bridge::pipeline::Ending;
use data_bridge::sink::InsertError;
use data_bridge::status::Condition;
use tokio::time::Instant;

use crate::rig::sink::{DEAD_LETTERS, Mode, TestSink, down, refusal};
use crate::rig::source::{Kind, Manners};
use crate::rig::{Rig, Sources, config};

const CLEAN: Ending = Ending { abandoned: 0, closed: true, aborted: false };
const GOOD_MANNERS: Manners = Manners { drains: true, closes: true };

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// 1: flushing was triggered only by arriving messages: once paused, nothing drained, for ever.
#[tokio::test(start_paused = true)]
async fn failure_01_a_paused_bridge_drains_without_new_messages() {
    let mut rig = Rig::both("");
    rig.sink.all(down());
    // Nothing of it fills a batch: only the linger can cut it.
    rig.nats().push("market.x", 9_999).await;
    rig.after(secs(5)).await;
    for _ in 0..3 {
        rig.nats().push("market.x", 9_999).await;
        rig.after(secs(5)).await;
    }
    rig.nats().push("external.x", 999).await;
    rig.moment().await;
    assert!(rig.now().backpressure.active);
    rig.sink.all(Mode::Accept);
    let resumed = rig.until("resumed", |now| !now.backpressure.active).await;
    assert_eq!(resumed.sources["nats"].received, 40_995, "no new message helped");
    rig.drained().await;
    assert_eq!(rig.sink.ids("candles").len(), 39_996);
}

/// 2: external and tick buffers were not counted: 45,000 rows held and no pause.
#[tokio::test(start_paused = true)]
async fn failure_02_every_buffer_counts() {
    let mut rig = Rig::both("");
    rig.sink.all(down());
    rig.nats().push("market.x", 13_334).await;
    rig.nats().push("external.x", 13_333).await;
    rig.nats().push("signals.x", 13_333).await;
    rig.nats().push_kinds("market.x", &[Kind::Broken]).await;
    rig.moment().await;
    let now = rig.accounts_close();
    assert!(now.backpressure.active, "a pending dead letter is held as well");
    assert_eq!(now.backpressure.current_buffer, 40_001);
}

/// 3: the cap of 50,000 appeared only in log text.
#[tokio::test(start_paused = true)]
async fn failure_03_the_cap_is_enforced_at_admission() {
    let mut rig = Rig::nats_alone("");
    rig.sink.all(down());
    rig.nats().push_at_once("market.x", &[Kind::Good; 80_000]).await;
    rig.moment().await;
    let now = rig.accounts_close();
    assert_eq!(now.backpressure.peak_buffer, 50_000);
    assert_eq!(now.sources["nats"].dropped_total(), 30_000);
}

/// 4: every check of one pause counted as a new pause and moved `last_pause`; the 10-minute alert
/// could never fire.
#[tokio::test(start_paused = true)]
async fn failure_04_a_pause_is_counted_once_and_grows_old_enough_for_the_alert() {
    let mut rig = Rig::nats_alone("");
    rig.sink.all(down());
    rig.nats().push("market.x", 40_001).await;
    rig.moment().await;
    let last_pause = rig.now().backpressure.last_pause;
    // 120 heartbeats look at it, and traffic goes on.
    for _ in 0..60 {
        rig.nats().push("market.x", 10).await;
        rig.after(secs(10)).await;
    }
    rig.after(secs(6)).await;
    let now = rig.now();
    assert_eq!((now.backpressure.pause_count, now.backpressure.last_pause), (1, last_pause));
    assert!(
        rig.firing()
            .iter()
            .any(|alert| alert.to_string().starts_with("CRITICAL: Backpressure active"))
    );
}

/// 5: a missing Kafka client made the pause raise, and made shutdown abort with 41,000 rows
/// unflushed.
#[tokio::test(start_paused = true)]
async fn failure_05_without_kafka_the_bridge_pauses_and_stops_with_everything_flushed() {
    let mut rig = Rig::nats_alone("");
    rig.sink.all(down());
    rig.nats().push_at_once("market.x", &[Kind::Good; 41_000]).await;
    rig.after(secs(6)).await;
    assert!(rig.now().sources["nats"].paused);
    rig.sink.all(Mode::Accept);
    assert_eq!(rig.stop().await, CLEAN);
    assert_eq!(rig.sink.ids("candles").len(), 41_000);
}

/// 6: the retry worker was stopped before the final flush: 500 rows lost; SIGTERM cut a 12 s flush
/// after 4 s.
#[tokio::test(start_paused = true)]
async fn failure_06_retries_live_until_nothing_is_held_and_a_slow_flush_is_not_cut() {
    let mut rig = Rig::both("");
    let external = rig.kafka().assign("external", 0, 1).await;
    for _ in 0..3 {
        rig.sink.once("external", down());
    }
    rig.sink.throttle(100);
    rig.kafka().pull(&external, 500).await;
    rig.nats().push("market.x", 700).await;
    let began = Instant::now();
    assert_eq!(rig.stop().await, CLEAN);
    assert!(began.elapsed() >= secs(12), "slow it was: {:?}", began.elapsed());
    assert_eq!(rig.sink.everything().len(), 1_200);
    assert_eq!(rig.kafka().wanted_commit(&external), Some(500));
}

/// 7: retry "succeeded" without writing.
#[tokio::test(start_paused = true)]
async fn failure_07_only_an_acknowledged_insert_is_success() {
    let mut rig = Rig::kafka_alone("");
    for _ in 0..5 {
        rig.sink.once("candles", down());
    }
    let candles = rig.kafka().assign("candles", 0, 1).await;
    rig.kafka().pull(&candles, 100).await;
    rig.until("two attempts failed", |now| now.writers["aggregate"].failed_inserts >= 2).await;
    assert_eq!(rig.now().inserted(), 0);
    assert_eq!(rig.kafka().wanted_commit(&candles), None);
    let now = rig.drained().await;
    assert_eq!((rig.sink.ids("candles").len(), now.inserted()), (100, 100));
}

/// 8: Kafka auto-committed rows that were still in memory; pause was not reapplied after a
/// rebalance. (That the client applies the wanted pause to new partitions: with a real Kafka.)
#[tokio::test(start_paused = true)]
async fn failure_08_nothing_in_memory_is_committed_and_new_partitions_are_paused_too() {
    let mut rig = Rig::kafka_alone("");
    rig.sink.all(down());
    let first = rig.kafka().assign("candles", 0, 1).await;
    rig.kafka().pull(&first, 40_000).await;
    for _ in 0..12 {
        rig.kafka().poll(&first, 1).await;
        rig.after(secs(1)).await;
    }
    assert!(rig.kafka().story.lock().unwrap().commits.is_empty());
    assert!(rig.kafka().is_natively_paused());
    let second = rig.kafka().assign("candles", 1, 1).await;
    rig.after(secs(10)).await;
    assert!(rig.kafka().is_natively_paused(), "for the new partition as well");
    assert_eq!(rig.kafka().poll(&second, 1).await, 0, "and there is no credit for it");
    rig.sink.all(Mode::Accept);
    rig.drained().await;
    rig.kafka().pull(&second, 10).await;
    rig.drained().await;
    rig.after(secs(2)).await;
    assert_eq!(rig.kafka().wanted_commit(&first), Some(40_000));
    assert_eq!(rig.kafka().wanted_commit(&second), Some(10));
}

/// 9: one message matched two subscriptions and also became a zero-price candle.
#[tokio::test(start_paused = true)]
async fn failure_09_a_record_takes_one_route_and_unknown_external_types_are_counted() {
    let routes = r#"
[[routes]]
name = "calendar"
nats_subjects = ["market.external.calendar"]
table = "calendar"
format = "json"
[[routes]]
name = "other_external"
nats_subjects = ["market.external.>"]
action = "count"
[[routes]]
name = "candles"
nats_subjects = ["market.>"]
table = "candles"
format = "json"
"#;
    let mut rig = Rig::nats_alone(routes);
    rig.nats().push("market.external.calendar", 5).await;
    rig.nats().push("market.external.never_heard_of", 3).await;
    rig.nats().push("market.eurusd.m1", 2).await;
    rig.nats().push("elsewhere", 1).await;
    let now = rig.drained().await;
    assert_eq!((rig.sink.rows("calendar"), rig.sink.rows("candles")), (5, 2));
    assert_eq!(now.routes["other_external"].received, 3);
    assert_eq!(now.sources["nats"].unrouted["elsewhere"], 1);
    assert!(rig.sink.everything().values().all(|times| *times == 1));
}

/// 11: one bad row in 50 blocked its whole type for ever.
#[tokio::test(start_paused = true)]
async fn failure_11_one_bad_row_in_fifty_becomes_a_dead_letter_and_the_others_land() {
    let mut rig = Rig::kafka_alone("");
    let external = rig.kafka().assign("external", 0, 1).await;
    for bad in [Kind::Poison, Kind::Broken] {
        let mut kinds = [Kind::Good; 50];
        kinds[20] = bad;
        rig.kafka().pull_kinds(&external, &kinds).await;
    }
    rig.drained().await;
    rig.after(secs(2)).await;
    assert_eq!(rig.sink.ids("external").len(), 98);
    let letters: Vec<String> = rig.sink.ids(DEAD_LETTERS).into_keys().collect();
    assert_eq!(letters, ["external-0/20", "external-0/70"]);
    assert_eq!(rig.kafka().wanted_commit(&external), Some(100));
}

/// 12: null price became 0.0, "All day" became now.
#[tokio::test(start_paused = true)]
async fn failure_12_a_missing_price_and_an_all_day_time_become_dead_letters() {
    let routes = "[[routes]]\nname = \"typed\"\nnats_subjects = [\"typed\"]\ntable = \"typed\"";
    let sink = TestSink::new();
    let columns = [("id", "String"), ("price", "Decimal(18, 5)"), ("time", "DateTime64(3, 'UTC')")];
    sink.set_columns("typed", &columns);
    let mut rig = Rig::start_with(&config(Sources::Nats, routes), GOOD_MANNERS, sink);
    let time = "\"time\":\"2026-01-05T00:00:00Z\"";
    for payload in [
        format!("{{\"id\":\"good\",\"price\":\"1.08543\",{time}}}"),
        format!("{{\"id\":\"null\",\"price\":null,{time}}}"),
        format!("{{\"id\":\"missing\",{time}}}"),
        "{\"id\":\"all_day\",\"price\":1.5,\"time\":\"All day\"}".to_owned(),
    ] {
        rig.nats().push_payload("typed", payload.as_bytes()).await;
    }
    let now = rig.drained().await;
    assert_eq!(rig.sink.rows("typed"), 1);
    let letters: Vec<String> = rig.sink.ids(DEAD_LETTERS).into_keys().collect();
    assert_eq!(letters, ["all_day", "missing", "null"]);
    assert_eq!(now.dead_letters.written, 3);
}

/// 13: NATS drops were never counted; "saved" counters counted buffered rows.
#[tokio::test(start_paused = true)]
async fn failure_13_drops_are_counted_and_inserted_counts_only_what_is_durable() {
    let mut rig = Rig::nats_alone("");
    rig.sink.all(Mode::Hold);
    rig.nats().push("market.x", 40_001).await;
    rig.moment().await;
    rig.nats().push("market.x", 123).await;
    rig.moment().await;
    let now = rig.accounts_close();
    assert_eq!((now.inserted(), now.dropped()), (0, 123));
    rig.sink.all(Mode::Accept);
    let now = rig.drained().await;
    assert_eq!((now.inserted(), now.dropped()), (40_001, 123));
}

/// 15: SQL was built from message content.
#[tokio::test(start_paused = true)]
async fn failure_15_no_content_gets_into_a_name() {
    let routes = "[[routes]]\nname = \"all\"\nnats_subjects = [\">\"]\ntable = \"typed\"";
    let sink = TestSink::new();
    sink.set_columns("typed", &[("id", "String"), ("note", "String")]);
    let mut rig = Rig::start_with(&config(Sources::Nats, routes), GOOD_MANNERS, sink);
    let evil = "x'); DROP TABLE typed; --`";
    let payload =
        format!("{{\"id\":\"evil\",\"note\":\"{evil}\",\"{evil}\":1,\"FORMAT\":\"CSV\"}}");
    rig.nats().push_payload("x';DROP.TABLE`typed`", payload.as_bytes()).await;
    rig.drained().await;
    let attempts = rig.sink.attempts("typed");
    assert_eq!(attempts.len(), 1);
    assert_eq!(attempts[0].columns, ["id", "note"], "the names are those of the schema");
    assert_eq!(rig.sink.rows("typed"), 1);
}

/// 16: isolated failures, hours apart, opened the circuit breaker. (Of failures without a success
/// between them the breaker's own tests tell.)
#[tokio::test(start_paused = true)]
async fn failure_16_failures_that_are_hours_apart_do_not_add_up() {
    let mut rig = Rig::nats_alone("");
    for hour in 1..=20 {
        rig.sink.once("candles", down());
        rig.nats().push("market.x", 1).await;
        // Linger 1 s, and one backoff of at most 100 ms.
        rig.after(Duration::from_millis(1_300)).await;
        assert_eq!(rig.now().inserted(), hour);
        assert_eq!(rig.now().backpressure.pause_count, 0);
        assert_eq!((rig.now().breaker.openings, rig.now().breaker.failures), (0, 0));
        assert_eq!(rig.now().condition(Instant::now()), Condition::Healthy);
        rig.after(secs(3_600)).await;
    }
}

/// 17: `/health` did not exist; the container check tested the dependencies, not the bridge. (The
/// HTTP side of it is tested with HTTP.)
#[tokio::test(start_paused = true)]
async fn failure_17_health_tells_whether_the_pipeline_turns_whatever_the_dependencies_do() {
    let mut rig = Rig::both("");
    let denied = InsertError::AwaitFix(refusal(516, "wrong password"));
    for mode in [down(), Mode::Refuse(denied)] {
        rig.sink.all(mode);
        rig.nats().push("market.x", 10).await;
        rig.after(secs(1_800)).await;
        assert_eq!(rig.now().wedged(Instant::now()), None);
        assert_eq!(rig.health()["wedged"], serde_json::Value::Null);
        assert!(rig.now().is_ready(Instant::now()));
    }
}
