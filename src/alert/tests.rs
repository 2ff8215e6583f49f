//! Every alert fires when it should and not before, is told once, and is resolved; in simulated time,
//! on the snapshot of a busy bridge.

use std::time::Duration;

use tokio::time::Instant;

use super::*;
use crate::config::{Alerts as Settings, load};
use crate::status::samples::busy;
use crate::status::{BreakerState, EndpointStatus, RouteStatus, RunStage, Snapshot, SourceStatus};

mod rules;

/// Between two looks.
const TICK: u64 = 5;
const MINUTE: u64 = 60;

fn settings(more: &str) -> Settings {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("c.toml");
    let base = "[kafka]\n[[routes]]\nname = 'candles'\nkafka_topics = ['x']\ntable = 't'\n";
    std::fs::write(&file, format!("{base}{more}")).unwrap();
    load(&[file]).unwrap_or_else(|error| panic!("{error}")).alerts
}

/// A bridge that is looked at.
struct World {
    board: Board,
    settings: Settings,
    snapshot: Snapshot,
    start: Instant,
    second: u64,
    /// When, and what.
    said: Vec<(u64, Transition)>,
}

impl World {
    fn new(more: &str) -> Self {
        let snapshot = busy();
        let start = Instant::now();
        let board = Board::default();
        Self { board, settings: settings(more), snapshot, start, second: 0, said: Vec::new() }
    }

    /// So many seconds, with this at every look.
    fn pass(&mut self, seconds: u64, mut change: impl FnMut(&mut Snapshot)) {
        for _ in 0..seconds / TICK {
            self.second += TICK;
            let now = self.start + Duration::from_secs(self.second);
            // A healthy bridge takes and stores.
            flow(&mut self.snapshot, 500, 500);
            self.snapshot.turned_at = Some(now);
            change(&mut self.snapshot);
            let wall = i64::try_from(self.second).unwrap() * 1_000;
            let said = self.board.look(&self.settings, &self.snapshot, now, wall);
            self.said.extend(said.into_iter().map(|transition| (self.second, transition)));
        }
    }

    fn when(&self, id: AlertId, wanted: fn(&Transition) -> bool) -> Vec<u64> {
        let these = self.said.iter();
        let these = these.filter(|(_, said)| said.alert().id == id && wanted(said));
        these.map(|(second, _)| *second).collect()
    }

    fn fired(&self, id: AlertId) -> Vec<u64> {
        self.when(id, |said| matches!(said, Transition::Fired(_)))
    }

    fn resolved(&self, id: AlertId) -> Vec<u64> {
        self.when(id, |said| matches!(said, Transition::Resolved(_)))
    }

    fn firing(&self) -> Vec<AlertId> {
        self.board.firing().iter().map(|alert| alert.id).collect()
    }
}

/// So many records come, and so many are stored; the books close.
fn flow(snapshot: &mut Snapshot, come: u64, stored: u64) {
    for (received, inserted, held) in [
        {
            let s = snapshot.sources.get_mut("kafka").unwrap();
            (&mut s.received, &mut s.inserted, &mut s.held)
        },
        {
            let r = snapshot.routes.get_mut("candles").unwrap();
            (&mut r.received, &mut r.inserted, &mut r.held)
        },
    ] {
        *received += come;
        *inserted += stored;
        *held += usize::try_from(come - stored).unwrap();
    }
}

fn kafka(snapshot: &mut Snapshot) -> &mut SourceStatus {
    snapshot.sources.get_mut("kafka").unwrap()
}

fn route(snapshot: &mut Snapshot) -> &mut RouteStatus {
    snapshot.routes.get_mut("candles").unwrap()
}

fn nothing(_: &mut Snapshot) {}

/// A rule about how things are: what makes it so, and what undoes it by a hair.
type Case = (AlertId, fn(&mut Snapshot), fn(&mut Snapshot));

const CASES: [Case; 11] = [
    (AlertId::Wedged, |s| s.overdue = Some("a timer".into()), |s| s.overdue = None),
    (
        AlertId::NeedsPerson,
        |s| s.needs_person = vec!["create table t".into()],
        |s| s.needs_person.clear(),
    ),
    (
        AlertId::BufferHigh,
        |s| s.backpressure.current_buffer = 40_001,
        |s| s.backpressure.current_buffer = 40_000,
    ),
    (
        AlertId::FullSoon,
        |s| s.forecast.full_in_seconds = Some(299.0),
        |s| s.forecast.full_in_seconds = Some(300.0),
    ),
    (
        AlertId::BreakerOpen,
        |s| s.breaker.state = BreakerState::Open,
        |s| s.breaker.state = BreakerState::Closed,
    ),
    (AlertId::ServerAway, |s| server(s, false), |s| server(s, true)),
    (AlertId::RouteHeldBack, |s| route(s).held_back = true, |s| route(s).held_back = false),
    (AlertId::SourceDisconnected, |s| kafka(s).connected = false, |s| kafka(s).connected = true),
    (AlertId::ClockSkew, |s| s.record_ahead_seconds = 10.1, |s| s.record_ahead_seconds = 10.0),
    (AlertId::WindowRunningOut, |s| cover(s, 599.0), |s| cover(s, 600.0)),
    (AlertId::AccountingGap, |s| kafka(s).released = 5, |s| kafka(s).released = 6),
];

