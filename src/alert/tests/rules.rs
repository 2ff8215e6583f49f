//! The rules that rest on what was before: counts, trends, what is normal, what is silent.

use tokio::time::Instant;

use super::*;
use crate::source::PartitionObserved;
use crate::status::ahead::Ahead;
use crate::status::forecast::Levels;
use crate::status::{SLOW_CONSUMER, UNKNOWN_CLASS};

#[test]
fn counts_fire_with_the_first_too_many_and_end_with_their_window() {
    type Count = (AlertId, fn(&mut Snapshot), u64);
    let counts: [Count; 5] = [
        (AlertId::DeadLetters, |s| letters(s, 1), 5),
        (AlertId::RecordsDropped, |s| route(s).dropped += 1, 5),
        (AlertId::RecordsDropped, |s| slow_client(s, 1), 5),
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

fn slow_client(snapshot: &mut Snapshot, more: u64) {
    let unknown = kafka(snapshot).dropped.entry(UNKNOWN_CLASS.to_owned()).or_default();
    *unknown.entry(SLOW_CONSUMER).or_default() += more;
    kafka(snapshot).received += more;
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

/// 1,000 records a second come, and four fifths of them go, in inserts of 5,000 rows.
#[test]
fn a_buffer_that_fills_is_told_of_in_time_although_it_is_emptied_in_lumps() {
    let mut world = World::new("");
    let (start, mut levels, mut second) = (Instant::now(), Levels::default(), 0);
    world.pass(3 * MINUTE, |s| {
        second += TICK;
        let held = 20_000 + second * 1_000 - second * 800 / 5_000 * 5_000;
        s.backpressure.current_buffer = usize::try_from(held).unwrap();
        levels.see(&s.backpressure, start + Duration::from_secs(second));
        s.forecast = levels.forecast();
    });
    let fired = world.fired(AlertId::FullSoon);
    assert!(fired.len() == 1 && fired[0] <= 2 * MINUTE, "{fired:?}");
    assert_eq!(world.resolved(AlertId::FullSoon), [0; 0]);
}

/// One of many, and it sends rarely.
#[test]
fn a_producer_whose_clock_is_ahead_is_told_of_once_however_rarely_it_sends() {
    for every in [10, 90, 4 * MINUTE] {
        let mut world = World::new("");
        let (start, mut ahead, mut second) = (Instant::now(), Ahead::default(), 0);
        let mut pass = |world: &mut World, minutes: u64, is_wrong: bool| {
            world.pass(minutes * MINUTE, |s| {
                second += TICK;
                let now = start + Duration::from_secs(second);
                if is_wrong && second % every == 0 {
                    ahead.see(Duration::from_secs(3_600), now);
                }
                s.record_ahead_seconds = ahead.furthest(now).as_secs_f64();
            });
        };
        pass(&mut world, 60, true);
        assert_eq!((world.said.len(), world.fired(AlertId::ClockSkew)), (1, vec![every]));
        pass(&mut world, 7, false);
        assert_eq!(world.resolved(AlertId::ClockSkew).len(), 1, "{every}: {:?}", world.said);
    }
}
