//! What a broken table may hold while others work, in memory.

use std::sync::Arc;
use std::time::Duration;

use data_bridge::sink::InsertError;

use crate::rig::sink::{Mode, down, refusal, retry};
use crate::rig::{NO_BREAKER, Rig};

fn missing() -> InsertError {
    InsertError::AwaitFix(refusal(60, "the table candles does not exist"))
}

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[tokio::test(start_paused = true)]
async fn beyond_its_share_only_the_routes_of_a_broken_table_wait() {
    let mut rig = Rig::both("");
    rig.sink.table("candles", Mode::Refuse(missing()));
    let candles = rig.kafka().assign("candles", 0, 1).await;
    let external = rig.kafka().assign("external", 0, 1).await;
    let mut held = 0_usize;
    while rig.kafka().held_topics().is_empty() {
        held += 500;
        assert!(held <= 20_000, "half of pause_threshold");
        rig.kafka().pull(&candles, 500).await;
        rig.moment().await;
    }
    assert_eq!(rig.kafka().held_topics(), ["candles"]);
    rig.moment().await;
    let metrics = &rig.health()["metrics"];
    assert_eq!(metrics["routes"]["candles"]["held_back"], true);
    assert_eq!(metrics["routes"]["candles"]["state"], "awaiting_fix");
    assert_eq!(metrics["routes"]["external"]["held_back"], false);
    assert_eq!(metrics["sources"]["kafka"]["held_topics"], serde_json::json!(["candles"]));
    assert_eq!(metrics["breaker"]["failures"], 0, "a table's own fault");
    rig.nats().push("market.x", 100).await;
    rig.nats().push("external.x", 100).await;
    rig.kafka().pull(&external, 1_000).await;
    rig.after(secs(20)).await;
    let now = rig.accounts_close();
    assert_eq!(now.sources["nats"].dropped["market"]["table"], 100);
    assert_eq!(rig.sink.rows("external"), 1_100, "the others land");
    assert!(!now.backpressure.active && now.backpressure.current_buffer <= 20_000);
    // Mended, its topics flow again.
    rig.sink.table("candles", Mode::Accept);
    rig.drained().await;
    assert!(rig.kafka().held_topics().is_empty());
    assert_eq!(rig.health()["metrics"]["routes"]["candles"]["held_back"], false);
    rig.nats().push("market.x", 100).await;
    rig.drained().await;
    assert_eq!(rig.sink.ids("candles").len(), held + 100);
}

#[tokio::test(start_paused = true)]
async fn a_partition_that_comes_while_its_table_is_held_back_is_held_too() {
    let mut rig = Rig::kafka_alone("");
    rig.sink.table("candles", Mode::Refuse(missing()));
    let candles = rig.kafka().assign("candles", 0, 1).await;
    while rig.now().backpressure.current_buffer < 16_000 {
        rig.kafka().pull(&candles, 1_000).await;
        rig.after(secs(1)).await;
    }
    rig.kafka().assign("candles", 1, 2).await;
    rig.moment().await;
    assert_eq!(rig.kafka().held_topics(), ["candles"]);
}

#[tokio::test(start_paused = true)]
async fn a_table_without_others_may_fill_the_buffer() {
    let mut rig = Rig::both("");
    for table in ["candles", "external", "signals", "system"] {
        rig.sink.table(table, Mode::Refuse(missing()));
        rig.sink.set_schema_error(table, Some(missing()));
    }
    rig.nats().push("market.x", 39_000).await;
    rig.after(secs(20)).await;
    assert_eq!(rig.accounts_close().sources["nats"].dropped_total(), 0);
}

#[tokio::test(start_paused = true)]
async fn the_share_does_not_apply_while_clickhouse_is_down_as_a_whole() {
    let mut rig = Rig::both("");
    let external = rig.kafka().assign("external", 0, 1).await;
    rig.kafka().pull(&external, 10).await;
    rig.drained().await;
    rig.sink.all(down());
    rig.nats().push("market.x", 39_000).await;
    rig.after(secs(60)).await;
    let now = rig.accounts_close();
    assert!(rig.kafka().held_topics().is_empty());
    assert_eq!((now.backpressure.current_buffer, now.sources["nats"].dropped_total()), (39_000, 0));
}

#[tokio::test(start_paused = true)]
async fn a_table_that_has_too_much_to_do_is_held_back_once_others_are_seen_to_work() {
    let mut rig = Rig::both("");
    let busy = InsertError::Retry(refusal(252, "too many parts"));
    rig.sink.table("candles", Mode::Refuse(busy));
    rig.nats().push("market.x", 25_000).await;
    rig.after(secs(10)).await;
    assert_eq!(rig.now().sources["nats"].dropped_total(), 0);
    rig.nats().push("external.x", 10).await;
    rig.after(secs(10)).await;
    rig.nats().push("market.x", 10).await;
    rig.moment().await;
    assert_eq!(rig.accounts_close().sources["nats"].dropped["market"]["table"], 10);
}

#[tokio::test(start_paused = true)]
async fn tables_that_hang_keep_no_other_waiting() {
    let mut rig = Rig::both(NO_BREAKER);
    rig.sink.table("candles", Mode::Hold);
    rig.sink.table("signals", Mode::Hold);
    rig.nats().push("market.x", 30_000).await;
    rig.moment().await;
    assert_eq!(rig.sink.attempts("candles").len(), 2, "max_in_flight");
    rig.nats().push("external.x", 100).await;
    rig.after(secs(6)).await;
    assert_eq!(rig.sink.rows("external"), 100);
    // two tables hang, and are known not to work: the third has a slot of its own
    rig.sink.table("candles", Mode::Refuse(retry("no answer")));
    rig.moment().await;
    rig.sink.table("candles", Mode::Hold);
    rig.sink.once("signals", Mode::Refuse(retry("no answer")));
    rig.nats().push("signals.x", 2_000).await;
    rig.after(secs(30)).await;
    let sink = Arc::clone(&rig.sink);
    let started = || (sink.attempts("candles").len(), sink.attempts("signals").len());
    let before = started();
    rig.nats().push("external.x", 5_000).await;
    rig.moment().await;
    assert_eq!(rig.sink.rows("external"), 5_100);
    assert_eq!(started(), before, "both hang");
    rig.sink.table("candles", Mode::Accept);
    rig.sink.table("signals", Mode::Accept);
    rig.drained().await;
}

/// A table with too many parts needs fewer and larger inserts.
#[tokio::test(start_paused = true)]
async fn what_comes_while_a_table_has_too_many_parts_makes_one_large_insert() {
    let mut rig = Rig::nats_alone("");
    let busy = InsertError::Retry(refusal(252, "too many parts"));
    rig.sink.table("candles", Mode::Refuse(busy));
    for _ in 0..60 {
        rig.nats().push("market.x", 100).await;
        // Not a linger exactly: which of the two comes first would be anybody's guess.
        rig.after(Duration::from_millis(1_100)).await;
    }
    let refused = rig.sink.attempts("candles");
    assert!(refused.len() < 20 && refused.iter().all(|attempt| attempt.rows == 100), "{refused:?}");
    rig.sink.table("candles", Mode::Accept);
    rig.drained().await;
    let attempts = rig.sink.attempts("candles").split_off(refused.len());
    let mut rows: Vec<usize> = attempts.iter().map(|attempt| attempt.rows).collect();
    rows.sort_unstable();
    assert_eq!(rows, [100, 5_900], "what was refused, as it was, and all that came since");
}
