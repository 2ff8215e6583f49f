//! The breaker's rules one by one, and random histories against a plain list of all that happened.

use proptest::prelude::*;

use super::*;

const RESET: Duration = Duration::from_secs(60);
const WINDOW: Duration = Duration::from_secs(600);

fn breaker(max_failures: u32) -> Breaker {
    Breaker::new(&config::Breaker { max_failures, reset_timeout: RESET }, WINDOW)
}

fn opened(max_failures: u32, now: Instant) -> Breaker {
    let mut breaker = breaker(max_failures);
    let mut last = Change::None;
    for _ in 0..max_failures {
        last = breaker.failed(None, now);
    }
    assert_eq!(last, Change::Opened { probe_at: now + RESET });
    breaker
}

#[test]
fn a_hang_of_every_attempt_still_opens_it() {
    let retry =
        Retry { base_delay: Duration::from_millis(100), max_delay: Duration::from_secs(30) };
    let config = config::Breaker { max_failures: 10, reset_timeout: RESET };
    let timeout = Duration::from_secs(30);
    let window = window(&config, &retry, timeout);
    assert_eq!(window, Duration::from_secs(600));
    let mut breaker = Breaker::new(&config, window);
    let began = Instant::now();
    let step = timeout + retry.max_delay;
    let changes: Vec<Change> =
        (0..10).map(|attempt| breaker.failed(None, began + step * attempt)).collect();
    assert!(matches!(changes[9], Change::Opened { .. }), "{changes:?}");
}

#[test]
fn failures_hours_apart_never_add_up() {
    let mut breaker = breaker(10);
    let began = Instant::now();
    for hour in 0..1_000 {
        let now = began + Duration::from_secs(3_600) * hour;
        assert_eq!(breaker.failed(None, now), Change::None, "{hour}");
        assert_eq!(breaker.failures(), 1, "the older ones are forgotten");
    }
}

#[test]
fn a_success_begins_the_count_anew() {
    let now = Instant::now();
    let mut breaker = breaker(3);
    for _ in 0..100 {
        assert_eq!(breaker.failed(None, now), Change::None);
        assert_eq!(breaker.failed(None, now), Change::None);
        assert_eq!(breaker.succeeded(), Change::None);
    }
    assert_eq!(breaker.openings(), 0);
}

/// Its probe, which it must give out.
fn probe(breaker: &mut Breaker, now: Instant) -> Option<Probe> {
    match breaker.ask(now) {
        Permit::Probe(probe) => Some(probe),
        other => panic!("{other:?} instead of the probe"),
    }
}

#[test]
fn one_batch_alone_is_the_probe_and_decides() {
    let now = Instant::now();
    let mut breaker = opened(10, now);
    assert_eq!(breaker.ask(now + RESET.mul_f64(0.99)), Permit::Reject);
    let later = now + RESET;
    let first = probe(&mut breaker, later);
    assert_eq!(breaker.ask(later + RESET * 100), Permit::Reject, "one at a time");
    // one that began before the opening ends only now
    assert_eq!(breaker.failed(None, later), Change::None);
    assert_eq!(breaker.state(), BreakerState::HalfOpen);
    assert_eq!(breaker.failed(first, later), Change::Reopened { probe_at: later + RESET });
    probe(&mut breaker, later + RESET);
    assert_eq!(breaker.failed(first, later), Change::None, "it was the probe once");
    assert_eq!(breaker.succeeded(), Change::Closed);
    assert_eq!(breaker.ask(later + RESET), Permit::Go);
    assert_eq!((breaker.openings(), breaker.failures()), (1, 0));
}

#[test]
fn a_probe_that_is_refused_for_its_own_sake_shows_that_the_sink_answers() {
    let now = Instant::now();
    let mut breaker = opened(2, now);
    assert_eq!(breaker.answered(None), Change::None, "one from before the opening");
    let probe = probe(&mut breaker, now + RESET);
    assert_eq!(breaker.answered(probe), Change::Closed);
}

#[test]
fn a_probe_that_was_not_sent_leaves_it_to_the_next_batch() {
    let now = Instant::now();
    let mut breaker = opened(2, now);
    let first = probe(&mut breaker, now + RESET);
    breaker.unsent(first, now + RESET);
    assert_ne!(probe(&mut breaker, now + RESET), first);
}

#[test]
fn at_the_stop_it_stands_aside() {
    let now = Instant::now();
    let mut breaker = opened(2, now);
    breaker.retire();
    for _ in 0..100 {
        assert_eq!(breaker.ask(now), Permit::Go);
        assert_eq!(breaker.failed(None, now), Change::None);
    }
}

