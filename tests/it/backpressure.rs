//! When the bridge pauses and resumes, what it does meanwhile, and what it says of it.

use std::time::Duration;

use data_bridge::alert::AlertId;
use data_bridge::pipeline::{Ending, Stop};
use data_bridge::status::{Condition, Snapshot};
use tokio::time::Instant;

use crate::rig::logs::Logs;
use crate::rig::sink::{Mode, down};
use crate::rig::source::Kind;
use crate::rig::{NO_BREAKER, Rig};

/// Every table can be held by itself.
const MANY_INSERTS: &str = "[clickhouse]\nmax_in_flight = 16\n";

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// Holds 40,001 records: one more than the pause threshold. What is held in which table is known,
/// so that the level can be lowered step by step.
async fn paused_with_steps(more: &str) -> Rig {
    let mut rig = Rig::both(&format!("{MANY_INSERTS}{more}"));
    rig.sink.all(Mode::Hold);
    for table in ["candles", "external", "signals", "system"] {
        rig.sink.table(table, Mode::Hold);
    }
    rig.nats().push("market.x", 19_999).await;
    rig.nats().push("external.x", 20_000).await;
    rig.nats().push("signals.x", 1).await;
    rig.moment().await;
    assert!(!rig.now().backpressure.active, "40,000 is not above 40,000");
    rig.nats().push("system.stored.x", 1).await;
    rig.moment().await;
    rig
}

fn level(snapshot: &Snapshot) -> (usize, bool) {
    (snapshot.backpressure.current_buffer, snapshot.backpressure.active)
}

#[tokio::test(start_paused = true)]
async fn activation_above_the_pause_threshold_every_source_is_paused() {
    let logs = Logs::collect();
    let rig = paused_with_steps("").await;
    let now = rig.accounts_close();
    assert_eq!(level(&now), (40_001, true));
    assert_eq!(now.backpressure.causes, ["level"]);
    assert_eq!(now.backpressure.pause_count, 1);
    assert!(now.backpressure.last_pause.is_some() && now.backpressure.last_resume.is_none());
    assert!(now.sources.values().all(|source| source.paused));
    assert_eq!(now.condition(Instant::now()), Condition::Degraded);
    let active = logs.with("BACKPRESSURE ACTIVE: Buffer high (40,001/50,000)");
    assert_eq!(active.len(), 1);
    let fields = ["WARN", "cause=\"level\"", "aggregate=19999", "external=20002"];
    assert!(fields.iter().all(|field| active[0].contains(field)), "{active:?}");
    assert_eq!(logs.with("Kafka subscriber paused").len(), 1);
    assert_eq!(logs.with("NATS subscriber paused").len(), 1);
}

#[tokio::test(start_paused = true)]
async fn resume_only_below_the_resume_threshold() {
    let logs = Logs::collect();
    let mut rig = paused_with_steps("").await;
    for (table, left) in [("external", 20_001), ("system", 20_000)] {
        rig.sink.table(table, Mode::Accept);
        rig.after(secs(60)).await;
        assert_eq!(level(&rig.now()), (left, true));
    }
    rig.sink.table("signals", Mode::Accept);
    rig.moment().await;
    let now = rig.accounts_close();
    assert_eq!(level(&now), (19_999, false));
    assert!(now.sources.values().all(|source| !source.paused));
    assert!(now.backpressure.last_resume >= now.backpressure.last_pause);
    assert_eq!(logs.with("BACKPRESSURE RELEASED: Buffer normal (19,999/50,000)").len(), 1);
    assert_eq!(logs.with("INFO").iter().filter(|l| l.contains("subscriber resumed")).count(), 2);
    assert!(now.backpressure.paused_seconds_total >= 120.0);
}

