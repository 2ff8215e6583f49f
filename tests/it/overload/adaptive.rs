//! Inserts that follow what ClickHouse can take, against inserts that do not.

use std::time::Duration;

use data_bridge::status::AdaptiveStatus;
use serde_json::Value as Json;

use crate::faults::proxy::{Proxy, Wire};
use crate::lab::{Lab, number, settled};
use crate::rig::Rig;
use crate::rig::shortage::Short;

const SECOND: Duration = Duration::from_secs(1);

/// What came of a minute of shortage, with a backlog that never ends.
#[derive(Debug)]
struct Figures {
    refused: u64,
    durable: u64,
    /// In the middle of it, and a minute after it.
    during: Option<AdaptiveStatus>,
    after: Option<AdaptiveStatus>,
}

async fn with_a_shortage(adaptive: bool, short: Short, batch_rows: usize) -> Figures {
    let mut rig = Rig::kafka_alone(&format!(
        "[clickhouse]\nmax_in_flight = 4\nadaptive = {adaptive}\n\
         [writers.aggregate]\nbatch_rows = {batch_rows}\n"
    ));
    rig.sink.only_count();
    rig.sink.throttle(6_000);
    let partition = rig.kafka().assign("candles", 0, 1).await;
    let pull_for = async |rig: &mut Rig, seconds: usize| {
        for _ in 0..seconds * 10 {
            rig.kafka().poll(&partition, 1_000).await;
            rig.after(SECOND / 10).await;
        }
    };
    pull_for(&mut rig, 10).await;
    rig.sink.shortage.set(Some(short));
    let before = rig.sink.rows("candles");
    pull_for(&mut rig, 60).await;
    let during = rig.now().overload.adaptive.clone();
    let (refused, rows) = (rig.sink.shortage.refused(), rig.sink.rows("candles"));
    rig.sink.shortage.set(None);
    pull_for(&mut rig, 60).await;
    let after = rig.now().overload.adaptive.clone();
    rig.drained().await;
    Figures { refused, durable: rows - before, during, after }
}

fn fewer_refusals_for_no_less(fixed: &Figures, adaptive: &Figures) {
    assert!(fixed.refused > 20, "the shortage is one: {fixed:?}");
    assert!(adaptive.refused * 2 < fixed.refused, "{adaptive:?}\n{fixed:?}");
    assert!(adaptive.durable * 10 >= fixed.durable * 9, "{adaptive:?}\n{fixed:?}");
}

#[tokio::test(start_paused = true)]
async fn short_of_memory_fewer_and_smaller_inserts_are_refused_less_and_land_no_less() {
    let short = Short::OfMemory { rows: 3_000 };
    let fixed = with_a_shortage(false, short, 2_000).await;
    let adaptive = with_a_shortage(true, short, 2_000).await;
    super::show(&format!("memory: fixed {fixed:?}\nadaptive {adaptive:?}"));
    fewer_refusals_for_no_less(&fixed, &adaptive);
    assert_eq!((fixed.during, fixed.after), (None, None));
    let during = adaptive.during.unwrap();
    assert!(during.in_flight_limit < 4 || during.batch_rows["candles"] < 2_000, "{during:?}");
    let after = adaptive.after.unwrap();
    assert_eq!(after.batch_rows["candles"], 2_000, "it recovers");
    assert!(after.in_flight_limit >= during.in_flight_limit, "{after:?}");
}

#[tokio::test(start_paused = true)]
async fn with_too_many_parts_inserts_become_larger_and_fewer() {
    let short = Short::OfMerges { per_second: 4.0 };
    let fixed = with_a_shortage(false, short, 500).await;
    let adaptive = with_a_shortage(true, short, 500).await;
    super::show(&format!("parts: fixed {fixed:?}\nadaptive {adaptive:?}"));
    fewer_refusals_for_no_less(&fixed, &adaptive);
    let during = adaptive.during.unwrap().batch_rows["candles"];
    assert!((501..=2_000).contains(&during), "larger: {during}");
    let after = adaptive.after.unwrap().batch_rows["candles"];
    assert!(
        after < during,
        "on its way back, a tenth of what is configured every five seconds: {after}"
    );
}

/// So many numbers, through a proxy that lets two inserts in at a time, each a fifth of a second
/// late, and refuses the others.
async fn through_a_narrow_door(adaptive: bool) -> (u64, Duration) {
    // Some 25 seconds: long against the dozen that it takes from eight inserts down to two.
    const NUMBERS: u64 = 120_000;
    let lab = Lab::new().await;
    lab.numbers_places().await;
    let proxy = Proxy::before(&lab.at.clickhouse).await;
    proxy.inject(Wire::Latency(SECOND / 5), 10_000);
    proxy.set_room(2);
    let over = format!(
        "clickhouse = {{ url = \"{}\", max_in_flight = 8, adaptive = {adaptive} }}\n\
         writers.aggregate = {{ batch_rows = 500 }}\nbreaker.max_failures = 1_000_000\n",
        proxy.url()
    );
    lab.numbers_to_kafka(0..NUMBERS, 1_000_000).await;
    let started = tokio::time::Instant::now();
    let bridge = lab.start(&lab.numbers("kafka"), &over).await;
    bridge.wait_until("all is durable", |health| settled(health, "kafka", NUMBERS)).await;
    let took = started.elapsed();
    assert_eq!(lab.stored_numbers(&(0..NUMBERS)).await, (NUMBERS, NUMBERS));
    bridge.stop().await;
    (proxy.counts().refused, took)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn inserts_that_run_out_of_their_time_become_smaller() {
    const NUMBERS: u64 = 2_000;
    let lab = Lab::new().await;
    lab.numbers_places().await;
    let proxy = Proxy::before(&lab.at.clickhouse).await;
    proxy.inject(Wire::Blackhole, 4);
    let over = format!(
        "clickhouse = {{ url = \"{}\", adaptive = true, insert_timeout = \"1500ms\" }}\n\
         writers.aggregate = {{ batch_rows = 1_000, batch_rows_min = 100 }}\n",
        proxy.url()
    );
    lab.numbers_to_kafka(0..NUMBERS, 1_000_000).await;
    let bridge = lab.start(&lab.numbers("kafka"), &over).await;
    let rows = |health: &Json| health["metrics"]["overload"]["adaptive"]["batch_rows"].clone();
    bridge
        .wait_until("batches are smaller", |health| number(&rows(health)["numbers"]) <= 500)
        .await;
    bridge.wait_until("all is durable", |health| settled(health, "kafka", NUMBERS)).await;
    assert_eq!(lab.stored_numbers(&(0..NUMBERS)).await, (NUMBERS, NUMBERS));
    bridge.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_real_servers_adaptive_inserts_are_refused_less_than_fixed_ones() {
    let fixed = through_a_narrow_door(false).await;
    let adaptive = through_a_narrow_door(true).await;
    super::show(&format!("refused, took: fixed {fixed:?}, adaptive {adaptive:?}"));
    assert!(adaptive.0 * 2 < fixed.0, "{adaptive:?} {fixed:?}");
}
