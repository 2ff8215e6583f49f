//! Every alert fires when it should and not before, is told once, and is resolved; in simulated time,
//! on the snapshot of a busy bridge.

use std::time::Duration;

use tokio::time::Instant;

use super::*;
use crate::config::{Alerts as Settings, load};
use crate::source::PartitionObserved;
use crate::status::samples::busy;
use crate::status::{BreakerState, EndpointStatus, RouteStatus, RunStage, Snapshot, SourceStatus};

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
fn counts_fire_with_the_first_too_many_and_end_with_their_window() {
    type Count = (AlertId, fn(&mut Snapshot), u64);
    let counts: [Count; 4] = [
        (AlertId::DeadLetters, |s| letters(s, 1), 5),
        (AlertId::RecordsDropped, |s| route(s).dropped += 1, 5),
        (AlertId::PausingOften, |s| s.backpressure.pause_count += 6, 15),
        (AlertId::SubscriberDrops, |s| s.subscriber_drops += 1_001, 1),
    ];
    for (id, once, minutes) in counts {
        let mut world = World::new("");
        world.pass(20 * MINUTE, nothing);
        world.pass(TICK, once);
        assert_eq!(world.fired(id), [20 * MINUTE + TICK], "{id}");
        world.pass(minutes * MINUTE, nothing);
        assert!(world.resolved(id).is_empty(), "{id}");
        // The edge of the window, and the quiet minute.
        world.pass(2 * MINUTE + minutes * MINUTE / 30, nothing);
        assert_eq!(world.resolved(id).len(), 1, "{id}: {:?}", world.said);
    }
    let mut world = World::new("");
    world.pass(MINUTE, |s| s.backpressure.pause_count = 8);
    assert!(world.fired(AlertId::PausingOften).is_empty(), "five are not too many");
    world.pass(MINUTE, |s| s.subscriber_drops += 80);
    assert!(world.fired(AlertId::SubscriberDrops).is_empty(), "960 a minute are not too many");
}

fn letters(snapshot: &mut Snapshot, more: u64) {
    route(snapshot).dead_lettered += more;
    kafka(snapshot).dead_lettered += more;
    route(snapshot).inserted -= more;
    kafka(snapshot).inserted -= more;
}

fn lag(snapshot: &mut Snapshot, lag: i64) {
    let topic = "ticks".to_owned();
    let of = PartitionObserved { topic, number: 0, lag: Some(lag), committed: None };
    kafka(snapshot).partitions = vec![of];
}

#[test]
fn lag_that_grows_is_told_and_a_backlog_that_shrinks_is_not() {
    let mut world = World::new("");
    let mut waiting = 100_000;
    world.pass(60 * MINUTE, |s| {
        waiting -= 100;
        lag(s, waiting);
    });
    assert_eq!(world.said, []);
    world.pass(40 * MINUTE, |s| {
        waiting += 500;
        lag(s, waiting);
    });
    assert_eq!(world.fired(AlertId::LagGrowing).len(), 1);
    assert_eq!(world.board.firing()[0].of.as_deref(), Some("topic ticks"));
    world.pass(10 * MINUTE, |s| lag(s, 10_000));
    assert_eq!(world.resolved(AlertId::LagGrowing).len(), 1, "little waits");
}

/// Partitions come from another instance, with what waits in them.
#[test]
fn a_backlog_that_came_at_once_and_shrinks_since_is_not_told() {
    for phase in 0..12 {
        let mut world = World::new("");
        world.pass(40 * MINUTE + phase * TICK, |s| lag(s, 0));
        let mut waiting = 1_000_000;
        world.pass(30 * MINUTE, |s| {
            waiting -= 400;
            lag(s, waiting);
            kafka(s).uncommitted = 60_000;
        });
        assert_eq!(world.said, [], "{phase}");
    }
}

