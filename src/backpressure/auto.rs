//! Thresholds out of the memory that there is: `thresholds = "auto"`.
//!
//! Pure. Owns what the records weigh, as far as is known, and where the cap is on its way to. It
//! reads no memory limit and no level by itself; it is told, and says what the limits are now.
//!
//! ```text
//! budget = as given, or 80 % of the memory that there is
//! held = what the budget leaves for it (`budget.rs`)
//! cap = held / weight of a record, pause at 80 % of it, resume at 40 %
//! ```

use super::budget;
use crate::config::{AutoThresholds, Backpressure, Memory};
use crate::memory::limit::Limit;

/// Less than this is not worth planning: a single poll is as large.
const LEAST_BYTES: usize = 4 * MIB;

/// Until records were seen: what a candle with its indicators weighs.
const ASSUMED_RECORD_BYTES: usize = 1_024;

/// Fewer records say too little.
const ENOUGH_RECORDS: u64 = 100;

/// Weight of the last interval in what a record weighs: a tenfold size is believed within some ten
/// heartbeats. The bytes protect meanwhile.
const LEARN: f64 = 0.3;

/// The cap moves by at most so much at a heartbeat: a credit or a batch that was right a moment ago
/// shall not be wrong by far.
const STEP_PERCENT: usize = 10;

/// Closer than this is close enough: the cap shall stand still while the weights only waver.
const CLOSE_PERCENT: usize = 5;

/// A cap that moved so far since it was last told of is told again.
const WORTH_TELLING_PERCENT: usize = 20;

/// Beyond it a cap says nothing any more: as the largest that can be configured.
const MOST_RECORDS: usize = 100_000_000;

const MIB: usize = 1024 * 1024;

/// The moving limits.
#[derive(Debug)]
pub struct Auto {
    plan: AutoThresholds,
    record_bytes: f64,
    told: usize,
    seen: u64,
    seen_bytes: u64,
}

impl Auto {
    #[must_use]
    pub fn new(plan: AutoThresholds) -> Self {
        let record_bytes = float(ASSUMED_RECORD_BYTES);
        Self { plan, record_bytes, told: 0, seen: 0, seen_bytes: 0 }
    }

    /// The limit of bytes held, which follows from the memory alone.
    #[must_use]
    pub fn max_bytes(&self) -> usize {
        let memory = &self.plan.memory;
        budget::held(memory.budget, memory.fetched).max(LEAST_BYTES)
    }