#[tokio::test(start_paused = true)]
async fn hysteresis_between_the_thresholds_nothing_changes_in_either_direction() {
    // Up: 40,000 is held without a pause.
    let mut rig = Rig::both(MANY_INSERTS);
    rig.sink.all(Mode::Hold);
    for _ in 0..40 {
        rig.nats().push("market.x", 1_000).await;
        rig.after(millis(500)).await;
        assert!(!rig.now().backpressure.active);
    }
    rig.after(secs(60)).await;
    assert_eq!(level(&rig.now()), (40_000, false));
    assert_eq!(rig.now().backpressure.pause_count, 0);
    // Down: 20,000 is held, still paused. And up again within, without a second pause.
    let mut rig = paused_with_steps("").await;
    rig.sink.table("external", Mode::Accept);
    rig.after(secs(60)).await;
    assert_eq!(level(&rig.now()), (20_001, true));
    rig.nats().push("system.stored.x", 500).await;
    rig.after(secs(60)).await;
    assert_eq!(level(&rig.now()), (20_501, true));
    assert_eq!(rig.now().backpressure.pause_count, 1);
}

#[tokio::test(start_paused = true)]
async fn no_second_pause_while_paused() {
    let logs = Logs::collect();
    let mut rig = paused_with_steps("").await;
    let last_pause = rig.now().backpressure.last_pause;
    let candles = rig.kafka().assign("candles", 0, 1).await;
    // Heartbeats, a starving source that joins, and more records: all of one episode.
    for _ in 0..20 {
        assert_eq!(rig.kafka().poll(&candles, 10).await, 0);
        rig.nats().push("system.stored.x", 10).await;
        rig.after(secs(3)).await;
    }
    let now = rig.now();
    assert_eq!(now.backpressure.causes, ["level", "starved"]);
    assert_eq!(now.backpressure.pause_count, 1);
    assert_eq!(now.backpressure.last_pause, last_pause);
    assert_eq!(logs.with("BACKPRESSURE ACTIVE").len(), 1);
    assert_eq!(logs.with("subscriber paused").len(), 2, "each source once");
    for table in ["candles", "external", "signals", "system"] {
        rig.sink.table(table, Mode::Accept);
    }
    rig.drained().await;
    assert!(!rig.now().backpressure.active);
    rig.sink.table("candles", Mode::Hold);
    rig.nats().push("market.x", 40_001).await;
    rig.moment().await;
    assert_eq!(rig.now().backpressure.pause_count, 2, "one for each episode");
    assert_eq!(logs.with("BACKPRESSURE ACTIVE").len(), 2);
}

#[tokio::test(start_paused = true)]
async fn nats_drop_counts_by_class_and_subject_and_keeps_system() {
    let mut rig = paused_with_steps("").await;
    rig.nats().push("market.eurusd.m1", 10).await;
    rig.nats().push("market.gbpusd.m1", 7).await;
    rig.nats().push("external.calendar", 3).await;
    rig.nats().push("signals.buy", 2).await;
    rig.nats().push("system.health.a", 4).await;
    rig.nats().push("system.stored.b", 5).await;
    rig.nats().push("nobody.knows", 6).await;
    rig.moment().await;
    let now = rig.accounts_close();
    let nats = &now.sources["nats"];
    let dropped = |class: &str| nats.dropped[class]["paused"];
    assert_eq!([dropped("market"), dropped("external"), dropped("signal")], [17, 3, 2]);
    assert_eq!(nats.dropped_total(), 22);
    let subjects: Vec<_> = nats.dropped_subjects.iter().map(|(s, n)| (s.as_str(), *n)).collect();
    let wanted = [
        ("external.calendar", 3),
        ("market.eurusd.m1", 10),
        ("market.gbpusd.m1", 7),
        ("signals.buy", 2),
    ];
    assert_eq!(subjects, wanted);
    assert_eq!(nats.system["system.health.a"].count, 4);
    assert_eq!(nats.system["system.stored.b"].count, 5);
    assert_eq!(now.backpressure.current_buffer, 40_006, "system records with a table are held");
    assert_eq!(nats.unrouted["nobody.knows"], 6);
    let health = rig.health();
    assert_eq!(health["metrics"]["dropped"], 22);
    assert_eq!(health["metrics"]["sources"]["nats"]["dropped"]["market"], 17);
    // And what was kept lands: everything but what was counted as dropped.
    rig.sink.all(Mode::Accept);
    for table in ["candles", "external", "signals", "system"] {
        rig.sink.table(table, Mode::Accept);
    }
    let now = rig.drained().await;
    assert_eq!(rig.sink.rows("system"), 6);
    assert_eq!(now.sources["nats"].inserted, 40_006);
    rig.nats().push("market.eurusd.m1", 10).await;
    assert_eq!(rig.drained().await.sources["nats"].dropped_total(), 22, "none after the resume");
}

