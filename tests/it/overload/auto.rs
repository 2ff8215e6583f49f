//! Limits that are chosen from the memory that there is, and where the level is going.

use std::sync::Arc;
use std::time::Duration;

use data_bridge::config::{self, Memory};
use data_bridge::memory::limit::Limit;

use crate::rig::logs::Logs;
use crate::rig::sink::Mode;
use crate::rig::{NO_BREAKER, Rig, Sources, config as configured};

const AUTO: &str = "[backpressure]\nthresholds = \"auto\"\nmemory_budget = \"204MiB\"\n";
const MIB: usize = 1024 * 1024;
const HEARTBEAT: Duration = Duration::from_secs(5);

fn float(count: usize) -> f64 {
    f64::from(u32::try_from(count).unwrap())
}

fn limits(rig: &Rig) -> [usize; 4] {
    let b = rig.now().backpressure.clone();
    [b.max_buffer_size, b.pull_limit, b.pause_threshold, b.resume_threshold]
}

#[tokio::test(start_paused = true)]
async fn the_cap_follows_what_records_weigh_a_step_at_a_time() {
    let logs = Logs::collect();
    let mut rig = Rig::both(AUTO);
    rig.moment().await;
    let start = limits(&rig);
    let bytes = rig.now().backpressure.max_buffer_bytes;
    assert_eq!(start[0], bytes / 1_024, "1 KiB is assumed");
    for _ in 0..40 {
        let before = limits(&rig)[0];
        rig.nats().push("market.x", 2_000).await;
        rig.after(HEARTBEAT).await;
        let [cap, pull, pause, resume] = limits(&rig);
        assert!(cap.abs_diff(before) <= before / 10 + 1);
        let shares = [cap * 60 / 100, cap * 80 / 100, cap * 40 / 100];
        assert_eq!([pull, pause, resume], shares);
    }
    let auto = rig.health()["metrics"]["backpressure"]["auto"].clone();
    let weight = auto["record_bytes"].as_f64().unwrap();
    assert!(weight < 200.0, "{auto}");
    let wanted = float(bytes) / weight;
    assert!((float(limits(&rig)[0]) / wanted - 1.0).abs() < 0.06, "{} {wanted}", limits(&rig)[0]);
    let budget = rig.health()["metrics"]["backpressure"]["memory_budget_bytes"].clone();
    assert_eq!(budget, 204 * MIB);
    assert!(auto["why"].as_str().unwrap().contains("204 MiB (memory_budget)"), "{auto}");
    assert!(!logs.with("thresholds = \"auto\": the cap is").is_empty());
    assert_eq!(rig.now().backpressure.max_buffer_bytes, bytes, "which follow from the memory");
    // Ten times as heavy, and the cap comes down as far as batches allow.
    for _ in 0..60 {
        for _ in 0..100 {
            rig.nats().push_heavy("market.x", 10_000).await;
        }
        rig.after(HEARTBEAT).await;
    }
    let cap = limits(&rig)[0];
    assert!((20_000..=21_000).contains(&cap), "two of the largest batches, or close: {cap}");
    rig.drained().await;
}

#[tokio::test(start_paused = true)]
async fn with_a_stalled_sink_and_heavy_records_bytes_stop_what_comes_before_memory_does() {
    let keep = "[overload]\ndrop_while_paused = []\n";
    let mut rig = Rig::both(&format!("{AUTO}{keep}{NO_BREAKER}"));
    rig.sink.all(Mode::Hold);
    let candles = rig.kafka().assign("candles", 0, 1).await;
    for _ in 0..10_000 {
        rig.nats().push_heavy("market.x", 10_000).await;
    }
    assert_eq!(rig.kafka().poll(&candles, 10).await, 0, "pulled sources wait");
    rig.moment().await;
    let now = rig.accounts_close();
    let limit = now.backpressure.max_buffer_bytes;
    assert!(now.backpressure.active);
    assert!(now.backpressure.current_bytes <= limit + 10_240, "{}", now.backpressure.current_bytes);
    assert!(now.sources["nats"].dropped["market"]["cap"] > 0);
    rig.sink.all(Mode::Accept);
    rig.drained().await;
}