#[derive(Debug, Clone, Copy)]
enum Step {
    /// A batch is due.
    Ask,
    /// The one that has been under way for longest, or the probe, ends.
    End {
        probe: bool,
        with: Outcome,
    },
    Time {
        seconds: u64,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Success,
    Failure,
    OwnFault,
    Unsent,
}

fn step() -> impl Strategy<Value = Step> {
    let with = prop_oneof![
        6 => Just(Outcome::Failure),
        1 => Just(Outcome::Success),
        1 => Just(Outcome::OwnFault),
        1 => Just(Outcome::Unsent),
    ];
    prop_oneof![
        5 => Just(Step::Ask),
        4 => (any::<bool>(), with).prop_map(|(probe, with)| Step::End { probe, with }),
        1 => (0..120_u64).prop_map(|seconds| Step::Time { seconds }),
        1 => (590..610_u64).prop_map(|seconds| Step::Time { seconds }),
    ]
}

/// The same rules over everything that ever happened.
#[derive(Debug, Default)]
struct Reference {
    /// Since the last success, or since it was opened.
    failures: Vec<Instant>,
    /// When the probe may go; None while closed.
    open_until: Option<Instant>,
    /// The one that decides.
    probe: Option<Probe>,
    /// Inserts under way, oldest first; which were sent as a probe.
    under_way: Vec<Option<Probe>>,
    openings: u64,
}

impl Reference {
    fn may_go(&self) -> bool {
        self.open_until.is_none()
    }

    fn may_probe(&self, now: Instant) -> bool {
        self.open_until.is_some_and(|until| until <= now) && self.probe.is_none()
    }

    fn close(&mut self) {
        (self.failures, self.open_until, self.probe) = (Vec::new(), None, None);
    }

    fn ended(&mut self, was: Option<Probe>, with: Outcome, max_failures: usize, now: Instant) {
        let decides = was.is_some() && was == self.probe;
        match with {
            Outcome::Success => self.close(),
            Outcome::OwnFault if decides => self.close(),
            Outcome::Failure if decides => {
                (self.open_until, self.probe) = (Some(now + RESET), None);
            }
            Outcome::Unsent if decides => (self.open_until, self.probe) = (Some(now), None),
            Outcome::Failure if self.open_until.is_none() => {
                self.failures.push(now);
                let recent = |failure: &&Instant| now - **failure < WINDOW;
                if self.failures.iter().filter(recent).count() >= max_failures {
                    self.open_until = Some(now + RESET);
                    self.openings += 1;
                }
            }
            Outcome::OwnFault | Outcome::Failure | Outcome::Unsent => {}
        }
    }
}

fn tell(breaker: &mut Breaker, probe: Option<Probe>, with: Outcome, now: Instant) -> Change {
    match with {
        Outcome::Success => breaker.succeeded(),
        Outcome::Failure => breaker.failed(probe, now),
        Outcome::OwnFault => breaker.answered(probe),
        Outcome::Unsent => {
            breaker.unsent(probe, now);
            Change::None
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]

    #[test]
    fn whatever_happens_it_agrees_with_all_that_happened(
        max_failures in 1..6_u32,
        steps in prop::collection::vec(step(), 1..120),
    ) {
        let mut breaker = breaker(max_failures);
        let mut reference = Reference::default();
        let mut now = Instant::now();
        for step in steps {
            match step {
                Step::Time { seconds } => now += Duration::from_secs(seconds),
                Step::Ask => match breaker.ask(now) {
                    Permit::Go => {
                        prop_assert!(reference.may_go());
                        reference.under_way.push(None);
                    }
                    Permit::Probe(probe) => {
                        prop_assert!(reference.may_probe(now), "and never two at once");
                        reference.probe = Some(probe);
                        reference.under_way.push(Some(probe));
                    }
                    Permit::Reject => {
                        prop_assert!(!reference.may_go() && !reference.may_probe(now));
                    }
                },
                Step::End { probe, with } => {
                    let wanted = |each: &Option<Probe>| each.is_some() == probe;
                    let Some(index) = reference.under_way.iter().position(wanted) else {
                        continue;
                    };
                    let was = reference.under_way.remove(index);
                    let before = reference.openings;
                    let change = tell(&mut breaker, was, with, now);
                    reference.ended(was, with, max_failures as usize, now);
                    let opened = reference.openings > before;
                    prop_assert_eq!(matches!(change, Change::Opened { .. }), opened);
                    prop_assert!(with != Outcome::Success || !breaker.is_open());
                }
            }
            prop_assert_eq!(breaker.is_open(), reference.open_until.is_some());
            prop_assert_eq!(breaker.openings(), reference.openings);
        }
    }
}