fn server(snapshot: &mut Snapshot, healthy: bool) {
    let url = "http://b:8123".to_owned();
    snapshot.endpoints = vec![EndpointStatus { url, healthy, ..EndpointStatus::default() }];
}

fn cover(snapshot: &mut Snapshot, seconds: f64) {
    route(snapshot).window.as_mut().unwrap().covers_seconds = Some(seconds);
}

#[test]
fn what_is_so_for_long_enough_fires_once_and_is_resolved_after_a_minute() {
    for (id, begin, end) in CASES {
        let mut world = World::new("");
        world.pass(MINUTE, nothing);
        let pending = id.pending().as_secs();
        world.pass(pending, begin);
        assert_eq!(world.said, [], "{id} fires before its time");
        world.pass(10 * MINUTE, begin);
        assert_eq!(world.fired(id), [MINUTE + TICK + pending], "{id}");
        assert_eq!(world.firing(), [id]);
        let last = world.second;
        world.pass(MINUTE - TICK, end);
        assert_eq!(world.firing(), [id], "{id} is resolved before it was quiet for long");
        world.pass(MINUTE, end);
        assert_eq!(world.resolved(id), [last + MINUTE], "{id}");
        assert_eq!((world.firing().len(), world.said.len()), (0, 2), "{id}: {:?}", world.said);
    }
}

#[test]
fn what_is_so_only_now_and_then_does_not_fire_and_what_fires_does_not_waver() {
    let (id, begin, end) = CASES[2];
    let mut world = World::new("");
    for _ in 0..20 {
        world.pass(MINUTE - TICK, begin);
        world.pass(TICK, end);
    }
    assert_eq!(world.said, []);
    world.pass(2 * MINUTE, begin);
    for _ in 0..20 {
        world.pass(MINUTE - TICK, end);
        world.pass(TICK, begin);
    }
    assert_eq!((world.fired(id).len(), world.resolved(id).len()), (1, 0));
}

#[test]
fn what_is_switched_off_says_nothing_and_another_time_is_obeyed() {
    let (_, begin, _) = CASES[2];
    let mut world = World::new("[alerts]\noff = ['buffer_high']\n");
    world.pass(10 * MINUTE, begin);
    assert_eq!(world.said, []);
    let mut world = World::new("[alerts.pending]\nbuffer_high = '10m'\n");
    world.pass(20 * MINUTE, begin);
    assert_eq!(world.fired(AlertId::BufferHigh), [10 * MINUTE + TICK]);
}

#[test]
fn what_fires_names_the_runbook_that_is_configured_now() {
    let (_, begin, _) = CASES[2];
    let mut world = World::new("");
    world.pass(2 * MINUTE, begin);
    world.settings = settings("[alerts]\nrunbook = 'https://wiki.example/bridge'\n");
    world.pass(TICK, begin);
    let firing = world.board.firing();
    assert_eq!(firing[0].runbook, "https://wiki.example/bridge#buffer_high");
}

/// The sentences and their times, as they always were.
#[test]
fn a_long_pause_warns_then_alarms_repeats_both_and_ends_at_once() {
    let mut world = World::new("");
    world.pass(MINUTE, nothing);
    let paused = |s: &mut Snapshot| {
        s.backpressure.active = true;
        s.backpressure.paused_seconds += 5.0;
    };
    world.pass(721, paused);
    let again = |said: &Transition| matches!(said, Transition::Repeated(_));
    let from_start = |seconds: Vec<u64>| seconds.iter().map(|s| s - MINUTE).collect::<Vec<_>>();
    assert_eq!(from_start(world.fired(AlertId::Paused)), [300]);
    assert_eq!(from_start(world.when(AlertId::Paused, again)), [360, 420, 480, 540]);
    assert_eq!(from_start(world.fired(AlertId::PausedLong)), [600]);
    assert_eq!(from_start(world.when(AlertId::PausedLong, again)), [660, 720]);
    let lines: Vec<String> = world.said.iter().map(|(_, said)| said.alert().to_string()).collect();
    assert_eq!(lines[0], "WARNING: Backpressure active for 5.0 minutes");
    assert_eq!(lines[1], "WARNING: Backpressure active for 6.0 minutes");
    assert_eq!(
        lines[5],
        "CRITICAL: Backpressure active for 10.0 minutes! ClickHouse write bottleneck detected"
    );
    assert_eq!(world.firing(), [AlertId::PausedLong, AlertId::Paused], "the critical first");
    assert_eq!(world.board.firing()[0].since, 60_000, "when the pause began");
    world.pass(TICK, |s| s.backpressure.active = false);
    assert_eq!(world.firing(), []);
}