#[tokio::test(start_paused = true)]
async fn what_is_held_stays_within_a_cap_that_comes_down() {
    let mut rig = Rig::nats_alone(AUTO);
    for _ in 0..30 {
        rig.nats().push("market.x", 2_000).await;
        rig.after(HEARTBEAT).await;
    }
    rig.sink.all(Mode::Hold);
    rig.nats().push("market.x", 60_000).await;
    rig.moment().await;
    let held = rig.now().backpressure.current_buffer;
    assert!(held >= 60_000);
    for _ in 0..30 {
        for _ in 0..100 {
            rig.nats().push_heavy("external.x", 10_000).await;
        }
        rig.after(HEARTBEAT).await;
        let now = rig.accounts_close();
        assert!(now.backpressure.current_buffer <= now.backpressure.max_buffer_size);
    }
    rig.sink.all(Mode::Accept);
    rig.drained().await;
}

#[tokio::test(start_paused = true)]
async fn a_limit_that_changes_moves_the_bytes_at_once_and_the_cap_step_by_step() {
    let mut rig = Rig::nats_alone("[backpressure]\nthresholds = \"auto\"\n");
    let known = |bytes: usize| Some(Limit { bytes, from: "a test".to_owned() });
    rig.memory.send_replace(known(2_048 * MIB));
    rig.after(HEARTBEAT * 60).await;
    let large = (limits(&rig)[0], rig.now().backpressure.max_buffer_bytes);
    rig.memory.send_replace(known(256 * MIB));
    rig.after(HEARTBEAT).await;
    let now = rig.now().backpressure.clone();
    assert!(now.max_buffer_bytes * 10 < large.1, "{} of {}", now.max_buffer_bytes, large.1);
    assert!(now.max_buffer_size >= large.0 / 10 * 8, "{} of {}", now.max_buffer_size, large.0);
    assert!(now.auto.is_some_and(|auto| auto.why.contains("256 MiB: a test")));
    rig.after(HEARTBEAT * 60).await;
    assert!(limits(&rig)[0] <= now.max_buffer_bytes / 1_024 * 11 / 10, "{}", limits(&rig)[0]);
    // Another configuration is compared with what is known now, and changes nothing of it.
    let before = limits(&rig);
    let same = "[backpressure]\nthresholds = \"auto\"\n[retry]\nmax_delay = \"10s\"\n";
    let mut other = configured(Sources::Nats, same);
    let limits_of_other = &mut Arc::make_mut(&mut other).backpressure;
    let auto = limits_of_other.auto.as_mut().unwrap();
    auto.memory = Memory::within(&known(256 * MIB).unwrap(), auto.memory.fetched);
    limits_of_other.memory_budget = Some(auto.memory.budget);
    rig.change_to(&other).await.unwrap();
    rig.moment().await;
    assert_eq!(limits(&rig), before);
}

#[tokio::test(start_paused = true)]
async fn how_long_until_full_and_until_drained_follows_from_the_rates() {
    let mut rig = Rig::nats_alone(NO_BREAKER);
    rig.sink.all(Mode::Hold);
    // Between two heartbeats come ten times 1,000: none of them at the same moment as one.
    rig.after(Duration::from_millis(250)).await;
    for _ in 0..22 {
        rig.nats().push("market.x", 1_000).await;
        rig.after(Duration::from_millis(500)).await;
    }
    let forecast = rig.health()["metrics"]["forecast"].clone();
    let full = forecast["full_in_seconds"].as_f64().unwrap();
    // 2,000 a second, and 20,000 of 50,000 are held.
    assert!((14.9..15.1).contains(&full), "{forecast}");
    assert!(forecast["drained_in_seconds"].is_null());
    rig.sink.throttle(1_000);
    rig.sink.all(Mode::Accept);
    rig.after(4 * HEARTBEAT).await;
    let now = rig.now();
    let drained = now.forecast.drained_in_seconds.unwrap();
    assert!(now.forecast.full_in_seconds.is_none());
    // Half a minute is looked back, and a part of it is from before the turn.
    assert!(drained < 30.0, "{drained} s for {}", now.backpressure.current_buffer);
    rig.drained().await;
    rig.after(8 * HEARTBEAT).await;
    assert_eq!(rig.now().forecast, Default::default(), "nothing moves");
}

