//! Each strategy against a reference under random interleavings.
//!
//! The reference keeps numbers in a list and knows the strategies from their one-line meaning.
//! Items are numbered as they are produced, so that what was dropped before an item that is taken
//! can be told from the numbers alone.

use proptest::prelude::*;
use proptest::strategy::Strategy as Generate;

use super::Strategy as S;
use super::{
    Buffer, Dropped, Duration, Instant, Reason, Sampler, Sampling, Share, Steps, Taken, Verdict,
    one_in,
};

#[derive(Debug, Clone, Copy)]
enum Step {
    Offer { key: u8 },
    Take,
    Pause,
    Resume,
    Finish,
    Leave,
    Pass { millis: u64 },
}

fn steps() -> impl Generate<Value = Vec<Step>> {
    let step = prop_oneof![
        60 => any::<u8>().prop_map(|key| Step::Offer { key }),
        40 => Just(Step::Take),
        4 => Just(Step::Pause),
        6 => Just(Step::Resume),
        10 => (0_u64..2_000).prop_map(|millis| Step::Pass { millis }),
    ];
    // The end comes at the end, if it comes: before it there is something to see.
    let last = prop_oneof![Just(Step::Finish), Just(Step::Leave), Just(Step::Take)];
    let after = prop::collection::vec(
        prop_oneof![
            Just(Step::Take),
            Just(Step::Offer { key: 0 }),
            Just(Step::Resume),
            Just(Step::Leave)
        ],
        0..12,
    );
    (prop::collection::vec(step, 0..300), last, after).prop_map(|(mut steps, last, after)| {
        steps.push(last);
        steps.extend(after);
        steps
    })
}

fn strategies() -> impl Generate<Value = (usize, S)> {
    (1_usize..12, 0_usize..7, 1_u32..5, 0.0_f64..1.2, 1.0_f64..500.0).prop_map(
        |(capacity, which, n, from, rate)| {
            let share = Share::new(1.0 / f64::from(n)).unwrap();
            let samplings =
                [one_in(n), Sampling::ByKey(share), Sampling::Random { share, seed: u64::from(n) }];
            let strategy = match which {
                0 => S::Block,
                1 => S::DropNewest,
                2 => S::DropOldest,
                3 => S::Sliding { keep: (capacity / 2).max(1) },
                4 => S::Sample { sampling: samplings[capacity % 3], from },
                5 => S::Disconnect,
                _ => S::Adaptive(Steps::rate(rate, 1_000.0)),
            };
            (capacity, strategy)
        },
    )
}

/// What is in the buffer, as a list.
struct Reference {
    capacity: usize,
    strategy: S,
    sampler: Option<Sampler>,
    list: Vec<u64>,
    produced: u64,
    taken: u64,
    paused: bool,
    closed: bool,
    ended: bool,
    dropped: Dropped,
    peak: usize,
}

impl Reference {
    fn new(capacity: usize, strategy: S) -> Self {
        let sampler = match strategy {
            S::Sample { sampling, .. } => Some(Sampler::new(sampling)),
            _ => None,
        };
        let (paused, closed, ended) = (false, false, false);
        let (list, produced, taken) = (Vec::new(), 0, 0);
        let dropped = Dropped::default();
        Self {
            capacity,
            strategy,
            sampler,
            list,
            produced,
            taken,
            paused,
            closed,
            ended,
            dropped,
            peak: 0,
        }
    }

    fn limit(&self) -> usize {
        match self.strategy {
            S::Sliding { keep } if self.paused => keep,
            _ => self.capacity,
        }
    }

    fn offer(&mut self, item: u64, key: &[u8]) -> Verdict<u64> {
        if self.closed {
            return Verdict::Closed(item);
        }
        let fill = f64::from(u32::try_from(self.list.len()).unwrap())
            / f64::from(u32::try_from(self.capacity).unwrap());
        let full = self.list.len() >= self.limit();
        if let S::Sample { from, .. } = self.strategy
            && fill >= from
            && !self.sampler.as_mut().unwrap().keeps(Some(key))
        {
            self.produced += 1;
            self.dropped.sampled += 1;
            return Verdict::Dropped(item, Reason::Sampled);
        }
        if full && self.strategy.is_lossless() {
            return Verdict::Full(item);
        }
        self.produced += 1;
        self.list.push(item);
        if !full {
            self.peak = self.peak.max(self.list.len());
            return Verdict::Kept;
        }
        match self.strategy {
            S::DropOldest | S::Sliding { .. } => {
                self.dropped.oldest += 1;
                Verdict::Replaced(vec![self.list.remove(0)])
            }
            S::Disconnect => {
                (self.closed, self.ended) = (true, true);
                let all = std::mem::take(&mut self.list);
                self.dropped.disconnected += all.len() as u64;
                Verdict::CutOff(all)
            }
            _ => {
                self.dropped.newest += 1;
                Verdict::Dropped(self.list.pop().unwrap(), Reason::Newest)
            }
        }
    }

