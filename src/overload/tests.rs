//! Who is let go at which level, against a plain reading of the configuration.

use proptest::prelude::*;

use super::*;

const TIERS: &str = r#"
[overload]
drop_while_paused = ["market"]
[[overload.tiers]]
at_percent = 50
sample = { market = 2 }
[[overload.tiers]]
at_percent = 70
sample = { market = 10, external = 3 }
[[overload.tiers]]
at_percent = 95
drop_below = "system"
"#;

const ROUTES: &str = r#"
[nats]
[kafka]
[backpressure]
max_buffer_size = 1000
pause_threshold = 800
resume_threshold = 400
[[routes]]
name = "ticks"
nats_subjects = ["market.>"]
class = "market"
table = "t"
[[routes]]
name = "external"
kafka_topics = ["external"]
nats_subjects = ["external.>"]
class = "external"
table = "t"
[[routes]]
name = "signals"
nats_subjects = ["signals.>"]
class = "signal"
table = "t"
[[routes]]
name = "lossy"
kafka_topics = ["lossy"]
class = "market"
table = "t"
overload = { may_drop = true }
[[routes]]
name = "alarms"
nats_subjects = ["alarms.>"]
class = "market"
table = "t"
overload = { rank_as = "signal", strategy = "sample", one_in = 4 }
"#;

const TICKS: RouteId = RouteId(0);
const EXTERNAL: RouteId = RouteId(1);
const SIGNALS: RouteId = RouteId(2);
const LOSSY: RouteId = RouteId(3);
const ALARMS: RouteId = RouteId(4);

fn config_of(policy: &str) -> Config {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("c.toml");
    std::fs::write(&file, format!("{policy}{ROUTES}")).unwrap();
    config::load(&[file]).unwrap_or_else(|error| panic!("{error}"))
}

fn overload(policy: &str) -> Overload {
    let config = config_of(policy);
    let ids: Vec<RouteId> = (0..).map(RouteId).take(config.routes.len()).collect();
    Overload::new(&config, &ids)
}

fn pushed(route: RouteId) -> Arrival<'static> {
    Arrival { route, name: "x", pushed: true, paused: false, stored: true }
}

fn pulled(route: RouteId) -> Arrival<'static> {
    Arrival { pushed: false, ..pushed(route) }
}

fn paused(route: RouteId) -> Arrival<'static> {
    Arrival { paused: true, ..pushed(route) }
}

fn held(held: usize) -> Level {
    Level { held, bytes: 0 }
}

fn kept(overload: &mut Overload, arrival: Arrival<'_>, of: usize) -> usize {
    (0..of).filter(|_| overload.decide(arrival).is_none()).count()
}

#[test]
fn without_a_policy_the_pause_drops_every_class_but_system_and_nothing_else_drops() {
    let mut overload = overload("");
    assert_eq!(overload.look(held(1_000)).count(), 0);
    for route in [TICKS, EXTERNAL, SIGNALS] {
        assert_eq!(overload.decide(pushed(route)), None);
        assert_eq!(overload.decide(paused(route)), Some(Loss::Paused));
    }
    assert_eq!(overload.decide(Arrival { paused: true, ..pulled(EXTERNAL) }), None);
}

#[test]
fn the_highest_tier_in_force_that_names_the_class_decides() {
    let mut overload = overload(TIERS);
    let _ = overload.look(held(501)).count();
    assert_eq!(kept(&mut overload, pushed(TICKS), 100), 50);
    assert_eq!(kept(&mut overload, pushed(EXTERNAL), 100), 100);
    let _ = overload.look(held(701)).count();
    assert_eq!(kept(&mut overload, pushed(TICKS), 100), 10);
    assert_eq!(kept(&mut overload, pushed(EXTERNAL), 99), 33);
    assert_eq!(kept(&mut overload, pushed(SIGNALS), 100), 100);
    assert_eq!(overload.tiers().map(|tier| tier.lost["market"].kept).sum::<u64>(), 60);
    let _ = overload.look(held(951)).count();
    for route in [TICKS, EXTERNAL, SIGNALS] {
        assert_eq!(overload.decide(pushed(route)), Some(Loss::Tier(2)));
        assert!(overload.shuts_out(route, false));
    }
}

#[test]
fn what_is_only_counted_takes_no_room_and_no_tier_is_about_it() {
    let mut overload = overload(TIERS);
    let _ = overload.look(held(951)).count();
    assert_eq!(overload.decide(Arrival { stored: false, ..pushed(TICKS) }), None);
}