#[test]
fn what_is_chosen_is_not_given_too() {
    let load = |keys: &str| {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("c.toml");
        let route = "[kafka]\n[[routes]]\nname = \"x\"\nkafka_topics = [\"x\"]\ntable = \"t\"\n";
        std::fs::write(&file, format!("[backpressure]\n{keys}\n{route}")).unwrap();
        config::load(&[file]).map_err(|error| error.to_string())
    };
    let auto = load("thresholds = \"auto\"").unwrap().backpressure;
    assert!(auto.auto.is_some_and(|auto| auto.memory.budget > 64 * MIB), "of this machine");
    let refused = |keys: &str, wanted: &[&str]| {
        let error = load(keys).expect_err(keys);
        assert!(wanted.iter().all(|part| error.contains(part)), "{keys}: {error}");
    };
    for key in ["max_buffer_size = 60000", "pull_limit = 30000", "max_buffer_bytes = \"1GiB\""] {
        refused(&format!("thresholds = \"auto\"\n{key}"), &[key, "is chosen by"]);
    }
    refused(
        "thresholds = \"auto\"\nmemory_budget = \"1MiB\"",
        &["at least \"", "48MiB for the process"],
    );
    refused("thresholds = \"automatic\"", &["must be \"fixed\" or \"auto\""]);
}

/// Alone it is about bytes: the records that may be held are as many as before.
#[test]
fn a_budget_is_shared_by_what_is_fetched_ahead_and_what_is_held() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("bridge.toml");
    let load = |limits: &str, kafka: &str| {
        let route = "[[routes]]\nname = \"x\"\nkafka_topics = [\"x\"]\ntable = \"t\"\n";
        std::fs::write(&file, format!("[backpressure]\n{limits}\n[kafka]\n{kafka}\n{route}"))
            .unwrap();
        config::load(std::slice::from_ref(&file)).map_err(|error| error.to_string())
    };
    let bytes = |limits: &str, kafka: &str| {
        let config = load(limits, kafka).unwrap();
        let (held, ahead) =
            (config.backpressure.max_buffer_bytes, config.kafka.unwrap().prefetch_bytes);
        (held / MIB, ahead / MIB)
    };
    assert_eq!(bytes("", ""), (256, 32));
    // 200 - 48 - 16 - 25 = 111, of which a third.
    assert_eq!(bytes("memory_budget = \"200MiB\"", ""), (37, 25));
    assert_eq!(bytes("memory_budget = \"2GiB\"", ""), (650, 32), "never more than the default");
    assert_eq!(bytes("memory_budget = \"200MiB\"", "prefetch_bytes = \"100MiB\""), (12, 100));
    let given = "memory_budget = \"200MiB\"\nmax_buffer_bytes = \"30MiB\"";
    assert_eq!(bytes(given, ""), (30, 25), "what is given stays, if it fits");
    let refused = |limits: &str, wanted: &str| {
        let error = load(limits, "").expect_err(limits);
        assert!(error.contains("backpressure.memory_budget") && error.contains(wanted), "{error}");
    };
    refused("memory_budget = \"200MiB\"\nmax_buffer_bytes = \"50MiB\"", "at least \"239MiB\"");
    refused("memory_budget = \"64MiB\"", "raise it");
}
