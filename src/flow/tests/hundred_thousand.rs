//! 100,000 items through a buffer of 1,000 with a consumer that takes one in ten, or one at a time
//! where the producer waits for it: each strategy, in virtual time.

use super::*;

const ITEMS: u64 = 100_000;
const CAPACITY: usize = 1_000;

/// One in ten while it was full, and then what was in it: the last offer came just before a take.
const TAKEN: u64 = ITEMS / 10 + CAPACITY as u64 - 1;

/// An item a tenth of a millisecond, or as soon as it is let in; one is taken each millisecond.
fn run(strategy: Strategy) -> (Vec<u64>, Metrics, Vec<Verdict<u64>>) {
    let (mut buffer, start) = buffer(CAPACITY, strategy);
    let tick = Duration::from_micros(100);
    let (mut now, mut item, mut consumed, mut told) = (start, 0, Vec::new(), 0);
    let mut refusals = Vec::new();
    for turn in 1_u32.. {
        now = start + tick * turn;
        if item < ITEMS {
            match buffer.offer(item, now) {
                Verdict::Full(_) | Verdict::TooFast(..) => {}
                Verdict::Kept | Verdict::Replaced(_) | Verdict::Dropped(..) => item += 1,
                last => {
                    refusals.push(last);
                    item = ITEMS;
                }
            }
        } else {
            buffer.finish();
        }
        if turn % 10 == 0
            && let Some(taken) = buffer.take(now)
        {
            told += taken.missed;
            consumed.push(taken.item);
        }
        if let Some(ended) = buffer.ended() {
            told += ended.missed;
            break;
        }
        assert!(turn < 20_000_000, "it comes to an end");
    }
    let metrics = buffer.metrics(now);
    assert!(consumed.is_sorted_by(|a, b| a < b), "order is kept");
    assert!(metrics.peak_depth <= CAPACITY, "{metrics:?}");
    assert_eq!(metrics.consumed_count, consumed.len() as u64);
    assert_eq!(metrics.produced_count, metrics.consumed_count + metrics.dropped_count.total());
    assert_eq!(told, metrics.dropped_count.total(), "every drop was told to the consumer");
    (consumed, metrics, refusals)
}

#[test]
fn block_loses_none() {
    let (consumed, metrics, _) = run(Strategy::Block);
    assert_eq!(consumed.len() as u64, ITEMS);
    assert_eq!((metrics.peak_depth, metrics.backpressure_events), (CAPACITY, 1));
}

#[test]
fn adaptive_loses_none_and_is_seldom_full() {
    let steps = Steps { increase: 10.0, ..Steps::rate(500.0, 10_000.0) };
    let (consumed, metrics, _) = run(Strategy::Adaptive(steps));
    assert_eq!(consumed.len() as u64, ITEMS);
    // The consumer takes 1,000 a second. What the limit overshoots by fits into the buffer.
    assert_eq!(metrics.backpressure_events, 0, "{metrics:?}");
    assert!(metrics.peak_depth < CAPACITY, "{metrics:?}");
}

#[test]
fn drop_newest_consumes_the_first_thousand_and_then_one_in_ten() {
    let (consumed, metrics, _) = run(Strategy::DropNewest);
    assert_eq!(consumed[..1_000], (0..1_000).collect::<Vec<_>>());
    assert_eq!(metrics.dropped_count.total(), metrics.dropped_count.newest);
    assert_eq!(consumed.len() as u64, TAKEN);
    assert!(consumed[consumed.len() - 1] > ITEMS - 20);
}

#[test]
fn drop_oldest_ends_with_the_last_thousand() {
    let (consumed, metrics, _) = run(Strategy::DropOldest);
    assert_eq!(consumed[consumed.len() - 1_000..], (99_000..ITEMS).collect::<Vec<_>>());
    assert_eq!(metrics.dropped_count.total(), metrics.dropped_count.oldest);
    assert_eq!(consumed.len() as u64, TAKEN);
}

#[test]
fn sliding_without_a_pause_is_as_drop_oldest() {
    let (consumed, ..) = run(Strategy::Sliding { keep: 100 });
    assert_eq!(consumed, run(Strategy::DropOldest).0);
}

#[test]
fn a_sample_that_is_small_enough_never_fills_the_buffer() {
    // One in twenty of ten times too much is half of what the consumer takes.
    let sampling = Sampling::OneIn(NonZeroU32::new(20).unwrap());
    let (consumed, metrics, _) = run(Strategy::Sample { sampling, from: 0.5 });
    assert_eq!(metrics.dropped_count.total(), metrics.dropped_count.sampled);
    assert_eq!(metrics.peak_depth, CAPACITY / 2 + 1);
    assert_eq!(consumed.len() as u64 + metrics.dropped_count.sampled, ITEMS);
}

#[test]
fn disconnect_cuts_the_consumer_off_once_and_for_all() {
    let (consumed, metrics, refusals) = run(Strategy::Disconnect);
    let [Verdict::CutOff(rest)] = refusals.as_slice() else { panic!("{refusals:?}") };
    assert_eq!(rest.len(), CAPACITY + 1);
    let all: Vec<_> = consumed.iter().chain(rest).copied().collect();
    assert_eq!(all, (0..metrics.produced_count).collect::<Vec<_>>());
}
