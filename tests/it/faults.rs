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
mod unanswered;
mod watch;

use std::time::Duration;

use crate::lab::scale;
use crate::stack::is_apache_kafka;
use place::{Delivery, Source};
use run::Trial;
use schedule::{Fault, Plan, Server};

fn trial(faults: &[Fault], plan: Plan) -> Trial {
    Trial {
        sources: vec![Source::Kafka],
        delivery: Delivery::AtLeastOnce,
        rate: 2_000,
        plan: Plan { faults: faults.to_vec(), ..plan },
        tamper: Vec::new(),
        watched: false,
        own_servers: false,
    }
}

/// What is not stored comes again from both of these; here out of one bridge.
fn from_kafka_and_jetstream(trial: Trial) -> Trial {
    Trial { sources: vec![Source::Kafka, Source::JetStream], ..trial }
}

fn plan(at_least: usize, gap: Duration) -> Plan {
    let length = Duration::ZERO;
    Plan { seed: rand::random(), faults: Vec::new(), length, gap, at_least, bridges: 1 }
}

/// Ten times; fifty with `DATA_BRIDGE_TEST_SCALE=5`.
fn kills() -> usize {
    10 * usize::try_from(scale().min(5)).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kill_9_of_the_bridge_under_load_loses_nothing() {
    let plan = plan(kills(), Duration::from_secs(4));
    let outcome = from_kafka_and_jetstream(trial(&[Fault::Bridge], plan)).run().await;
    outcome.assert_clean();
    assert!(outcome.repeated > 0, "there is nothing for exactly once to prevent");
    assert_eq!(outcome.kills, kills());
    assert!(outcome.kills_under_work * 2 > outcome.kills, "{}", outcome.story);
}

/// The oracle has to see what is not there, what is there twice, and what nobody sent; in the
/// table, behind the view and among the dead letters.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_oracle_sees_an_injected_loss_and_an_injected_duplicate() {
    let again = |table| format!("INSERT INTO {table} SELECT * FROM {table} WHERE p = 1 AND n = 8");
    let letter = "JSONExtractUInt(payload, 'p') = 0 AND JSONExtractUInt(payload, 'n') = 996";
    let tamper = vec![
        "DELETE FROM rows_kafka WHERE p = 0 AND n = 7".to_owned(),
        again("copy_kafka"),
        "INSERT INTO copy_kafka (p, n) VALUES (5, 9)".to_owned(),
        format!("INSERT INTO dead_letters SELECT * FROM dead_letters WHERE {letter}"),
    ];
    let plan = plan(3, Duration::from_secs(2));
    let outcome = Trial { tamper, ..trial(&[Fault::Wire], plan) }.run().await;
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

/// Also while the outcome is not known the same rows go out with the same token: even at least
/// once, nothing is there twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_wire_does_to_inserts_neither_loses_nor_repeats() {
    let every = proxy::Wire::ALL.len();
    let plan = plan(every, Duration::from_millis(1_500));
    let outcome = from_kafka_and_jetstream(trial(&[Fault::Wire], plan)).run().await;
    outcome.assert_clean();
    assert_eq!(outcome.injected.len(), every, "{}", outcome.story);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kill_9_of_the_servers_one_by_one_and_all_at_once_loses_nothing() {
    let mut faults = Server::ALL.map(Fault::Server).to_vec();
    faults.extend([Fault::Servers, Fault::Everything]);
    let plan = plan(5, Duration::from_secs(8));
    from_kafka_and_jetstream(trial(&faults, plan)).run().await.assert_clean();
}

/// Forty seconds; three minutes with `DATA_BRIDGE_TEST_SCALE=5`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_storm_of_rebalances_loses_nothing_and_leaves_no_partition_behind() {
    if !is_apache_kafka("members of one group, and how they share its partitions") {
        return;
    }
    let length = Duration::from_secs(40 * scale().min(5));
    let plan = Plan { length, bridges: 3, ..plan(10, Duration::from_secs(3)) };
    trial(&[Fault::Members], plan).run().await.assert_clean();
}

fn exactly_once(trial: Trial) -> Trial {
    Trial { delivery: Delivery::ExactlyOnce, ..trial }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn exactly_once_kill_9_of_the_bridge_under_load_neither_loses_nor_repeats() {
    let plan = plan(kills(), Duration::from_secs(4));
    let outcome = exactly_once(trial(&[Fault::Bridge], plan)).run().await;
    outcome.assert_clean();
    assert_eq!(outcome.kills, kills());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn exactly_once_kill_9_of_the_servers_neither_loses_nor_repeats() {
    let mut faults = Server::ALL.map(Fault::Server).to_vec();
    faults.extend([Fault::Servers, Fault::Everything]);
    let plan = plan(5, Duration::from_secs(8));
    exactly_once(trial(&faults, plan)).run().await.assert_clean();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn exactly_once_a_storm_of_rebalances_neither_loses_nor_repeats() {
    if !is_apache_kafka("members of one group, and how they share its partitions") {
        return;
    }
    let length = Duration::from_secs(40 * scale().min(5));
    let plan = Plan { length, bridges: 3, ..plan(10, Duration::from_secs(3)) };
    exactly_once(trial(&[Fault::Members], plan)).run().await.assert_clean();
}