    /// Where the cap should be.
    fn wanted(&self) -> usize {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "clamped after"
        )]
        let records = (float(self.max_bytes()) / self.record_bytes) as usize;
        records.clamp(self.plan.least, MOST_RECORDS.max(self.plan.least))
    }

    /// Sets the limits at the start, at once.
    pub fn begin(&mut self, limits: &mut Backpressure) {
        let wanted = self.wanted();
        self.set(limits, wanted);
        self.told = wanted;
    }

    /// There is another amount of memory now. The bytes follow at once, the cap step by step. Says
    /// whether anything follows from it.
    pub fn memory_is(&mut self, limit: &Limit, limits: &mut Backpressure) -> bool {
        let known = &self.plan.memory;
        let memory = Memory::within(limit, known.fetched);
        if !known.follows || memory == *known {
            return false;
        }
        let moved = memory.budget != known.budget;
        self.plan.memory = memory;
        self.lay(limits);
        moved
    }

    /// It is planned otherwise from now on. What the records weigh is known all the same, so the cap
    /// goes on from where it is; where the memory was given and is another, or is not given any more,
    /// somebody wants other limits, and they begin anew.
    pub fn replan(&mut self, plan: AutoThresholds, limits: &mut Backpressure) {
        let (before, memory) = (&self.plan.memory, &plan.memory);
        let goes_on =
            before.follows == memory.follows && (memory.follows || before.budget == memory.budget);
        if goes_on {
            self.plan = plan;
            let cap = limits.max_buffer_size.max(self.plan.least);
            self.set(limits, cap);
        } else {
            *self = Self::new(plan);
            self.begin(limits);
        }
        self.lay(limits);
    }

    /// The limits that do not move by steps.
    fn lay(&self, limits: &mut Backpressure) {
        limits.memory_budget = Some(self.plan.memory.budget);
        limits.max_buffer_bytes = self.max_bytes();
        limits.auto = Some(self.plan.clone());
    }

    /// Records were admitted.
    pub fn admitted(&mut self, records: usize, bytes: usize) {
        self.seen += records as u64;
        self.seen_bytes += bytes as u64;
    }

    /// At the heartbeat: what was seen is learnt, and the limits move a step. Says whether they did.
    pub fn step(&mut self, limits: &mut Backpressure, held: usize) -> bool {
        if self.seen >= ENOUGH_RECORDS {
            let mean = crate::status::float(self.seen_bytes) / crate::status::float(self.seen);
            self.record_bytes += (mean - self.record_bytes) * LEARN;
            (self.seen, self.seen_bytes) = (0, 0);
        }
        let (now, wanted) = (limits.max_buffer_size, self.wanted());
        if now.abs_diff(wanted) < now / 100 * CLOSE_PERCENT {
            return false;
        }
        let step = (now / 100 * STEP_PERCENT).max(1);
        let next = wanted.clamp(now.saturating_sub(step), now + step);
        // What is held stays within the cap: it was promised when it was taken.
        let next = next.max(held.min(now));
        self.set(limits, next);
        next != now
    }

    /// The cap has moved far since this was last asked with that answer.
    pub fn is_worth_telling(&mut self, limits: &Backpressure) -> bool {
        let far =
            self.told.abs_diff(limits.max_buffer_size) > self.told / 100 * WORTH_TELLING_PERCENT;
        if far {
            self.told = limits.max_buffer_size;
        }
        far
    }

    fn set(&self, limits: &mut Backpressure, cap: usize) {
        let percent = |share: usize| cap / 100 * share + cap % 100 * share / 100;
        limits.max_buffer_size = cap;
        limits.pause_threshold = percent(80);
        limits.resume_threshold = percent(40);
        limits.pull_limit = percent(usize::from(self.plan.pull_percent));
        limits.max_buffer_bytes = self.max_bytes();
    }

    #[must_use]
    pub fn memory(&self) -> &Memory {
        &self.plan.memory
    }

    /// What a record weighs, as far as is known.
    #[must_use]
    pub fn record_bytes(&self) -> f64 {
        self.record_bytes
    }

    /// What it chose and why, for a person.
    #[must_use]
    pub fn why(&self) -> String {
        let Memory { budget, from, fetched, .. } = &self.plan.memory;
        let mib = |bytes: usize| bytes / MIB;
        format!(
            "{} MiB ({from}): {} MiB for the process, {} MiB for what is fetched ahead, and {} MiB \
             held with its bookkeeping and bodies; a record weighs {:.0} bytes",
            mib(*budget),
            mib(budget::ALWAYS),
            mib(*fetched),
            mib(self.max_bytes()),
            self.record_bytes
        )
    }
}

