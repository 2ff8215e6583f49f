//! Buffers and streams: each strategy by itself, against a model, and under 100,000 items.

mod hundred_thousand;
mod model;
mod streams;

use std::num::NonZeroU32;

use tokio::time::Instant;

use super::*;

fn buffer(capacity: usize, strategy: Strategy) -> (Buffer<u64>, Instant) {
    let now = Instant::now();
    (Buffer::new(capacity, strategy, now), now)
}

fn one_in(n: u32) -> Sampling {
    Sampling::OneIn(NonZeroU32::new(n).unwrap())
}

/// Offers 0, 1, ... and gives the verdicts.
fn offered(buffer: &mut Buffer<u64>, items: u64, now: Instant) -> Vec<Verdict<u64>> {
    (0..items).map(|item| buffer.offer(item, now)).collect()
}

fn taken(buffer: &mut Buffer<u64>, now: Instant) -> Vec<(u64, u64)> {
    std::iter::from_fn(|| buffer.take(now)).map(|taken| (taken.item, taken.missed)).collect()
}

#[test]
fn block_gives_back_what_has_no_room_and_takes_it_later() {
    let (mut buffer, now) = buffer(2, Strategy::Block);
    let verdicts = offered(&mut buffer, 3, now);
    assert_eq!(verdicts, [Verdict::Kept, Verdict::Kept, Verdict::Full(2)]);
    assert_eq!(buffer.take(now), Some(Taken { item: 0, missed: 0 }));
    assert_eq!(buffer.offer(2, now), Verdict::Kept);
    assert_eq!(taken(&mut buffer, now), [(1, 0), (2, 0)]);
    assert_eq!(buffer.metrics(now).produced_count, 3, "what was refused is not produced");
}

#[test]
fn drop_newest_keeps_the_past_and_tells_of_the_gap_behind_it() {
    let (mut buffer, now) = buffer(2, Strategy::DropNewest);
    let verdicts = offered(&mut buffer, 4, now);
    assert_eq!(verdicts[2..], [2, 3].map(|item| Verdict::Dropped(item, Reason::Newest)));
    assert_eq!(buffer.take(now), Some(Taken { item: 0, missed: 0 }));
    assert_eq!(buffer.offer(4, now), Verdict::Kept);
    assert_eq!(taken(&mut buffer, now), [(1, 0), (4, 2)]);
}

#[test]
fn drop_oldest_keeps_the_present_and_tells_of_the_gap_before_it() {
    let (mut buffer, now) = buffer(2, Strategy::DropOldest);
    let verdicts = offered(&mut buffer, 5, now);
    assert_eq!(verdicts[2..], [0, 1, 2].map(|item| Verdict::Replaced(vec![item])));
    assert_eq!(taken(&mut buffer, now), [(3, 3), (4, 0)]);
}

#[test]
fn sliding_goes_on_with_the_latest_after_a_pause() {
    let (mut buffer, now) = buffer(4, Strategy::Sliding { keep: 2 });
    offered(&mut buffer, 3, now).clear();
    assert_eq!(buffer.pause(), [0]);
    assert_eq!(buffer.take(now), None, "paused is paused");
    assert_eq!(buffer.offer(3, now), Verdict::Replaced(vec![1]));
    buffer.resume();
    assert_eq!(buffer.offer(4, now), Verdict::Kept, "there is room again");
    assert_eq!(taken(&mut buffer, now), [(2, 2), (3, 0), (4, 0)]);
}

#[test]
fn a_sample_begins_at_its_fill_and_a_full_buffer_drops_what_is_in_it_too() {
    let (mut buffer, now) = buffer(4, Strategy::Sample { sampling: one_in(2), from: 0.5 });
    let verdicts = offered(&mut buffer, 8, now);
    let sampled = |item| Verdict::Dropped(item, Reason::Sampled);
    let newest = |item| Verdict::Dropped(item, Reason::Newest);
    assert_eq!(verdicts[..4], [Verdict::Kept, Verdict::Kept, Verdict::Kept, sampled(3)]);
    assert_eq!(verdicts[4..], [Verdict::Kept, sampled(5), newest(6), sampled(7)]);
    let metrics = buffer.metrics(now);
    assert_eq!((metrics.dropped_count.sampled, metrics.dropped_count.newest), (3, 1));
}

#[test]
fn disconnect_cuts_a_full_consumer_off_and_gives_everything_back() {
    let (mut buffer, now) = buffer(2, Strategy::Disconnect);
    let verdicts = offered(&mut buffer, 4, now);
    assert_eq!(verdicts[2..], [Verdict::CutOff(vec![0, 1, 2]), Verdict::Closed(3)]);
    assert_eq!(buffer.take(now), None);
    assert_eq!(buffer.ended(), Some(Ended { why: Why::SlowConsumer, missed: 3 }));
    assert_eq!(buffer.metrics(now).dropped_count.disconnected, 3);
    assert!(buffer.leave().is_empty(), "it is gone already");
    assert_eq!(buffer.ended().map(|ended| ended.why), Some(Why::SlowConsumer));
}

#[test]
fn adaptive_says_when_to_come_again_and_refuses_before_it_overflows() {
    let (mut buffer, start) = buffer(4, Strategy::Adaptive(Steps::rate(100.0, 1_000.0)));
    assert_eq!(offered(&mut buffer, 2, start), [Verdict::Kept, Verdict::Kept], "the burst");
    let wait = Duration::from_millis(10);
    assert_eq!(buffer.offer(2, start), Verdict::TooFast(2, wait));
    assert_eq!(buffer.offer(2, start + wait), Verdict::Kept);
    assert_eq!(buffer.offer(3, start + wait * 2), Verdict::Kept);
    let later = start + Duration::from_millis(999);
    assert_eq!(buffer.offer(4, later), Verdict::Full(4));
    assert_eq!(buffer.metrics(later).current_rate_limit, Some(100.0));
    let look = start + Duration::from_secs(1);
    assert_eq!(buffer.metrics(look).current_rate_limit, Some(50.0), "it is fuller than 80 %");
}

