//! Random histories of records, faults, restarts with other settings, revocations and time.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use data_bridge::config::Config;
use data_bridge::source::SourceEvent;
use proptest::prelude::*;
use tokio::time::timeout;

use super::{ONCE, World, once};
use crate::rig::sink::Mode;
use crate::rig::source::Kind;
use crate::rig::{Sources, config, in_paused_time};

const PARTITIONS: i32 = 3;

/// The same limits, and other boundaries for batches; another writer, so that the rows are other
/// batches.
static CONFIGS: LazyLock<[Arc<Config>; 3]> = LazyLock::new(|| {
    let settings = |rows: u32, linger: &str| {
        format!(
            "[backpressure]\nmax_buffer_size = 50\npause_threshold = 40\nresume_threshold = 20\n\
             [writers.aggregate]\nbatch_rows = {rows}\nlinger = \"{linger}\"\n\
             [writers.external]\nbatch_rows = 7\n[retry]\nmax_delay = \"2s\"\n[clickhouse]\nmax_in_flight = 3\n"
        )
    };
    let by_another = ONCE.replace("aggregate", "external");
    let by_another = config(Sources::Kafka, &format!("{}\n{by_another}", settings(10, "1s")));
    [once(&settings(10, "1s")), once(&settings(17, "300ms")), by_another]
});

#[derive(Debug, Clone)]
enum Step {
    Poll { partition: i32, count: usize },
    Mode { all: bool, mode: usize },
    Once { letters: bool, mode: usize },
    Time { millis: u64 },
    Kill { config: usize },
    Revoke { partition: i32, within_millis: u64 },
    Lose { partition: i32 },
    Reload { config: usize },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0..PARTITIONS, 1..30_usize)
            .prop_map(|(partition, count)| Step::Poll { partition, count }),
        3 => (any::<bool>(), 0..6_usize).prop_map(|(all, mode)| Step::Mode { all, mode }),
        2 => (any::<bool>(), prop::sample::select(vec![1, 2, 4, 5]))
            .prop_map(|(letters, mode)| Step::Once { letters, mode }),
        1 => Just(Step::Once { letters: false, mode: 6 }),
        4 => (0..3_000_u64).prop_map(|millis| Step::Time { millis }),
        3 => (0..3_usize).prop_map(|config| Step::Kill { config }),
        3 => (0..3_usize).prop_map(|config| Step::Reload { config }),
        2 => (0..PARTITIONS, 0..2_000_u64)
            .prop_map(|(partition, within_millis)| Step::Revoke { partition, within_millis }),
        1 => (0..PARTITIONS).prop_map(|partition| Step::Lose { partition }),
    ]
}

async fn take(world: &mut World, step: &Step) {
    let table = |second: bool| if second { crate::rig::sink::DEAD_LETTERS } else { "once" };
    match *step {
        Step::Poll { partition, count } => {
            world.poll(partition, count).await;
        }
        Step::Mode { all: true, mode } => world.rig.sink.all(Mode::of(mode)),
        Step::Mode { all: false, mode } => world.rig.sink.table("once", Mode::of(mode)),
        Step::Once { letters, mode } => world.rig.sink.once(table(letters), Mode::of(mode)),
        Step::Time { millis } => world.rig.after(Duration::from_millis(millis)).await,
        // It waits while what was noted is taken up.
        Step::Reload { config } => {
            if let Err(why) = world.rig.change_to(&CONFIGS[config]).await {
                assert!(why.contains("taken up"), "{why}");
            }
        }
        Step::Kill { config } => world.restart(&CONFIGS[config]).await,
        Step::Revoke { partition, within_millis } => {
            let going = Arc::clone(&world.assigned[&partition]);
            let within = Duration::from_millis(within_millis);
            let answer = world.rig.kafka().revoke(&[&going], within).await;
            let answer = timeout(within + Duration::from_millis(1), answer).await;
            let answer = answer.expect("within the deadline").expect("there is an answer");
            world.group.lock().unwrap().look(&world.rig.kafka().story);
            answer.iter().for_each(|position| world.group.lock().unwrap().commit(position));
            world.assign(partition).await;
        }
        Step::Lose { partition } => {
            let lost = Arc::clone(&world.assigned[&partition]);
            world.rig.kafka().send(SourceEvent::Lost(vec![lost])).await;
            world.rig.moment().await;
            world.group.lock().unwrap().look(&world.rig.kafka().story);
            world.assign(partition).await;
        }
    }
    world.rig.after(Duration::from_millis(120)).await;
    let now = world.rig.accounts_close();
    assert!(now.backpressure.peak_buffer <= 50, "{} held", now.backpressure.peak_buffer);
}

/// As many as run in some seconds; `HISTORIES=10000` for more.
fn cases() -> u32 {
    std::env::var("HISTORIES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(400)
}

proptest! {
    #![proptest_config(ProptestConfig {
        max_shrink_iters: 300,
        failure_persistence: None,
        ..ProptestConfig::with_cases(cases())
    })]

    #[test]
    fn whatever_happens_every_record_lands_once(steps in prop::collection::vec(step(), 1..30)) {
        in_paused_time(async {
            let mut world = World::begin_with(&CONFIGS[0], PARTITIONS, Kind::mixed).await;
            for step in &steps {
                take(&mut world, step).await;
            }
            world.rig.sink.all(Mode::Accept);
            world.rig.sink.table("once", Mode::Accept);
            world.catch_up().await;
            world.everything_is_there_once();
        });
    }
}