fn float(count: usize) -> f64 {
    crate::status::float(count as u64)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    fn auto(limit_mib: usize) -> Auto {
        let memory = Memory::within(&limit(limit_mib, "a test"), 48 * MIB);
        Auto::new(AutoThresholds { memory, pull_percent: 60, least: 20_000 })
    }

    fn limit(mib: usize, from: &str) -> Limit {
        Limit { bytes: mib * MIB, from: from.to_owned() }
    }

    fn begun(auto: &mut Auto) -> Backpressure {
        let mut limits = Backpressure {
            max_buffer_size: 50_000,
            pause_threshold: 40_000,
            resume_threshold: 20_000,
            pull_limit: 30_000,
            max_buffer_bytes: 256 * MIB,
            memory_budget: None,
            warn_after: Duration::ZERO,
            critical_after: Duration::ZERO,
            repeat_every: Duration::ZERO,
            auto: None,
        };
        auto.begin(&mut limits);
        limits
    }

    #[test]
    fn the_thresholds_are_always_80_and_40_percent() {
        for limit in [64, 256, 2_048, 65_536] {
            let limits = begun(&mut auto(limit));
            let cap = limits.max_buffer_size;
            assert_eq!(limits.pause_threshold, cap * 80 / 100);
            assert_eq!(limits.resume_threshold, cap * 40 / 100);
            assert_eq!(limits.pull_limit, cap * 60 / 100);
        }
    }

    #[test]
    fn a_small_and_a_large_machine_get_what_fits_them() {
        let (small, large) = (auto(256).max_bytes() / MIB, auto(2_048).max_bytes() / MIB);
        assert_eq!((small, large), (36, 514));
        assert_eq!(auto(64).max_bytes(), LEAST_BYTES);
    }

    #[test]
    fn larger_records_lower_the_cap_step_by_step_and_never_below_what_is_held() {
        let mut auto = auto(2_048);
        let mut limits = begun(&mut auto);
        let start = limits.max_buffer_size;
        auto.admitted(1_000, 10_240_000);
        assert!(auto.step(&mut limits, 0));
        assert!(limits.max_buffer_size >= start * 89 / 100, "a step at a time");
        for _ in 0..100 {
            auto.admitted(1_000, 10_240_000);
            let _ = auto.step(&mut limits, 300_000);
        }
        assert_eq!(limits.max_buffer_size, 300_000, "held");
        for _ in 0..100 {
            let _ = auto.step(&mut limits, 0);
        }
        let wanted = auto.max_bytes() / 10_240;
        assert!(limits.max_buffer_size.abs_diff(wanted) <= wanted / 10, "{limits:?} {wanted}");
    }

    #[test]
    fn with_another_limit_the_bytes_follow_at_once_and_the_cap_step_by_step() {
        let mut auto = auto(2_048);
        let mut limits = begun(&mut auto);
        let start = limits.max_buffer_size;
        assert!(!auto.memory_is(&limit(2_048, "another group"), &mut limits));
        assert!(auto.why().contains("another group"), "{}", auto.why());
        assert!(auto.memory_is(&limit(256, "less"), &mut limits));
        assert_eq!(limits.max_buffer_bytes / MIB, 36);
        assert!(auto.step(&mut limits, 0) && limits.max_buffer_size >= start * 89 / 100);
        for _ in 0..100 {
            let _ = auto.step(&mut limits, 0);
        }
        assert!(limits.max_buffer_size < start / 10, "{}", limits.max_buffer_size);
        assert!(auto.why().contains("204 MiB (80 % of 256 MiB: less)"), "{}", auto.why());
    }

    #[test]
    fn a_limit_that_was_given_stays() {
        let mut auto = auto(2_048);
        auto.plan.memory.follows = false;
        let mut limits = begun(&mut auto);
        assert!(!auto.memory_is(&limit(256, "less"), &mut limits));
        assert_eq!(limits.max_buffer_bytes / MIB, 514);
    }

    #[test]
    fn planned_otherwise_the_cap_goes_on_from_where_it_is() {
        let mut auto = auto(2_048);
        let mut limits = begun(&mut auto);
        let start = limits.max_buffer_size;
        for _ in 0..100 {
            auto.admitted(10_000, 1_850_000);
            let _ = auto.step(&mut limits, 0);
        }
        let (learnt, bytes) = (limits.max_buffer_size, limits.max_buffer_bytes);
        assert!(learnt > 4 * start, "{learnt}");
        // One more client fetches, a batch is larger, the limit was read at another moment.
        let mut plan = auto.plan.clone();
        plan.memory = Memory::within(&limit(2_000, "a moment later"), 64 * MIB);
        plan.least = 40_000;
        auto.replan(plan.clone(), &mut limits);
        assert_eq!((limits.max_buffer_size, &limits.auto), (learnt, &Some(plan.clone())));
        assert!(limits.max_buffer_bytes < bytes && auto.record_bytes() < 200.0);
        plan.least = 2 * learnt;
        auto.replan(plan.clone(), &mut limits);
        assert_eq!(limits.max_buffer_size, 2 * learnt, "room for two of the largest batches");
        // A budget that is given now is somebody's wish.
        plan.memory.follows = false;
        plan.least = 20_000;
        auto.replan(plan, &mut limits);
        assert!(limits.max_buffer_size < start && auto.record_bytes() > 1_000.0);
    }

    #[test]
    fn a_cap_that_wavers_stands_still() {
        let mut auto = auto(2_048);
        let mut limits = begun(&mut auto);
        for size in [1_000, 1_050, 1_010, 1_040] {
            auto.admitted(1_000, size * 1_000);
            assert!(!auto.step(&mut limits, 0));
        }
        assert!(!auto.is_worth_telling(&limits));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1_000))]

        /// Whatever is held and however records weigh: the order of the limits holds, a step is a
        /// step, and what is held stays within the cap.
        #[test]
        fn the_limits_stay_in_order(
            limit in 32usize..10_000,
            looks in prop::collection::vec((0usize..2_000_000, 100usize..2_000, 10usize..100_000), 1..50)
        ) {
            let mut auto = auto(limit);
            let mut limits = begun(&mut auto);
            for (held, records, bytes) in looks {
                let before = limits.max_buffer_size;
                let held = held.min(before);
                auto.admitted(records, records * bytes);
                let _ = auto.step(&mut limits, held);
                let Backpressure { max_buffer_size: cap, pause_threshold, resume_threshold, pull_limit, .. } = limits;
                prop_assert!(resume_threshold < pull_limit && pull_limit < pause_threshold);
                prop_assert!(pause_threshold < cap && held <= cap && cap >= 20_000.min(before));
                prop_assert!(cap.abs_diff(before) <= before / 100 * STEP_PERCENT + 1);
            }
        }
    }
}