    fn take(&mut self) -> Option<u64> {
        if self.paused || self.list.is_empty() {
            return None;
        }
        self.taken += 1;
        Some(self.list.remove(0))
    }

    fn pause(&mut self) -> Vec<u64> {
        self.paused = true;
        let surplus = self.list.len().saturating_sub(self.limit());
        self.dropped.oldest += surplus as u64;
        self.list.drain(..surplus).collect()
    }

    fn leave(&mut self) -> Vec<u64> {
        if self.ended {
            return Vec::new();
        }
        (self.closed, self.ended) = (true, true);
        self.dropped.left += self.list.len() as u64;
        std::mem::take(&mut self.list)
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_000))]

    #[test]
    fn every_strategy_does_what_the_reference_does(
        (capacity, strategy) in strategies(),
        steps in steps(),
    ) {
        let start = Instant::now();
        let mut buffer = Buffer::new(capacity, strategy, start);
        let mut reference = Reference::new(capacity, strategy);
        // The number that follows the item taken last: what lies between is what was dropped.
        let (mut now, mut next, mut told, mut kept) = (start, 0, 0, 0_u64);
        for step in steps {
            match step {
                Step::Offer { key } => {
                    let item = reference.produced;
                    let verdict = buffer.offer_keyed(item, &[key], now);
                    if let Verdict::TooFast(_, wait) = &verdict {
                        // The reference knows no time: only that such an item is nowhere.
                        prop_assert!(matches!(strategy, S::Adaptive(_)));
                        prop_assert!(!wait.is_zero() && !reference.closed);
                    } else {
                        kept += u64::from(verdict == Verdict::Kept);
                        prop_assert_eq!(verdict, reference.offer(item, &[key]));
                    }
                }
                Step::Take => {
                    let taken = buffer.take(now);
                    prop_assert_eq!(taken.map(|taken| taken.item), reference.take());
                    if let Some(Taken { item, missed }) = taken {
                        prop_assert_eq!(next + missed, item, "order kept, and every gap is told");
                        next = item + 1;
                        told += missed;
                    }
                }
                Step::Pause => prop_assert_eq!(buffer.pause(), reference.pause()),
                Step::Resume => {
                    buffer.resume();
                    reference.paused = false;
                }
                Step::Finish => {
                    buffer.finish();
                    reference.closed = true;
                }
                Step::Leave => prop_assert_eq!(buffer.leave(), reference.leave()),
                Step::Pass { millis } => now += Duration::from_millis(millis),
            }
            let metrics = buffer.metrics(now);
            prop_assert!(metrics.current_depth <= capacity);
            prop_assert_eq!(metrics.current_depth, reference.list.len());
            prop_assert_eq!(metrics.peak_depth, reference.peak);
            prop_assert_eq!(metrics.dropped_count, reference.dropped);
            prop_assert_eq!(
                (metrics.produced_count, metrics.consumed_count),
                (reference.produced, reference.taken)
            );
            let depth = metrics.current_depth as u64;
            let dropped = metrics.dropped_count.total();
            prop_assert_eq!(metrics.produced_count, metrics.consumed_count + dropped + depth);
            if let S::Adaptive(steps) = strategy {
                let limit = metrics.current_rate_limit.unwrap();
                prop_assert!((steps.min..=steps.max).contains(&limit));
                // A hundredth of a second at once, rounded up, and one more.
                let most = steps.max * ((now - start).as_secs_f64() + 0.01) + 2.0;
                prop_assert!(f64::from(u32::try_from(kept).unwrap()) <= most);
            }
            let ended = buffer.ended();
            prop_assert_eq!(
                ended.is_some(),
                reference.ended || reference.closed && reference.list.is_empty()
            );
            if let Some(ended) = ended {
                prop_assert_eq!(told + ended.missed, dropped, "in the end every drop was told");
            }
        }
    }
}
