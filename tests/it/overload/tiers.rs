//! The tiers in the pipeline: who is lost at which level, and that every loss is accounted for.

use std::collections::BTreeMap;

use data_bridge::status::Snapshot;

use crate::rig::logs::Logs;
use crate::rig::sink::Mode;
use crate::rig::{NO_BREAKER, Rig};

/// The issue's own example.
pub(super) const TIERS: &str = r#"
[overload]
drop_while_paused = ["market"]
[[overload.tiers]]
at_percent = 50
sample = { market = 2 }
[[overload.tiers]]
at_percent = 70
sample = { market = 10 }
[[overload.tiers]]
at_percent = 95
drop_below = "system"
"#;

/// Of one class, from Kafka; and market records to bring the tiers on.
const LOSSY_AND_SAFE: &str = r#"
[[routes]]
name = "lossy"
kafka_topics = ["lossy"]
class = "market"
writer = "aggregate"
table = "lossy"
format = "json"
overload = { may_drop = true }
[[routes]]
name = "safe"
kafka_topics = ["safe"]
class = "market"
writer = "aggregate"
table = "safe"
format = "json"
[[routes]]
name = "pushed"
nats_subjects = ["market.>", "external.>"]
class = "external"
writer = "aggregate"
table = "pushed"
format = "json"
"#;

fn dropped(snapshot: &Snapshot, class: &str) -> BTreeMap<&'static str, u64> {
    snapshot.sources["nats"].dropped[class].clone()
}

/// What the tiers say of their losses is what the sources say of theirs.
pub(super) fn tiers_account_for_all(snapshot: &Snapshot) {
    let mut by_tiers: BTreeMap<(String, &str), u64> = BTreeMap::new();
    for tier in &snapshot.overload.tiers {
        for (class, lost) in &tier.lost {
            *by_tiers.entry((class.clone(), "sampled")).or_default() += lost.sampled;
            *by_tiers.entry((class.clone(), "tier")).or_default() += lost.dropped;
        }
    }
    by_tiers.retain(|_, count| *count > 0);
    let mut by_sources: BTreeMap<(String, &str), u64> = BTreeMap::new();
    for (class, reasons) in snapshot.sources.values().flat_map(|source| &source.dropped) {
        for (reason, count) in
            reasons.iter().filter(|(reason, _)| ["sampled", "tier"].contains(reason))
        {
            *by_sources.entry((class.clone(), reason)).or_default() += count;
        }
    }
    assert_eq!(by_tiers, by_sources);
}

#[tokio::test(start_paused = true)]
async fn each_tier_takes_from_whom_it_says_and_every_loss_is_counted() {
    let logs = Logs::collect();
    let mut rig = Rig::nats_alone(&format!("{TIERS}{NO_BREAKER}"));
    rig.sink.all(Mode::Hold);
    rig.nats().push("market.x", 25_001).await;
    rig.moment().await;
    assert_eq!(dropped(&rig.now(), "market"), BTreeMap::new(), "nothing up to 50 %");
    // 1 in 2 of each up to 35,001 held: 20,000 came, 10,000 stay.
    rig.nats().push("market.x", 20_000).await;
    rig.moment().await;
    let now = rig.accounts_close();
    assert_eq!(now.backpressure.current_buffer, 35_002, "and the first of the next tier's sample");
    assert_eq!(dropped(&now, "market"), BTreeMap::from([("sampled", 9_999)]));
    // 1 in 10 now.
    rig.nats().push("market.x", 10_000).await;
    rig.moment().await;
    assert_eq!(rig.now().backpressure.current_buffer, 36_002);
    // Others fill up to the pause: market is lost, the others are not.
    rig.nats().push("external.x", 4_000).await;
    rig.moment().await;
    assert!(rig.now().backpressure.active);
    rig.nats().push("market.x", 1_000).await;
    rig.nats().push("signals.x", 3_000).await;
    rig.nats().push("external.x", 4_498).await;
    rig.moment().await;
    let now = rig.accounts_close();
    assert_eq!(now.backpressure.current_buffer, 47_500);
    assert_eq!(dropped(&now, "market"), BTreeMap::from([("sampled", 18_999), ("paused", 1_000)]));
    assert_eq!((dropped(&now, "signal"), dropped(&now, "external")), Default::default());
    // One more, and only system gets in.
    rig.nats().push("signals.x", 101).await;
    rig.nats().push("external.x", 100).await;
    rig.nats().push("system.stored.x", 100).await;
    rig.nats().push("system.x", 100).await;
    rig.moment().await;
    let now = rig.accounts_close();
    assert_eq!(now.backpressure.current_buffer, 47_601);
    assert_eq!(dropped(&now, "signal"), BTreeMap::from([("tier", 100)]));
    assert_eq!(dropped(&now, "external"), BTreeMap::from([("tier", 100)]));
    assert_eq!(now.sources["nats"].system.values().map(|seen| seen.count).sum::<u64>(), 200);
    tiers_account_for_all(&now);
    assert_eq!(now.overload.tiers.iter().map(|tier| tier.in_force).collect::<Vec<_>>(), [true; 3]);
    assert_eq!(logs.with("OVERLOAD: tier above 50 % begins (25,001/50,000)").len(), 1);
    rig.sink.all(Mode::Accept);
    let end = rig.drained().await;
    assert!(end.overload.tiers.iter().all(|tier| !tier.in_force && tier.entered == 1));
    assert_eq!(logs.with("OVERLOAD: tier above 95 % ends").len(), 1);
    rig.nats().push("market.x", 100).await;
    rig.drained().await;
    assert_eq!(
        dropped(&rig.now(), "market").values().sum::<u64>(),
        19_999,
        "nothing is lost any more"
    );
}

