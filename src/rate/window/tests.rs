//! The window, alone.

use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn what_is_older_than_the_window_is_forgotten() {
    let start = Instant::now();
    let mut window = SlidingWindow::new(SECOND, start);
    window.add(5, start);
    window.add(7, start + SECOND / 2);
    assert_eq!(window.count(start + SECOND), 12, "the oldest slot is counted whole");
    assert_eq!(window.count(start + SECOND * 11 / 10), 7);
    assert_eq!(window.count(start + 1_000 * SECOND), 0);
}

#[test]
fn the_rate_is_that_of_the_time_there_was() {
    let start = Instant::now();
    let mut window = SlidingWindow::new(10 * SECOND, start);
    assert!(window.rate(start).abs() < 1e-9);
    for second in 0..30 {
        window.add(100, start + SECOND * second);
        let rate = window.rate(start + SECOND * second + SECOND * 99 / 100);
        assert!((rate - 100.0).abs() < 2.0, "{rate} after {second} s");
    }
    assert!(window.rate(start + 100 * SECOND).abs() < 1e-9);
}

#[test]
fn a_limit_says_when_to_ask_again() {
    let start = Instant::now();
    let mut limit = WindowLimit::new(10, SECOND, start);
    assert_eq!(limit.wait(start), Duration::ZERO);
    assert!(limit.take(10, start) && !limit.take(1, start));
    let wait = limit.wait(start);
    assert_eq!(wait, SECOND * 11 / 10);
    assert!(!limit.take(1, start + wait - Duration::from_nanos(1)));
    assert!(limit.take(10, start + wait));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    /// The count is that of the window and at most one slot more; the limit holds in any window.
    #[test]
    fn a_limit_is_never_passed_in_any_window(
        questions in prop::collection::vec((0_u64..400, 1_u64..6), 1..200),
    ) {
        let start = Instant::now();
        let (mut limit, mut window) =
            (WindowLimit::new(10, SECOND, start), SlidingWindow::new(SECOND, start));
        let (mut now, mut passed, mut all) = (start, VecDeque::new(), Vec::new());
        for (millis, count) in questions {
            now += Duration::from_millis(millis);
            window.add(count, now);
            all.push((now, count));
            if limit.take(count, now) {
                passed.push_back((now, count));
            }
            while passed.front().is_some_and(|&(then, _)| now - then >= SECOND) {
                passed.pop_front();
            }
            prop_assert!(passed.iter().map(|(_, count)| count).sum::<u64>() <= 10);
            let within = |age: Duration| -> u64 {
                let young = all.iter().filter(|(then, _)| now - *then < age);
                young.map(|(_, count)| count).sum()
            };
            let counted = window.count(now);
            prop_assert!(within(SECOND) <= counted);
            prop_assert!(counted <= within(SECOND * 11 / 10 + Duration::from_nanos(1)));
        }
    }
}
