//! The circuit breaker between the sources and the sink, in memory.

use std::sync::Arc;
use std::time::Duration;

use data_bridge::pipeline::Ending;
use data_bridge::sink::InsertError;
use data_bridge::status::{BreakerState, Condition};
use tokio::time::Instant;

use crate::rig::logs::Logs;
use crate::rig::sink::{DEAD_LETTERS, Mode, TestSink, down, refusal};
use crate::rig::source::{Kind, Manners};
use crate::rig::{Rig, Sources, config};

/// Quick retries, so that the breaker opens at once.
const QUICK: &str = "[retry]\nbase_delay = \"10ms\"\nmax_delay = \"100ms\"\n";

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn attempts(sink: &TestSink) -> usize {
    ["candles", "external", "signals"].iter().map(|table| sink.attempts(table).len()).sum()
}

/// ClickHouse is down, and the breaker has opened.
async fn open(rig: &mut Rig) {
    rig.sink.all(down());
    rig.nats().push("market.x", 10).await;
    rig.nats().push("external.x", 10).await;
    rig.until("open", |now| now.breaker.state == BreakerState::Open).await;
}

#[tokio::test(start_paused = true)]
async fn ten_failures_in_a_row_open_it_and_no_insert_starts_until_one_probes() {
    let logs = Logs::collect();
    let mut rig = Rig::both(QUICK);
    open(&mut rig).await;
    let opened = Instant::now();
    assert_eq!(attempts(&rig.sink), 10);
    let open = logs.with("circuit breaker open after 10 failed inserts in a row");
    assert_eq!(open.len(), 1);
    for part in ["WARN", "one is tried in 60s", "connection refused"] {
        assert!(open[0].contains(part), "{open:?}");
    }
    // what is due meanwhile waits, and is counted
    rig.nats().push("signals.x", 5).await;
    rig.after(secs(50)).await;
    assert_eq!(attempts(&rig.sink), 10);
    let now = rig.accounts_close();
    assert!(now.breaker.rejects >= 3, "{:?}", now.breaker);
    assert_eq!(now.condition(Instant::now()), Condition::Degraded);
    let breaker = &rig.health()["metrics"]["breaker"];
    assert_eq!((&breaker["state"], &breaker["openings"]), (&"open".into(), &1.into()));
    assert_eq!(breaker["reason"], "connection refused");
    assert!(breaker["probe_at"].as_str().unwrap().ends_with('Z'));
    // exactly one goes, at its time; it fails
    let sink = Arc::clone(&rig.sink);
    rig.until("probed", |_| attempts(&sink) == 11).await;
    assert_eq!(opened.elapsed().as_secs(), 60);
    rig.after(secs(59)).await;
    assert_eq!(attempts(&rig.sink), 11);
    assert_eq!(logs.with("circuit breaker open").len(), 1, "one line an opening");
    assert_eq!(logs.with("circuit breaker: the probe failed, the next in 60s").len(), 1);
    // the next one lands, and everything with it
    rig.sink.all(Mode::Accept);
    let now = rig.drained().await;
    assert!(opened.elapsed() < secs(122), "{:?}", opened.elapsed());
    assert_eq!((now.breaker.state, now.breaker.failures), (BreakerState::Closed, 0));
    assert_eq!(now.breaker.openings, 1, "a probe that failed is the same opening");
    assert_eq!(logs.with("INFO").iter().filter(|l| l.contains("breaker closed")).count(), 1);
    assert_eq!(rig.sink.ids("candles").len() + rig.sink.ids("external").len(), 20);
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_hangs_is_the_only_insert() {
    let mut rig = Rig::both(QUICK);
    open(&mut rig).await;
    rig.sink.all(Mode::Hold);
    rig.until("the probe is under way", |now| now.breaker.state == BreakerState::HalfOpen).await;
    rig.nats().push("signals.x", 5).await;
    rig.after(secs(600)).await;
    assert_eq!(attempts(&rig.sink), 11);
    rig.sink.all(Mode::Accept);
    rig.moment().await;
    assert_eq!(rig.now().breaker.state, BreakerState::Closed);
    rig.drained().await;
}

#[tokio::test(start_paused = true)]
async fn it_pauses_kafka_and_not_nats_and_the_pause_ends_only_after_it() {
    let logs = Logs::collect();
    let mut rig = Rig::both(QUICK);
    let candles = rig.kafka().assign("candles", 0, 1).await;
    open(&mut rig).await;
    rig.moment().await;
    let now = rig.accounts_close();
    assert_eq!(now.backpressure.causes, ["breaker"]);
    assert!(now.sources["kafka"].paused && !now.sources["nats"].paused);
    assert_eq!(rig.kafka().poll(&candles, 100).await, 0, "it gets no credits");
    rig.after(secs(6)).await;
    assert!(rig.kafka().is_natively_paused());
    rig.nats().push("market.x", 100).await;
    rig.after(secs(40)).await;
    let now = rig.accounts_close();
    assert_eq!((now.backpressure.current_buffer, now.sources["nats"].dropped_total()), (120, 0));
    rig.sink.all(Mode::Accept);
    rig.drained().await;
    let now = rig.accounts_close();
    assert!(!now.backpressure.active && !rig.kafka().is_natively_paused());
    assert_eq!(now.backpressure.pause_count, 1);
    assert_eq!(logs.with("Kafka subscriber paused").len(), 1);
    assert_eq!(logs.with("Kafka subscriber resumed").len(), 1);
    assert_eq!(logs.with("NATS subscriber").len(), 0);
    rig.kafka().pull(&candles, 1_000).await;
    rig.drained().await;
}

#[tokio::test(start_paused = true)]
async fn what_is_one_tables_own_fault_never_opens_it() {
    let own = [
        InsertError::AwaitFix(refusal(60, "no such table")),
        InsertError::AwaitFix(refusal(497, "not allowed")),
        InsertError::SchemaChanged(refusal(16, "no such column")),
        InsertError::Retry(refusal(252, "too many parts")),
    ];
    for error in own {
        let mut rig = Rig::both(QUICK);
        rig.sink.table("candles", Mode::Refuse(error.clone()));
        rig.nats().push("market.x", 10).await;
        rig.after(secs(60)).await;
        let breaker = &rig.now().breaker;
        assert!(rig.sink.attempts("candles").len() > 20, "{error:?}");
        assert_eq!((breaker.openings, breaker.failures), (0, 0), "{error:?}");
    }
    // nor rows that never go in
    let mut rig = Rig::both(QUICK);
    rig.nats().push_kinds("market.x", &[Kind::Poison; 40]).await;
    let now = rig.drained().await;
    assert_eq!((now.dead_letters.written, now.breaker.openings), (40, 0));
}

/// Dead letters that Kafka, NATS or a file keeps.
fn rig_with_letters_apart() -> Rig {
    let sink = TestSink::new();
    sink.keep_letters_apart();
    Rig::start_with(&config(Sources::Both, QUICK), Manners { drains: true, closes: true }, sink)
}

#[tokio::test(start_paused = true)]
async fn what_keeps_dead_letters_elsewhere_never_opens_it() {
    let mut rig = rig_with_letters_apart();
    rig.sink.table(DEAD_LETTERS, down());
    rig.nats().push_kinds("market.x", &[Kind::Broken; 10]).await;
    rig.after(secs(60)).await;
    assert!(rig.sink.attempts(DEAD_LETTERS).len() > 20);
    let breaker = &rig.now().breaker;
    assert_eq!((breaker.openings, breaker.failures), (0, 0));
    rig.sink.table(DEAD_LETTERS, Mode::Accept);
    assert_eq!(rig.drained().await.dead_letters.written, 10);
}

#[tokio::test(start_paused = true)]
async fn while_it_is_open_dead_letters_elsewhere_go_on_and_are_no_probe() {
    let mut rig = rig_with_letters_apart();
    rig.sink.table(DEAD_LETTERS, down());
    rig.nats().push_kinds("market.x", &[Kind::Broken; 10]).await;
    rig.until("they are pending", |now| now.dead_letters.pending == 10).await;
    open(&mut rig).await;
    let before = attempts(&rig.sink);
    rig.sink.table(DEAD_LETTERS, Mode::Accept);
    rig.until("the letters are written", |now| now.dead_letters.written == 10).await;
    let breaker = rig.now().breaker.clone();
    assert_eq!((breaker.state, breaker.openings), (BreakerState::Open, 1));
    assert_eq!(attempts(&rig.sink), before, "nothing else was tried");
    rig.sink.all(Mode::Accept);
    rig.drained().await;
}

#[tokio::test(start_paused = true)]
async fn a_refused_login_is_about_all_tables_and_opens_it() {
    let mut rig = Rig::both(QUICK);
    rig.sink.all(Mode::Refuse(InsertError::AwaitFix(refusal(516, "wrong password"))));
    rig.nats().push("market.x", 10).await;
    rig.until("open", |now| now.breaker.state == BreakerState::Open).await;
    rig.moment().await;
    assert_eq!(rig.now().condition(Instant::now()), Condition::Critical, "a person is needed");
    rig.sink.all(Mode::Accept);
    rig.drained().await;
}

#[tokio::test(start_paused = true)]
async fn a_stop_while_it_is_open_tries_at_once() {
    let mut rig = Rig::both(QUICK);
    open(&mut rig).await;
    rig.sink.all(Mode::Accept);
    let began = Instant::now();
    let ending = rig.stop().await;
    assert_eq!(ending, Ending { abandoned: 0, closed: true, aborted: false });
    assert!(began.elapsed() < secs(5), "{:?}", began.elapsed());
    assert_eq!(rig.sink.ids("candles").len() + rig.sink.ids("external").len(), 20);
}

#[tokio::test(start_paused = true)]
async fn a_stop_while_it_is_open_goes_on_trying_for_the_whole_grace() {
    let mut rig = Rig::both(QUICK);
    open(&mut rig).await;
    let before = attempts(&rig.sink);
    let ending = rig.stop().await;
    assert_eq!(ending.abandoned, 20);
    assert!(attempts(&rig.sink) > before + 100, "25 s, at most 0.1 s apart");
}

/// When the batches that failed can't be tried any more, for another reason, the sources must not
/// wait for a probe that never goes.
#[tokio::test(start_paused = true)]
async fn a_pause_does_not_wait_for_a_probe_that_nothing_could_be() {
    let mut rig = Rig::kafka_alone(&format!("{QUICK}[writers.aggregate]\nbatch_rows = 1_000"));
    let changed = || Mode::Refuse(InsertError::SchemaChanged(refusal(16, "no such column")));
    let missing = || Some(InsertError::AwaitFix(refusal(60, "missing")));
    let external = rig.kafka().assign("external", 0, 1).await;
    let candles = rig.kafka().assign("candles", 0, 1).await;
    let signals = rig.kafka().assign("signals", 0, 1).await;
    // nine failures, and then it is about the table
    (0..9).for_each(|_| rig.sink.once("external", down()));
    rig.sink.once("external", changed());
    rig.moment().await;
    rig.sink.set_schema_error("external", missing());
    rig.kafka().pull(&external, 1_000).await;
    rig.after(secs(5)).await;
    assert_eq!(rig.now().breaker.failures, 9);
    // the tenth, of one of two batches; the other one ends by learning that the table is gone
    rig.sink.table("candles", Mode::Hold);
    rig.sink.set_schema_error("candles", missing());
    rig.kafka().pull(&candles, 1_000).await;
    rig.moment().await;
    rig.sink.once("candles", down());
    rig.kafka().pull(&candles, 1_000).await;
    rig.until("open", |now| now.breaker.state == BreakerState::Open).await;
    rig.sink.table("candles", changed());
    rig.after(secs(55)).await;
    assert!(rig.now().backpressure.active);
    rig.until("the pause ends", |now| !now.backpressure.active).await;
    assert_eq!(rig.now().breaker.state, BreakerState::Open);
    rig.kafka().pull(&signals, 10).await;
    rig.until("closed", |now| now.breaker.state == BreakerState::Closed).await;
    assert_eq!(rig.sink.ids("signals").len(), 10);
}
