//! One tier: from which fill to which it is in force, what it says of whom, what it has cost. Pure.

use std::collections::BTreeMap;

use crate::backpressure::{Level, Thresholds, Verdict, check_backpressure};
use crate::config;
use crate::route::RouteId;
use crate::status::TierStatus;

/// What a tier does to a class.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Act {
    /// Keeps one in so many.
    Sample(u32),
    /// Keeps nothing.
    Drop,
}

/// What a tier has cost a class.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct Losses {
    /// Of the sample the one that was kept; no loss, but what the others are measured by.
    pub kept: u64,
    /// Not the one that was kept.
    pub sampled: u64,
    /// Nothing of the class was kept.
    pub dropped: u64,
}

impl Losses {
    #[must_use]
    pub fn all(self) -> u64 {
        self.sampled + self.dropped
    }
}

/// A tier began or ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TierLook {
    pub at_percent: u8,
    pub began: bool,
}

#[derive(Debug)]
pub(super) struct Tier {
    at_percent: u8,
    until_percent: u8,
    /// The rule of the pause, at other levels: strict, with hysteresis, in records and bytes.
    thresholds: Thresholds,
    in_force: bool,
    entered: u64,
    acts: Vec<Option<Act>>,
    losses: BTreeMap<String, Losses>,
}

impl Tier {
    /// Without limits yet. There are so many numbers of routes.
    pub(super) fn new<'a>(
        tier: &config::Tier,
        routes: impl Iterator<Item = (&'a config::Route, &'a RouteId)>,
        numbers: usize,
    ) -> Self {
        let (mut acts, mut losses) = (vec![None; numbers], BTreeMap::new());
        for (route, id) in routes {
            acts[id.index()] = match tier.sample.get(route.rank()) {
                _ if tier.drop.contains(route.rank()) => Some(Act::Drop),
                one_in => one_in.map(|one_in| Act::Sample(*one_in)),
            };
            if acts[id.index()].is_some() {
                // Every class that it may cost something is there from the start, at nothing.
                losses.insert(route.class.clone(), Losses::default());
            }
        }
        Self {
            at_percent: tier.at_percent,
            until_percent: tier.until_percent,
            thresholds: Thresholds { pause: Level::default(), resume: Level::default() },
            in_force: false,
            entered: 0,
            acts,
            losses,
        }
    }

    pub(super) fn is_at(&self, percent: u8) -> bool {
        self.at_percent == percent
    }

    /// It was there before, as this.
    pub(super) fn go_on_from(&mut self, before: Self) {
        (self.in_force, self.entered) = (before.in_force, before.entered);
        self.losses.extend(before.losses);
    }

    pub(super) fn set_limits(&mut self, limits: Level) {
        self.thresholds = Thresholds {
            pause: limits.percent(self.at_percent),
            resume: limits.percent(self.until_percent),
        };
    }

    pub(super) fn look(&mut self, level: Level) -> Option<TierLook> {
        let began = match check_backpressure(level, &self.thresholds, self.in_force) {
            Verdict::Pause => true,
            Verdict::Resume => false,
            Verdict::Stay => return None,
        };
        self.in_force = began;
        self.entered += u64::from(began);
        Some(TierLook { at_percent: self.at_percent, began })
    }

    pub(super) fn in_force(&self) -> bool {
        self.in_force
    }

    pub(super) fn act(&self, route: RouteId) -> Option<Act> {
        self.acts.get(route.index()).copied().flatten()
    }

    pub(super) fn count(&mut self, class: &str) -> &mut Losses {
        if !self.losses.contains_key(class) {
            self.losses.insert(class.to_owned(), Losses::default());
        }
        self.losses.get_mut(class).expect("was there, or has just been put there")
    }

    pub(super) fn status(&self) -> TierStatus {
        TierStatus {
            at_percent: self.at_percent,
            until_percent: self.until_percent,
            in_force: self.in_force,
            entered: self.entered,
            lost: self.losses.clone(),
        }
    }
}