#[tokio::test(start_paused = true)]
async fn native_kafka_pause_within_two_heartbeats_and_resume_at_the_transition_itself() {
    let logs = Logs::collect();
    let mut rig = Rig::kafka_alone(NO_BREAKER);
    rig.sink.all(down());
    let candles = rig.kafka().assign("candles", 0, 1).await;
    rig.kafka().pull(&candles, 40_000).await;
    let stopped_at = Instant::now();
    while !rig.kafka().is_natively_paused() {
        assert_eq!(rig.kafka().poll(&candles, 100).await, 0);
        rig.after(millis(100)).await;
        assert!(stopped_at.elapsed() <= secs(10), "not within two heartbeats");
    }
    let now = rig.now();
    assert_eq!((now.backpressure.active, now.sources["kafka"].paused), (true, true));
    assert_eq!(now.backpressure.causes, ["starved"]);
    let shown = |now: &Snapshot| now.sources["kafka"].natively_paused == Some(true);
    rig.until("what is so is shown", shown).await;
    rig.sink.all(Mode::Accept);
    let released = rig.until("released", |now| !now.backpressure.active).await;
    rig.after(millis(1)).await;
    assert!(!rig.kafka().is_natively_paused());
    let (paused, at) = *rig.kafka().story.lock().unwrap().native.last().unwrap();
    assert!(!paused && at <= released.turned_at.unwrap() + millis(1));
    assert_eq!(logs.with("Kafka subscriber paused").len(), 1);
    assert_eq!(logs.with("Kafka subscriber resumed").len(), 1);
    rig.drained().await;
}

#[tokio::test(start_paused = true)]
async fn native_pause_for_the_level_waits_for_the_heartbeat() {
    let mut rig = paused_with_steps("[heartbeat]\ninterval = \"60s\"").await;
    rig.after(secs(30)).await;
    assert!(rig.now().sources["kafka"].paused && !rig.kafka().is_natively_paused());
    rig.after(secs(31)).await;
    assert!(rig.kafka().is_natively_paused());
    for table in ["external", "signals", "system"] {
        rig.sink.table(table, Mode::Accept);
    }
    rig.moment().await;
    assert!(!rig.kafka().is_natively_paused(), "long before the next heartbeat");
}

#[tokio::test(start_paused = true)]
async fn the_health_keys_that_users_scrape_have_their_names_and_types() {
    let mut rig = Rig::both(MANY_INSERTS);
    rig.moment().await;
    let keys = [
        ("active", false.into()),
        ("nats_paused", false.into()),
        ("kafka_paused", false.into()),
        ("current_buffer", 0.into()),
        ("pause_threshold", 40_000.into()),
        ("resume_threshold", 20_000.into()),
        ("pause_count", 0.into()),
        ("last_pause", serde_json::Value::Null),
        ("last_resume", serde_json::Value::Null),
    ];
    let health = rig.health();
    for (key, value) in &keys {
        assert_eq!(health["metrics"]["backpressure"].get(key), Some(value), "{key}");
    }
    rig.sink.all(Mode::Hold);
    rig.nats().push("market.x", 40_001).await;
    rig.moment().await;
    let health = rig.health();
    let backpressure = &health["metrics"]["backpressure"];
    assert_eq!(backpressure["active"], true);
    assert_eq!(
        (&backpressure["nats_paused"], &backpressure["kafka_paused"]),
        (&true.into(), &true.into())
    );
    assert_eq!(
        (&backpressure["current_buffer"], &backpressure["pause_count"]),
        (&40_001.into(), &1.into())
    );
    let last_pause: jiff::Timestamp = backpressure["last_pause"].as_str().unwrap().parse().unwrap();
    assert!(backpressure["last_pause"].as_str().unwrap().ends_with('Z'));
    rig.sink.all(Mode::Accept);
    rig.drained().await;
    let health = rig.health();
    let last_resume = &health["metrics"]["backpressure"]["last_resume"];
    assert!(last_resume.as_str().unwrap().parse::<jiff::Timestamp>().unwrap() >= last_pause);
    assert_eq!(health["metrics"]["backpressure"]["peak_buffer"], 40_001);
    assert_eq!(health["status"], "healthy");
}

