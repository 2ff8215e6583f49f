//! Whatever breaks: producers write sequences, faults are injected by a seeded schedule, and an
//! oracle counts every number in ClickHouse and in the dead letters.
//!
//! Here are the bounded forms, a fault at a time. `scripts/chaos` runs all of them together, long.

mod chaos;
mod judge;
mod load;
mod one_bad_row;
mod oracle;
mod place;
pub(crate) mod proxy;
mod run;
mod schedule;
mod spent;
mod unanswered;
mod watch;

use std::time::Duration;

use crate::lab::scale;
use crate::stack::is_apache_kafka;
use place::{Delivery, Source};
use run::{Outcome, Trial};
use schedule::{Fault, Plan, Server};

/// What is not stored comes again from both of these; here out of one bridge.
const LOSSLESS: [Source; 2] = [Source::Kafka, Source::JetStream];

/// The oracle asks where a topic ends; exactly once stands beside committed offsets.
fn is_kafka_itself() -> bool {
    is_apache_kafka("ends of partitions that are true to a record, and notes beside offsets")
}

fn trial(delivery: Delivery, sources: &[Source], faults: &[Fault], plan: Plan) -> Trial {
    Trial {
        sources: sources.to_vec(),
        delivery,
        rate: 2_000,
        plan: Plan { faults: faults.to_vec(), ..plan },
        tamper: Vec::new(),
        watched: false,
        own_servers: false,
    }
}

fn plan(at_least: usize, gap: Duration) -> Plan {
    let length = Duration::ZERO;
    Plan { seed: rand::random(), faults: Vec::new(), length, gap, at_least, bridges: 1 }
}

/// The oracle has to see what is not there, what is there twice, and what nobody sent; in the
/// table, behind the view and among the dead letters.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_oracle_sees_an_injected_loss_and_an_injected_duplicate() {
    if !is_kafka_itself() {
        return;
    }
    let again = |table| format!("INSERT INTO {table} SELECT * FROM {table} WHERE p = 1 AND n = 8");
    let letter = "JSONExtractUInt(payload, 'p') = 0 AND JSONExtractUInt(payload, 'n') = 996";
    let tamper = vec![
        "DELETE FROM rows_kafka WHERE p = 0 AND n = 7".to_owned(),
        again("copy_kafka"),
        "INSERT INTO copy_kafka (p, n) VALUES (5, 9)".to_owned(),
        format!("INSERT INTO dead_letters SELECT * FROM dead_letters WHERE {letter}"),
    ];
    let plan = plan(3, Duration::from_secs(2));
    let harmless = trial(Delivery::AtLeastOnce, &[Source::Kafka], &[Fault::Wire], plan);
    let outcome = Trial { tamper, ..harmless }.run().await;
    let kinds: Vec<&str> =
        outcome.violations.iter().map(|what| what.split('\n').next().unwrap()).collect();
    assert_eq!(
        kinds,
        [
            "rows_kafka: 1 missing",
            "copy_kafka: 1 unexpected",
            "copy_kafka: 1 stored again",
            "dead letters of kafka: 1 stored again",
        ]
    );
    let named = outcome.violations.join("\n");
    for what in ["(missing 7)", "(twice 8)", "(unexpected 9)", "(twice 996)"] {
        assert!(named.contains(what), "{what} in {named}");
    }
}

/// Ten times; fifty with `DATA_BRIDGE_TEST_SCALE=5`.
async fn kill_9_of_the_bridge_under_load(delivery: Delivery, sources: &[Source]) -> Outcome {
    let kills = 10 * usize::try_from(scale().min(5)).unwrap();
    let plan = plan(kills, Duration::from_secs(4));
    let outcome = trial(delivery, sources, &[Fault::Bridge], plan).run().await;
    outcome.assert_clean();
    assert_eq!(outcome.kills, kills);
    assert!(outcome.kills_under_work * 2 >= outcome.kills, "{}", outcome.story);
    outcome
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kill_9_of_the_bridge_loses_nothing() {
    if !is_kafka_itself() {
        return;
    }
    let outcome = kill_9_of_the_bridge_under_load(Delivery::AtLeastOnce, &LOSSLESS).await;
    assert!(outcome.repeated > 0, "there is nothing for exactly once to prevent");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn exactly_once_kill_9_of_the_bridge_neither_loses_nor_repeats() {
    if !is_kafka_itself() {
        return;
    }
    kill_9_of_the_bridge_under_load(Delivery::ExactlyOnce, &LOSSLESS).await;
}

/// Also while the outcome is not known the same rows go out with the same token: even at least
/// once, nothing is there twice.
async fn what_the_wire_does_to_inserts(delivery: Delivery) {
    if !is_kafka_itself() {
        return;
    }
    let every = proxy::Wire::ALL.len();
    let plan = plan(every, Duration::from_millis(1_500));
    let outcome = trial(delivery, &LOSSLESS, &[Fault::Wire], plan).run().await;
    outcome.assert_clean();
    assert_eq!(outcome.injected.len(), every, "{}", outcome.story);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_wire_does_to_inserts_neither_loses_nor_repeats() {
    what_the_wire_does_to_inserts(Delivery::AtLeastOnce).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn exactly_once_what_the_wire_does_to_inserts_neither_loses_nor_repeats() {
    what_the_wire_does_to_inserts(Delivery::ExactlyOnce).await;
}

async fn kill_9_of_the_servers_one_by_one_and_all_at_once(delivery: Delivery) {
    if !is_kafka_itself() {
        return;
    }
    let mut faults = Server::ALL.map(Fault::Server).to_vec();
    faults.extend([Fault::Servers, Fault::Everything]);
    let plan = plan(5, Duration::from_secs(8));
    trial(delivery, &LOSSLESS, &faults, plan).run().await.assert_clean();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kill_9_of_the_servers_in_any_order_loses_nothing() {
    kill_9_of_the_servers_one_by_one_and_all_at_once(Delivery::AtLeastOnce).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn exactly_once_kill_9_of_the_servers_in_any_order_neither_loses_nor_repeats() {
    kill_9_of_the_servers_one_by_one_and_all_at_once(Delivery::ExactlyOnce).await;
}

/// Forty seconds; three minutes with `DATA_BRIDGE_TEST_SCALE=5`. That all lands while the members
/// stay as they are says that no partition is left behind.
async fn a_storm_of_rebalances(delivery: Delivery) {
    if !is_apache_kafka("members of one group, and how they share its partitions") {
        return;
    }
    let length = Duration::from_secs(40 * scale().min(5));
    let plan = Plan { length, bridges: 3, ..plan(10, Duration::from_secs(3)) };
    trial(delivery, &[Source::Kafka], &[Fault::Members], plan).run().await.assert_clean();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_storm_of_rebalances_loses_nothing() {
    a_storm_of_rebalances(Delivery::AtLeastOnce).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn exactly_once_a_storm_of_rebalances_neither_loses_nor_repeats() {
    a_storm_of_rebalances(Delivery::ExactlyOnce).await;
}