#[test]
fn a_pause_that_began_anew_between_two_looks_is_another_one() {
    let mut world = World::new("");
    let paused_for = |seconds: f64| {
        move |s: &mut Snapshot| {
            s.backpressure.active = true;
            s.backpressure.paused_seconds = seconds;
        }
    };
    world.pass(TICK, paused_for(400.0));
    assert_eq!(world.firing(), [AlertId::Paused]);
    world.pass(TICK, paused_for(4.0));
    assert_eq!((world.firing(), world.resolved(AlertId::Paused)), (vec![], vec![2 * TICK]));
}

#[test]
fn a_look_after_a_long_silence_says_it_once() {
    let mut world = World::new("");
    let mut paused_seconds = 2_000.0;
    world.pass(4 * TICK, |s| {
        s.backpressure.active = true;
        s.backpressure.paused_seconds = paused_seconds;
        paused_seconds += 5.0;
    });
    assert_eq!(world.said.len(), 2, "{:?}", world.said);
}

#[test]
fn each_of_several_has_an_alert_of_its_own() {
    let mut world = World::new("");
    world.pass(3 * MINUTE, |s| kafka(s).connected = false);
    world.pass(3 * MINUTE, |s| s.sources.get_mut("nats").unwrap().connected = false);
    let of = |transition: &Transition| transition.alert().of.clone();
    let said: Vec<_> = world.said.iter().filter_map(|(_, said)| of(said)).collect();
    assert_eq!(said, ["source kafka", "source nats"]);
}

#[test]
fn before_it_runs_only_what_a_person_must_do_is_told_and_while_it_leaves_nothing_changes() {
    let mut world = World::new("");
    world.pass(10 * MINUTE, |s| {
        s.stage = RunStage::Starting;
        kafka(s).connected = false;
        s.needs_person = vec!["waiting for ClickHouse".into()];
    });
    assert_eq!(world.firing(), [AlertId::NeedsPerson]);
    world.pass(10 * MINUTE, |s| {
        s.stage = RunStage::Draining;
        s.needs_person.clear();
    });
    assert_eq!((world.firing(), world.said.len()), (vec![AlertId::NeedsPerson], 1));
}

#[test]
fn a_source_that_ends_by_itself_is_told_of_while_the_bridge_goes_away() {
    let mut world = World::new("");
    world.pass(2 * MINUTE, |s| s.needs_person = vec!["create table t".into()]);
    world.pass(TICK, |s| {
        s.stage = RunStage::Draining;
        s.source_ended = Some("kafka");
    });
    assert_eq!(world.fired(AlertId::SourceEnded), [2 * MINUTE + TICK], "at once");
    world.pass(5 * MINUTE, |s| s.needs_person.clear());
    let both = [AlertId::NeedsPerson, AlertId::SourceEnded];
    assert_eq!(world.firing(), both, "what fired before is not looked at, and stays");
}

#[tokio::test(start_paused = true)]
async fn a_bridge_that_goes_away_is_looked_at_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("c.toml");
    let text = "[kafka]\n[heartbeat]\ninterval = '1m'\n\
                [[routes]]\nname = 'candles'\nkafka_topics = ['x']\ntable = 't'\n";
    std::fs::write(&file, text).unwrap();
    let (_follow, follows) = tokio::sync::watch::channel(Arc::new(load(&[file]).unwrap()));
    let (status, snapshots) = tokio::sync::watch::channel(Arc::new(busy()));
    let (lookout, mut alerts) = Lookout::new(follows, snapshots);
    let mut task = tokio::task::JoinSet::new();
    task.spawn(lookout.run(std::future::pending()));
    tokio::task::yield_now().await;
    let (stage, source_ended) = (RunStage::Draining, Some("kafka"));
    status.send_replace(Arc::new(Snapshot { stage, source_ended, ..busy() }));
    let told = alerts.wait_for(|firing| !firing.is_empty());
    let told = tokio::time::timeout(Duration::from_secs(1), told).await;
    assert_eq!(told.expect("long before the heartbeat").unwrap()[0].id, AlertId::SourceEnded);
}

#[test]
fn every_id_is_listed_once_and_in_order() {
    assert!(AlertId::ALL.is_sorted());
    assert!(AlertId::ALL.iter().all(|id| AlertId::of(id.name()) == Some(*id)));
    let names: std::collections::BTreeSet<_> = AlertId::ALL.iter().map(|id| id.name()).collect();
    assert_eq!(names.len(), AlertId::ALL.len());
}