#[tokio::test(start_paused = true)]
async fn health_says_what_each_tier_has_cost() {
    let mut rig = Rig::nats_alone(&format!("{TIERS}{NO_BREAKER}"));
    let tiers = rig.health()["metrics"]["overload"]["tiers"].clone();
    let market = &tiers[0]["lost"]["market"];
    assert_eq!(
        market,
        &serde_json::json!({ "kept": 0, "sampled": 0, "dropped": 0 }),
        "from the start"
    );
    rig.sink.all(Mode::Hold);
    rig.nats().push("market.x", 25_201).await;
    rig.moment().await;
    let tier = rig.health()["metrics"]["overload"]["tiers"][0].clone();
    assert_eq!(tier["lost"]["market"]["sampled"], 100);
    assert_eq!((&tier["in_force"], &tier["entered"]), (&true.into(), &1.into()));
}

#[tokio::test(start_paused = true)]
async fn kafka_is_sampled_only_where_the_route_says_so_and_commits_beyond_what_is_lost() {
    let more = format!("[backpressure]\npull_limit = 50_000\n{TIERS}{NO_BREAKER}{LOSSY_AND_SAFE}");
    let mut rig = Rig::both(&more);
    rig.sink.all(Mode::Hold);
    let lossy = rig.kafka().assign("lossy", 0, 1).await;
    let safe = rig.kafka().assign("safe", 0, 1).await;
    rig.nats().push("market.x", 25_001).await;
    rig.moment().await;
    assert_eq!(rig.kafka().poll(&lossy, 1_000).await, 1_000);
    assert_eq!(rig.kafka().poll(&safe, 1_000).await, 1_000);
    rig.moment().await;
    let now = rig.accounts_close();
    assert_eq!(now.routes["lossy"].dropped, 500);
    assert_eq!((now.routes["safe"].dropped, now.routes["safe"].held), (0, 1_000));
    assert_eq!(now.sources["kafka"].dropped["market"], BTreeMap::from([("sampled", 500)]));
    tiers_account_for_all(&now);
    rig.sink.all(Mode::Accept);
    rig.drained().await;
    let end = rig.until("all is committed", |now| now.sources["kafka"].uncommitted == 0).await;
    assert_eq!(end.sources["kafka"].uncommitted, 0);
    let committed = rig.kafka().story.lock().unwrap().commits.concat();
    for partition in [lossy, safe] {
        let last = committed.iter().rev().find(|position| position.partition == partition);
        assert_eq!(last.map(|position| position.offset), Some(1_000));
    }
}