#[test]
fn kafka_loses_nothing_unless_its_route_says_so() {
    let mut overload = overload(TIERS);
    let _ = overload.look(held(951)).count();
    assert_eq!(overload.decide(pulled(EXTERNAL)), None);
    assert_eq!(overload.decide(pulled(LOSSY)), Some(Loss::Tier(2)));
}

#[test]
fn a_route_may_rank_as_another_class_and_be_sampled_rather_than_dropped() {
    let mut overload = overload(TIERS);
    let _ = overload.look(held(701)).count();
    assert_eq!(kept(&mut overload, paused(ALARMS), 100), 100, "signals are not dropped here");
    let _ = overload.look(held(951)).count();
    assert_eq!(kept(&mut overload, paused(ALARMS), 100), 25);
    assert_eq!(overload.tiers[2].act(ALARMS), Some(Act::Drop));
}

#[test]
fn a_tier_lasts_until_the_fill_is_well_below_where_it_began() {
    let mut overload = overload(TIERS);
    let mut look =
        |n| overload.look(held(n)).map(|look| (look.at_percent, look.began)).collect::<Vec<_>>();
    let none: Vec<(u8, bool)> = Vec::new();
    assert_eq!(look(500), none, "50 % is not above 50 %");
    assert_eq!(look(501), [(50, true)]);
    assert_eq!(look(400), none);
    assert_eq!(look(600), none);
    assert_eq!(look(399), [(50, false)]);
    assert_eq!(look(960), [(50, true), (70, true), (95, true)]);
    assert_eq!(look(0), [(50, false), (70, false), (95, false)]);
    assert_eq!(overload.tiers().map(|tier| tier.entered).collect::<Vec<_>>(), [2, 1, 1]);
}

#[test]
fn bytes_bring_a_tier_on_as_records_do_and_it_follows_the_cap() {
    let mut overload = overload(TIERS);
    overload.set_limits(Level { held: 100, bytes: 2_000 });
    assert_eq!(overload.look(Level { held: 0, bytes: 1_001 }).count(), 1);
    assert_eq!(overload.look(Level { held: 39, bytes: 799 }).count(), 1);
    assert_eq!(overload.look(held(51)).count(), 1);
}

#[test]
fn another_configuration_keeps_what_its_tiers_have_cost_and_whom_they_are_about() {
    let mut before = overload(TIERS);
    let _ = before.look(held(501)).count();
    let _ = before.decide(pushed(TICKS));
    let loss = before.decide(pushed(TICKS)).unwrap();
    before.lost(loss, TICKS);
    // The routes have other numbers now, and one of the tiers is gone.
    let config = config_of(&TIERS.replace("at_percent = 70", "at_percent = 60"));
    let ids = [7, 6, 5, 4, 3].map(RouteId);
    let mut after = before.followed_by(&config, &ids);
    let tiers: Vec<_> = after.tiers().collect();
    assert_eq!((tiers[0].in_force, tiers[0].entered), (true, 1));
    assert_eq!(tiers[0].lost["market"], Losses { kept: 1, sampled: 1, dropped: 0 });
    assert_eq!((tiers[1].at_percent, tiers[1].in_force), (60, false));
    assert_eq!(kept(&mut after, pushed(RouteId(7)), 100), 50);
    assert_eq!(kept(&mut after, pushed(RouteId(0)), 100), 100, "no route any more");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    /// Whatever the level does: begin and end alternate, the lower of two tiers never waits for the
    /// higher, and of each class what is kept and what is lost is all there was.
    #[test]
    fn every_loss_is_some_tiers_and_none_is_counted_twice(
        steps in prop::collection::vec((0usize..1_001, 0u16..3), 1..200)
    ) {
        let mut overload = overload(TIERS);
        let (mut in_force, mut lost) = ([false; 3], 0);
        for (level, route) in steps {
            for look in overload.look(held(level)) {
                let index = [50, 70, 95].iter().position(|at| *at == look.at_percent).unwrap();
                prop_assert_eq!(in_force[index], !look.began);
                in_force[index] = look.began;
            }
            for (index, at) in [500, 700, 950].into_iter().enumerate() {
                prop_assert!(in_force[index] || level <= at);
                prop_assert!(!in_force[index] || level >= at - 100);
            }
            if let Some(loss) = overload.decide(pushed(RouteId(route))) {
                overload.lost(loss, RouteId(route));
                lost += 1;
                prop_assert!(route != 2 || in_force[2], "signals only above 95 %");
            }
        }
        let counted: u64 =
            overload.tiers().flat_map(|tier| tier.lost.into_values()).map(Losses::all).sum();
        prop_assert_eq!(counted, lost);
    }
}