#[test]
fn a_buffer_that_is_finished_gives_out_what_it_has_and_takes_nothing_in() {
    let (mut buffer, now) = buffer(2, Strategy::DropNewest);
    offered(&mut buffer, 3, now).clear();
    buffer.finish();
    assert_eq!(buffer.offer(9, now), Verdict::Closed(9));
    assert_eq!(buffer.ended(), None, "there is something to take");
    assert_eq!(taken(&mut buffer, now).len(), 2);
    assert_eq!(buffer.ended(), Some(Ended { why: Why::Finished, missed: 1 }));
}

#[test]
fn what_a_consumer_leaves_behind_is_dropped_and_counted() {
    let (mut buffer, now) = buffer(4, Strategy::Block);
    offered(&mut buffer, 3, now).clear();
    assert_eq!(buffer.leave(), [0, 1, 2]);
    let metrics = buffer.metrics(now);
    assert_eq!((metrics.dropped_count.left, metrics.current_depth), (3, 0));
    assert_eq!(buffer.ended().map(|ended| ended.why), Some(Why::Left));
}

#[test]
fn overload_that_lasts_is_one_event_until_the_buffer_was_half_empty() {
    let (mut buffer, now) = buffer(4, Strategy::DropOldest);
    offered(&mut buffer, 100, now).clear();
    assert!(buffer.take(now).is_some());
    offered(&mut buffer, 100, now).clear();
    assert_eq!(buffer.metrics(now).backpressure_events, 1, "it was still more than half full");
    buffer.take(now);
    buffer.take(now);
    offered(&mut buffer, 100, now).clear();
    assert_eq!(buffer.metrics(now).backpressure_events, 2);
}

#[test]
fn sampling_that_lasts_is_one_event_too() {
    let (mut buffer, now) = buffer(8, Strategy::Sample { sampling: one_in(2), from: 0.5 });
    for _ in 0..100 {
        offered(&mut buffer, 3, now).clear();
        buffer.take(now);
    }
    assert_eq!(buffer.metrics(now).backpressure_events, 1);
    assert!(taken(&mut buffer, now).len() >= 4);
    offered(&mut buffer, 5, now).clear();
    assert_eq!(buffer.metrics(now).backpressure_events, 2);
}

#[test]
fn throughput_is_what_is_taken_and_not_what_is_offered() {
    let (mut buffer, start) = buffer(10, Strategy::DropOldest);
    let mut now = start;
    for item in 0..10_000 {
        now += Duration::from_millis(2);
        drop(buffer.offer(item, now));
        if item % 10 == 0 {
            buffer.take(now);
        }
    }
    let metrics = buffer.metrics(now);
    assert!((metrics.throughput_rate - 50.0).abs() < 2.0, "{metrics:?}");
    assert_eq!((metrics.current_depth, metrics.peak_depth), (10, 10));
}

#[test]
fn only_what_loses_nothing_calls_itself_lossless() {
    let sample = Strategy::Sample { sampling: one_in(2), from: 0.5 };
    let all = [
        Strategy::Block,
        Strategy::DropNewest,
        Strategy::DropOldest,
        Strategy::Sliding { keep: 1 },
        sample,
        Strategy::Disconnect,
        Strategy::Adaptive(Steps::rate(1.0, 2.0)),
    ];
    assert_eq!(all.map(|strategy| strategy.name()), Strategy::NAMES);
    let lossless: Vec<_> = all.iter().filter(|s| s.is_lossless()).map(Strategy::name).collect();
    assert_eq!(lossless, ["block", "adaptive"]);
}

#[test]
fn what_is_heavy_makes_room_of_many_and_one_alone_may_weigh_more() {
    let (buffer, now) = buffer(10, Strategy::DropOldest);
    let mut buffer = buffer.weighing_at_most(100);
    for item in 0..4 {
        assert_eq!(buffer.offer_weighing(item, 25, now), Verdict::Kept);
    }
    assert_eq!(buffer.offer_weighing(4, 60, now), Verdict::Replaced(vec![0, 1, 2]));
    assert_eq!(buffer.weight(), 85);
    assert_eq!(buffer.offer_weighing(5, 900, now), Verdict::Replaced(vec![3, 4]));
    assert_eq!(taken(&mut buffer, now), [(5, 5)]);
    assert_eq!(buffer.weight(), 0);
}

#[test]
fn what_is_too_heavy_is_refused_where_the_past_is_kept() {
    let (buffer, now) = buffer(10, Strategy::DropNewest);
    let mut buffer = buffer.weighing_at_most(100);
    assert_eq!(buffer.offer_weighing(0, 90, now), Verdict::Kept);
    assert_eq!(buffer.offer_weighing(1, 20, now), Verdict::Dropped(1, Reason::Newest));
    assert_eq!(buffer.offer_weighing(2, 10, now), Verdict::Kept);
    assert_eq!(taken(&mut buffer, now), [(0, 0), (2, 1)]);
}

#[test]
fn what_was_lost_on_its_way_is_told_where_it_was() {
    let (mut buffer, now) = buffer(10, Strategy::DropOldest);
    assert_eq!(buffer.offer(0, now), Verdict::Kept);
    buffer.lost(7);
    assert_eq!(buffer.offer(8, now), Verdict::Kept);
    assert_eq!(taken(&mut buffer, now), [(0, 0), (8, 7)]);
    let metrics = buffer.metrics(now);
    assert_eq!((metrics.produced_count, metrics.dropped_count.total()), (9, 7));
}
