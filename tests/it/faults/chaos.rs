//! The long forms, for `scripts/chaos`, which says by variables what it wants.

use std::fmt::Debug;
use std::str::FromStr;
use std::time::Duration;

use super::place::{Delivery, Source};
use super::run::{Outcome, Trial};
use super::schedule::{Fault, Plan, Server};

fn wanted<T: FromStr<Err: Debug>>(name: &str) -> T {
    let variable = format!("CHAOS_{name}");
    let text = std::env::var(&variable).unwrap_or_else(|_| {
        panic!("{variable} is not set: run scripts/chaos");
    });
    text.parse().unwrap_or_else(|error| panic!("{variable}={text}: {error:?}"))
}

/// A list by commas, or everything there is.
fn list<T: FromStr<Err: Debug>>(name: &str, all: Vec<T>) -> Vec<T> {
    let text: String = wanted(name);
    if text == "all" {
        return all;
    }
    text.split(',').map(|word| word.parse().unwrap_or_else(|e| panic!("{e:?}"))).collect()
}

fn seconds(name: &str, unit: u64) -> Duration {
    Duration::from_secs(unit * wanted::<u64>(name))
}

fn trial(faults: Vec<Fault>, bridges: usize, gap: Duration) -> Trial {
    Trial {
        sources: list("SOURCE", Source::ALL.to_vec()),
        delivery: wanted::<Delivery>("DELIVERY"),
        rate: wanted("RATE"),
        plan: Plan {
            seed: wanted("SEED"),
            faults,
            length: seconds("MINUTES", 60),
            gap,
            at_least: wanted("KILLS"),
            bridges,
        },
        tamper: Vec::new(),
        watched: false,
        own_servers: true,
    }
}

#[expect(clippy::print_stdout, reason = "it is what the script is run for")]
async fn run(trial: &Trial) -> Outcome {
    println!("\n{trial:#?}\n");
    let outcome = trial.run().await;
    let seed = trial.plan.seed;
    match outcome.violations.len() {
        0 => println!("\nVERDICT of seed {seed}: everything was kept"),
        some => println!("\nVERDICT of seed {seed}: {some} violations"),
    }
    outcome
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "minutes long: scripts/chaos"]
async fn chaos() {
    let faults = list("FAULTS", Fault::all());
    run(&trial(faults, wanted("INSTANCES"), seconds("GAP", 1))).await.assert_clean();
}

/// Nothing that ends the bridge: what grows in it shall be seen.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "half an hour long: scripts/chaos --soak"]
async fn soak() {
    let faults = vec![Fault::Wire, Fault::Cut, Fault::Server(Server::ClickHouse)];
    let soak = Trial { watched: true, ..trial(faults, 1, Duration::from_secs(20)) };
    run(&soak).await.assert_clean();
}