#[tokio::test(start_paused = true)]
async fn an_absent_source_is_never_paused() {
    let mut rig = Rig::nats_alone("");
    rig.sink.all(Mode::Hold);
    rig.nats().push("market.x", 40_001).await;
    rig.moment().await;
    let health = rig.health();
    assert_eq!(health["metrics"]["backpressure"]["nats_paused"], true);
    assert_eq!(health["metrics"]["backpressure"]["kafka_paused"], false);
    assert_eq!(health["metrics"]["sources"].get("kafka"), None);
}

#[tokio::test(start_paused = true)]
async fn the_alert_comes_after_five_and_ten_minutes_and_is_repeated() {
    let logs = Logs::collect();
    let mut rig = Rig::both(NO_BREAKER);
    rig.sink.all(down());
    rig.nats().push("market.x", 40_001).await;
    rig.moment().await;
    let said = |logs: &Logs| {
        let warnings = logs.with("WARNING: Backpressure active for").len();
        (warnings, logs.with("CRITICAL: Backpressure active for").len())
    };
    rig.after(secs(295)).await;
    assert_eq!(said(&logs), (0, 0));
    rig.after(secs(15)).await;
    assert_eq!(
        logs.with("WARN").iter().filter(|l| l.contains("active for 5.0 minutes")).count(),
        1
    );
    assert_eq!(said(&logs), (1, 0));
    assert!(rig.firing().iter().any(|alert| alert.id == AlertId::Paused));
    assert_eq!(rig.now().condition(Instant::now()), Condition::Degraded);
    rig.after(secs(270)).await;
    assert_eq!(said(&logs), (5, 0), "every minute");
    rig.after(secs(30)).await;
    let sentence = "CRITICAL: Backpressure active for 10.0 minutes! \
                    ClickHouse write bottleneck detected";
    assert_eq!(logs.with("ERROR").iter().filter(|line| line.contains(sentence)).count(), 1);
    assert_eq!(rig.now().condition(Instant::now()), Condition::Critical);
    rig.after(secs(180)).await;
    assert_eq!(said(&logs), (5, 4));
    rig.sink.all(Mode::Accept);
    rig.drained().await;
    rig.after(secs(300)).await;
    assert_eq!(said(&logs), (5, 4), "no alert without a pause");
    assert_eq!(rig.firing().len(), 0);
    assert_eq!(rig.now().condition(Instant::now()), Condition::Healthy);
}

#[tokio::test(start_paused = true)]
async fn resume_before_stop() {
    let logs = Logs::collect();
    let mut rig = paused_with_steps("").await;
    rig.after(secs(6)).await;
    assert!(rig.kafka().is_natively_paused());
    rig.tell(Stop::Drain);
    rig.moment().await;
    let now = rig.now();
    assert!(!now.backpressure.active && now.sources.values().all(|source| !source.paused));
    assert_eq!(now.condition(Instant::now()), Condition::Draining);
    assert!(!rig.kafka().is_natively_paused(), "for real");
    // What NATS had delivered is taken, though the level is above the threshold.
    rig.nats().push("market.late", 100).await;
    rig.moment().await;
    assert_eq!(rig.now().sources["nats"].dropped_total(), 0);
    for table in ["candles", "external", "signals", "system"] {
        rig.sink.table(table, Mode::Accept);
    }
    assert_eq!(rig.ending().await, Ending { abandoned: 0, closed: true, aborted: false });
    let order = [
        "stopping: draining",
        "BACKPRESSURE RELEASED: Buffer normal (40,001/50,000) for shutdown",
        "Kafka subscriber resumed for shutdown",
        "stopping: nothing is held any more",
        "closed event=\"source_closed\" source=\"kafka\"",
    ];
    let places = order.map(|line| logs.place(line));
    assert!(places.is_sorted(), "{places:?}");
    assert_eq!(rig.sink.rows("candles"), 20_099);
    rig.accounts_close();
}