#[test]
fn uncommitted_records_beyond_the_whole_buffer_are_told_while_they_become_more() {
    let mut world = World::new("");
    world.pass(MINUTE, |s| kafka(s).uncommitted = 50_000);
    world.pass(6 * MINUTE, |s| kafka(s).uncommitted += 10);
    assert_eq!(world.fired(AlertId::UncommittedGrowing), [MINUTE + 5 * MINUTE + TICK]);
    world.pass(13 * MINUTE, nothing);
    assert_eq!(world.resolved(AlertId::UncommittedGrowing).len(), 1, "they become no more");
}

#[test]
fn input_is_held_against_what_is_normal() {
    let mut world = World::new("");
    let surge = |s: &mut Snapshot| flow(s, 1_000, 1_000);
    world.pass(20 * MINUTE, nothing);
    world.pass(10 * MINUTE, surge);
    assert_eq!(world.said, [], "nobody knows yet what is normal");
    let mut world = World::new("");
    world.pass(70 * MINUTE, nothing);
    world.pass(20 * MINUTE, surge);
    assert_eq!(world.fired(AlertId::InputSurge).len(), 1);
    world.pass(20 * MINUTE, nothing);
    assert_eq!(world.resolved(AlertId::InputSurge).len(), 1);
}

#[test]
fn input_is_held_against_what_goes_out() {
    let mut world = World::new("");
    world.pass(10 * MINUTE, nothing);
    world.pass(15 * MINUTE, |s| flow(s, 150, 0));
    assert_eq!(world.fired(AlertId::InputOverOutput).len(), 1, "{:?}", world.said);
    world.pass(10 * MINUTE, nothing);
    assert_eq!(world.resolved(AlertId::InputOverOutput).len(), 1);
}

#[test]
fn input_is_held_against_what_is_expected() {
    let mut world = World::new("[alerts]\nmin_input = 100\n");
    world.pass(20 * MINUTE, nothing);
    assert_eq!(world.said, [], "100 a second come");
    let still = |s: &mut Snapshot| undo(s);
    world.pass(15 * MINUTE, still);
    assert_eq!(world.fired(AlertId::InputLow).len(), 1);
    world.pass(10 * MINUTE, nothing);
    assert_eq!(world.resolved(AlertId::InputLow).len(), 1);
}

#[test]
fn a_route_of_which_something_is_expected_is_told_when_it_is_silent() {
    let mut world = World::new("[alerts.silent]\ncandles = '10m'\n");
    world.pass(10 * MINUTE, nothing);
    // While it pauses nothing is taken.
    let paused = |s: &mut Snapshot| {
        undo(s);
        s.backpressure.active = true;
    };
    world.pass(15 * MINUTE, paused);
    assert!(world.fired(AlertId::Silent).is_empty());
    // The first record after it may take its time.
    world.pass(9 * MINUTE, |s| {
        undo(s);
        s.backpressure.active = false;
    });
    assert!(world.fired(AlertId::Silent).is_empty(), "the pause was not silence: {:?}", world.said);
    world.pass(2 * MINUTE, undo);
    assert_eq!(world.fired(AlertId::Silent).len(), 1);
    world.pass(5 * MINUTE, paused);
    assert!(world.resolved(AlertId::Silent).is_empty(), "nothing has come");
    world.pass(2 * MINUTE, |s| s.backpressure.active = false);
    assert_eq!(world.resolved(AlertId::Silent).len(), 1);
}

/// As if nothing had come since the last look.
fn undo(snapshot: &mut Snapshot) {
    for (received, inserted) in [
        {
            let s = snapshot.sources.get_mut("kafka").unwrap();
            (&mut s.received, &mut s.inserted)
        },
        {
            let r = snapshot.routes.get_mut("candles").unwrap();
            (&mut r.received, &mut r.inserted)
        },
    ] {
        *received -= 500;
        *inserted -= 500;
    }
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
fn every_id_is_listed_once_and_in_order() {
    assert!(AlertId::ALL.is_sorted());
    assert!(AlertId::ALL.iter().all(|id| AlertId::of(id.name()) == Some(*id)));
    let names: std::collections::BTreeSet<_> = AlertId::ALL.iter().map(|id| id.name()).collect();
    assert_eq!(names.len(), AlertId::ALL.len());
}
