//! The bucket, alone.

use proptest::prelude::*;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_full_bucket_lets_the_burst_pass_and_then_the_rate() {
    let start = Instant::now();
    let mut bucket = TokenBucket::new(50.0, 100, start);
    assert_eq!(bucket.take_up_to(500, start), 100);
    assert!(!bucket.take(1, start));
    assert!(!bucket.take(26, start + SECOND / 2));
    assert!(bucket.take(25, start + SECOND / 2));
    assert_eq!(bucket.take_up_to(500, start + 10 * SECOND), 100, "no more is saved than the burst");
}

#[test]
fn the_wait_is_as_long_as_it_takes_and_no_longer() {
    let start = Instant::now();
    let mut bucket = TokenBucket::new(3.0, 10, start);
    assert!(bucket.take(10, start));
    let wait = bucket.wait_for(1, start).unwrap();
    assert_eq!(wait, Duration::from_nanos(333_333_334));
    assert!(!bucket.take(1, start + wait - Duration::from_nanos(1)));
    assert!(bucket.take(1, start + wait));
    assert_eq!(bucket.wait_for(11, start + wait), None, "more than the burst never passes at once");
    assert_eq!(TokenBucket::new(0.0, 0, start).wait_for(1, start), None);
    assert_eq!(TokenBucket::new(0.0, 1, start).wait_for(1, start), Some(Duration::ZERO));
}

#[test]
fn what_passes_in_a_time_is_the_rates_share_of_it_and_never_nothing() {
    let start = Instant::now();
    let bucket = TokenBucket::new(1_000.0, 300, start);
    assert_eq!(bucket.passes_in(SECOND / 10), 100);
    assert_eq!(bucket.passes_in(SECOND), 300, "no more than passes at once");
    assert_eq!(bucket.passes_in(Duration::from_micros(1)), 1);
    assert_eq!(TokenBucket::new(0.0, 0, start).passes_in(SECOND), 1);
    assert_eq!(TokenBucket::new(f64::MAX, u64::MAX, start).passes_in(Duration::MAX), u64::MAX);
}

#[test]
fn what_is_given_back_may_pass_again() {
    let start = Instant::now();
    let mut bucket = TokenBucket::new(1.0, 10, start);
    assert_eq!(bucket.take_up_to(8, start), 8);
    bucket.give_back(5);
    assert_eq!(bucket.available(start), 7);
    bucket.give_back(5);
    assert_eq!(bucket.available(start), 10, "and never more than full");
}

#[test]
fn another_rate_counts_from_now_on() {
    let start = Instant::now();
    let mut bucket = TokenBucket::new(10.0, 100, start);
    assert!(bucket.take(100, start));
    bucket.retune(1_000.0, 50, start + SECOND);
    assert_eq!(bucket.available(start + SECOND), 10, "the second before was at the old rate");
    assert_eq!(bucket.available(start + 2 * SECOND), 50);
    assert!((bucket.rate() - 1_000.0).abs() < 1e-9 && bucket.burst() == 50);
}

#[test]
fn a_clock_that_is_asked_out_of_order_fills_nothing_twice() {
    let start = Instant::now();
    let mut bucket = TokenBucket::new(10.0, 100, start);
    assert!(bucket.take(100, start + SECOND));
    assert_eq!(bucket.available(start), 0);
    assert_eq!(bucket.available(start + 2 * SECOND), 10);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    /// In no span between two questions does more pass than rate x t + burst, however it is asked;
    /// and where all that may pass is asked for, nothing less does.
    #[test]
    fn no_more_passes_than_the_rate_and_one_burst(
        rate_micros in 0_u64..5_000_000_000,
        burst in 0_u64..1_000,
        questions in prop::collection::vec((0_u64..3_000_000_000, 0_u64..2_000, any::<bool>()), 1..60),
    ) {
        let start = Instant::now();
        #[expect(clippy::cast_precision_loss, reason = "below 2^53")]
        let mut bucket = TokenBucket::new(rate_micros as f64 / 1e6, burst, start);
        let mut now = start;
        let mut passed = Vec::new();
        for (after, count, whole) in questions {
            now += Duration::from_nanos(after);
            let taken = if whole {
                u64::from(bucket.take(count, now)) * count
            } else {
                bucket.take_up_to(count, now)
            };
            passed.push((now, taken));
            for (from, &(first, _)) in passed.iter().enumerate() {
                let sum: u64 = passed[from..].iter().map(|(_, taken)| taken).sum();
                let span = (now - first).as_nanos();
                let allowed = u128::from(rate_micros) * span + u128::from(burst) * TOKEN;
                prop_assert!(u128::from(sum) * TOKEN <= allowed, "{sum} in {span} ns");
            }
        }
        // Greedy from here on: all of rate x t comes, to the record.
        prop_assert!(bucket.take_up_to(u64::MAX, now) <= burst);
        let left = bucket.tokens;
        let later = Duration::from_millis(10);
        let due = (left + u128::from(rate_micros) * later.as_nanos()) / TOKEN;
        let due = due.min(u128::from(burst));
        prop_assert_eq!(u128::from(bucket.take_up_to(u64::MAX, now + later)), due);
    }
}