#[tokio::test(start_paused = true)]
async fn drain_while_paused_without_new_traffic() {
    let mut rig = Rig::both(NO_BREAKER);
    rig.sink.all(down());
    rig.nats().push("market.x", 30_000).await;
    rig.nats().push("external.x", 10_500).await;
    rig.moment().await;
    assert!(rig.now().backpressure.active);
    rig.after(secs(60)).await;
    rig.sink.all(Mode::Accept);
    // From here on every source is silent.
    let began = Instant::now();
    rig.until("resumed", |now| !now.backpressure.active).await;
    rig.drained().await;
    assert!(began.elapsed() < secs(31), "within the longest backoff: {:?}", began.elapsed());
    assert_eq!(rig.sink.ids("candles").len() + rig.sink.ids("external").len(), 40_500);
}

#[tokio::test(start_paused = true)]
async fn a_literal_rule_45_000_into_kafka_alone_with_a_pull_limit_of_50_000() {
    let logs = Logs::collect();
    let mut rig = Rig::kafka_alone(&format!("{NO_BREAKER}[backpressure]\npull_limit = 50_000"));
    rig.sink.all(down());
    let candles = rig.kafka().assign("candles", 0, 1).await;
    let mut taken = 0;
    let mut vain = 0;
    while taken < 45_000 && vain < 100 {
        let poll = rig.kafka().poll(&candles, 500.min(45_000 - taken)).await;
        taken += poll;
        rig.after(millis(20)).await;
        let (held, active) = level(&rig.now());
        assert!(held <= 40_500 && (active || held <= 40_000), "{held} held, active: {active}");
        vain += u32::from(poll == 0);
    }
    rig.moment().await;
    let now = rig.now();
    assert!(now.backpressure.active && now.backpressure.current_buffer > 40_000);
    assert!(now.backpressure.causes.contains(&"level"));
    rig.after(secs(60)).await;
    assert_eq!(rig.now().backpressure.pause_count, 1);
    assert!(rig.kafka().is_natively_paused());
    rig.sink.all(Mode::Accept);
    let released = rig.until("released", |now| !now.backpressure.active).await;
    assert!(released.backpressure.current_buffer < 20_000);
    rig.kafka().pull(&candles, 45_000 - taken).await;
    let now = rig.drained().await;
    assert_eq!(rig.sink.ids("candles").len(), 45_000);
    assert_eq!(now.backpressure.pause_count, 1);
    assert!(now.backpressure.peak_buffer > 40_000 && now.backpressure.peak_buffer <= 50_000);
    assert_eq!((logs.with("BACKPRESSURE ACTIVE").len(), logs.with("RELEASED").len()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn with_the_default_pull_limit_kafka_alone_stops_at_it_and_is_paused_as_starved() {
    let mut rig = Rig::kafka_alone(NO_BREAKER);
    rig.sink.all(down());
    let candles = rig.kafka().assign("candles", 0, 1).await;
    let mut taken = 0;
    for _ in 0..200 {
        taken += rig.kafka().poll(&candles, 1_000).await;
        rig.after(millis(60)).await;
    }
    assert_eq!(taken, 40_000);
    let now = rig.accounts_close();
    assert_eq!(now.backpressure.current_buffer, 40_000);
    assert_eq!(now.backpressure.causes, ["starved"]);
    assert!(rig.kafka().is_natively_paused());
    rig.sink.all(Mode::Accept);
    rig.until("released", |now| !now.backpressure.active).await;
    rig.kafka().pull(&candles, 5_000).await;
    assert_eq!(rig.drained().await.backpressure.pause_count, 1);
    assert_eq!(rig.sink.ids("candles").len(), 45_000);
}

#[tokio::test(start_paused = true)]
async fn a_pulled_source_that_starves_does_not_pause_nats() {
    let mut rig = Rig::both(NO_BREAKER);
    rig.sink.all(down());
    let candles = rig.kafka().assign("candles", 0, 1).await;
    rig.kafka().pull(&candles, 30_000).await;
    for _ in 0..12 {
        assert_eq!(rig.kafka().poll(&candles, 100).await, 0);
        rig.nats().push("market.x", 10).await;
        rig.after(secs(1)).await;
    }
    let now = rig.accounts_close();
    assert_eq!(now.backpressure.causes, ["starved"]);
    assert!(now.sources["kafka"].paused && !now.sources["nats"].paused);
    assert_eq!(now.sources["nats"].dropped_total(), 0);
    assert_eq!(now.backpressure.current_buffer, 30_120);
}

#[tokio::test(start_paused = true)]
async fn a_backlog_beside_live_nats_with_a_healthy_sink_means_no_pause_and_no_drop() {
    let mut rig = Rig::both("");
    rig.sink.throttle(20_000);
    rig.sink.only_count();
    let candles = rig.kafka().assign("candles", 0, 1).await;
    let (mut pulled, mut most) = (0, 0);
    // 1,000 NATS records a second for 15 s, and as much from Kafka as there are credits for.
    for _ in 0..1_500 {
        while let taken @ 1.. = rig.kafka().poll(&candles, 1_000).await {
            pulled += taken;
        }
        rig.nats().push("market.x", 10).await;
        rig.after(millis(10)).await;
        most = most.max(rig.now().backpressure.current_buffer);
    }
    let now = rig.drained().await;
    assert!(pulled > 250_000, "{pulled} pulled");
    assert!(most > 29_000, "the backlog fills what it may: {most}");
    assert_eq!(now.backpressure.pause_count, 0);
    assert_eq!(now.sources["nats"].dropped_total(), 0);
    assert_eq!(now.sources["nats"].inserted, 15_000);
}

#[tokio::test(start_paused = true)]
async fn bytes_pause_above_eighty_percent_and_resume_below_forty() {
    let limit = 1024 * 1024;
    let (pause, resume) = (limit / 10 * 8, limit / 10 * 4);
    let more = format!("{MANY_INSERTS}[backpressure]\nmax_buffer_bytes = \"1MiB\"");
    let mut rig = Rig::both(&more);
    for table in ["candles", "external", "signals"] {
        rig.sink.table(table, Mode::Hold);
    }
    let mut paused = false;
    for subject in ["market.x", "external.x", "signals.x"].into_iter().cycle().take(100) {
        rig.nats().push_heavy(subject, 10_000).await;
        rig.moment().await;
        let now = rig.now();
        paused |= now.backpressure.current_bytes > pause;
        assert_eq!(now.backpressure.active, paused, "{}", now.backpressure.current_bytes);
        assert!(now.backpressure.current_bytes < pause + 11_000);
    }
    assert!(paused && rig.now().sources["nats"].dropped_total() > 0);
    assert!(rig.now().backpressure.current_buffer < 100, "few records are held");
    assert_eq!(rig.credits.reserve(1), 0, "pulled sources wait as well");
    rig.sink.table("signals", Mode::Accept);
    rig.after(secs(30)).await;
    let bytes = rig.now().backpressure.current_bytes;
    assert!(bytes > resume && bytes < pause && rig.now().backpressure.active, "{bytes}");
    rig.sink.table("external", Mode::Accept);
    rig.moment().await;
    let now = rig.now();
    assert!(now.backpressure.current_bytes < resume && !now.backpressure.active);
    rig.sink.table("candles", Mode::Accept);
    assert_eq!(rig.drained().await.backpressure.current_bytes, 0);
}

#[tokio::test(start_paused = true)]
async fn pulled_sources_stop_below_the_byte_limit_without_a_pause_while_the_sink_works() {
    let more = "[backpressure]\nmax_buffer_bytes = \"1MiB\"";
    let mut rig = Rig::kafka_alone(more);
    rig.sink.throttle(5_000);
    let candles = rig.kafka().assign("candles", 0, 1).await;
    for _ in 0..2_000 {
        rig.kafka().poll(&candles, 200).await;
        rig.after(millis(5)).await;
    }
    let now = rig.drained().await;
    assert_eq!(now.backpressure.pause_count, 0);
    assert!(rig.sink.rows("candles") > 40_000, "{}", rig.sink.rows("candles"));
}

#[tokio::test(start_paused = true)]
async fn the_cap_is_never_passed_however_much_comes_at_once() {
    // Not paused: one chunk takes it from below the threshold to the cap, and not beyond.
    let mut rig = Rig::both(MANY_INSERTS);
    rig.sink.all(Mode::Hold);
    rig.nats().push("market.x", 39_000).await;
    rig.nats().push_at_once("market.x", &[Kind::Good; 30_000]).await;
    rig.moment().await;
    let now = rig.accounts_close();
    assert_eq!(now.backpressure.peak_buffer, 50_000);
    assert_eq!(now.sources["nats"].dropped["market"]["cap"], 19_000);
    // Paused: everything is dropped, and counted.
    rig.nats().push_at_once("market.x", &[Kind::Good; 100_000]).await;
    rig.moment().await;
    let now = rig.accounts_close();
    assert_eq!(now.backpressure.peak_buffer, 50_000);
    assert_eq!(now.sources["nats"].dropped["market"]["paused"], 100_000);
    // `system` with a table: its reserve of 1,000 rows, outside the cap.
    rig.nats().push("system.stored.x", 1_500).await;
    rig.nats().push("system.health", 1_500).await;
    rig.moment().await;
    let now = rig.accounts_close();
    assert_eq!(now.backpressure.current_buffer, 51_000);
    assert_eq!(now.sources["nats"].dropped["system"]["reserve"], 500);
    assert_eq!(now.sources["nats"].system["system.health"].count, 1_500);
    rig.sink.all(Mode::Accept);
    assert_eq!(rig.drained().await.sources["nats"].inserted, 51_000);
    assert_eq!(rig.credits.used(), 0);
}

#[tokio::test(start_paused = true)]
async fn the_cap_holds_while_both_sources_flood_a_slow_sink() {
    let mut rig = Rig::both("[backpressure]\npull_limit = 50_000");
    rig.sink.throttle(30_000);
    rig.sink.only_count();
    let candles = rig.kafka().assign("candles", 0, 1).await;
    for _ in 0..200 {
        for _ in 0..5 {
            rig.kafka().poll(&candles, 1_000).await;
            rig.nats().push("market.x", 1_000).await;
        }
        rig.after(millis(10)).await;
    }
    let now = rig.drained().await;
    assert!(now.backpressure.peak_buffer <= 50_000, "{}", now.backpressure.peak_buffer);
    assert!(now.backpressure.pause_count >= 1 && now.sources["nats"].dropped_total() > 0);
}

/// The share of the sink's rate that an endless pulled backlog reaches.
///
/// What this shows: with the default thresholds, batches, lingers and credits, the sink is never
/// left without a batch. What it cannot show, because computing takes no time here: that the
/// bridge decodes fast enough, and what librdkafka does at its pace. That is measured with real
/// servers.
async fn share_of_the_sinks_rate(sources: fn(&str) -> Rig, rate: u32, seconds: u64) -> f64 {
    let mut rig = sources("");
    rig.sink.throttle(rate);
    rig.sink.only_count();
    let candles = rig.kafka().assign("candles", 0, 1).await;
    let (began, mut warm) = (Instant::now(), None);
    while began.elapsed() < secs(seconds + 1) {
        if warm.is_none() && began.elapsed() >= secs(1) {
            warm = Some((Instant::now(), rig.sink.rows("candles")));
        }
        if rig.kafka().poll(&candles, 1_000).await == 0 {
            rig.after(millis(1)).await;
        }
    }
    let (since, before) = warm.unwrap();
    let rows = rig.sink.rows("candles") - before;
    assert_eq!(rig.now().backpressure.pause_count, 0, "plenty is no reason to pause");
    assert!(rig.now().backpressure.peak_buffer <= 50_000);
    f64::from(u32::try_from(rows).unwrap()) / since.elapsed().as_secs_f64() / f64::from(rate)
}

#[tokio::test(start_paused = true)]
async fn an_endless_backlog_keeps_a_sink_of_50_000_rows_a_second_busy() {
    for sources in [Rig::kafka_alone, Rig::both] {
        let share = share_of_the_sinks_rate(sources, 50_000, 6).await;
        assert!(share >= 0.95, "{share:.3} of the rate");
    }
}

#[tokio::test(start_paused = true)]
async fn an_endless_backlog_keeps_a_sink_of_200_000_rows_a_second_busy() {
    for sources in [Rig::kafka_alone, Rig::both] {
        let share = share_of_the_sinks_rate(sources, 200_000, 2).await;
        assert!(share >= 0.95, "{share:.3} of the rate");
    }
}
