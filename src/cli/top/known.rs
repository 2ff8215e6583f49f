//! The bridge as it is known here: what it said last, what was before, and whether it still speaks.
//! Pure: time is passed in.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use anyhow::Context as _;
use tokio::time::Instant;

use super::listen::SILENT;
use super::sse::Event;
use super::told::{Before, Configured, Health, Now};
use crate::history::Sample;
use crate::record::UnixMs;

/// The page shows as much.
const WINDOW_MS: UnixMs = 600_000;

/// Rates are over so long: inserts come in batches, and one second says little.
const LOOK_BACK_MS: UnixMs = 10_000;

/// One comes a second; each is all that a bridge says of itself.
const LOOKS: usize = 16;

#[derive(Debug, Clone)]
pub(super) struct Known {
    /// None before its first word.
    pub(super) now: Option<Now>,
    /// By time, of ten minutes.
    pub(super) samples: BTreeMap<UnixMs, Sample>,
    /// TOML, secrets hidden; empty until it was told.
    pub(super) config: String,
    /// Why it was lost, when it was last.
    pub(super) trouble: Option<String>,
    /// Counters of the same process, of some seconds.
    looks: VecDeque<(UnixMs, Health)>,
    /// When it spoke last; at first when it was asked.
    heard_at: Instant,
}

impl Known {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            now: None,
            samples: BTreeMap::new(),
            config: String::new(),
            trouble: None,
            looks: VecDeque::new(),
            heard_at: now,
        }
    }

    /// What it tells. Events of a newer bridge are passed over.
    ///
    /// # Errors
    /// When it is not what a bridge tells.
    pub(super) fn hear(&mut self, event: &Event, at: Instant) -> anyhow::Result<()> {
        let strange = || format!("the event {:?} is not that of a data-bridge", event.name);
        match event.name.as_str() {
            "history" => {
                let before: Before = serde_json::from_str(&event.data).with_context(strange)?;
                self.remember(before.samples);
            }
            "config" => {
                let told: Configured = serde_json::from_str(&event.data).with_context(strange)?;
                self.config = told.toml;
            }
            "status" => {
                let now: Now = serde_json::from_str(&event.data).with_context(strange)?;
                self.look(now);
                self.heard_at = at;
                self.trouble = None;
            }
            _ => {}
        }
        Ok(())
    }

    pub(super) fn lose(&mut self, why: String) {
        self.trouble = Some(why);
    }

    fn look(&mut self, now: Now) {
        let at = now.sample.at;
        let is_another =
            |(_, before): &(UnixMs, Health)| before.started_at != now.health.started_at;
        if self.looks.back().is_some_and(is_another) {
            self.looks.clear();
        }
        // Its clock was set back: what was before it has times that are still to come.
        if self.looks.back().is_some_and(|(then, _)| *then > at) {
            self.looks.clear();
            self.samples.clear();
        }
        self.looks.push_back((at, now.health.clone()));
        let is_old = |(then, _): &(UnixMs, Health)| *then <= at - LOOK_BACK_MS;
        while self.looks.len() > LOOKS || self.looks.front().is_some_and(is_old) {
            self.looks.pop_front();
        }
        self.remember([now.sample]);
        self.now = Some(now);
    }

    fn remember(&mut self, samples: impl IntoIterator<Item = Sample>) {
        self.samples.extend(samples.into_iter().map(|sample| (sample.at, sample)));
        let last = self.samples.last_key_value().map_or(0, |(at, _)| *at);
        self.samples = self.samples.split_off(&(last - WINDOW_MS + 1));
    }

    /// Looks of this process of the bridge that are remembered for rates.
    pub(super) fn looks(&self) -> usize {
        self.looks.len()
    }

    /// For how long it has said nothing; None while it speaks.
    pub(super) fn silent_for(&self, at: Instant) -> Option<Duration> {
        let silence = at.saturating_duration_since(self.heard_at);
        let was_never_heard = self.now.is_none() && self.trouble.is_some();
        (silence > SILENT || was_never_heard).then_some(silence)
    }

    /// How fast a counter grows, a second; None until there were two looks at it.
    pub(super) fn rate(&self, counter: impl Fn(&Health) -> Option<f64>) -> Option<f64> {
        let ((first, before), (last, after)) = (self.looks.front()?, self.looks.back()?);
        let passed = u32::try_from(last - first).ok().filter(|ms| *ms > 0)?;
        Some(((counter(after)? - counter(before)?) * 1_000.0 / f64::from(passed)).max(0.0))
    }

    /// Seconds that an insert took on average, of those that were acknowledged lately.
    pub(super) fn insert_takes(
        &self,
        inserts: impl Fn(&Health) -> Option<f64>,
        seconds: impl Fn(&Health) -> Option<f64>,
    ) -> Option<f64> {
        let inserts = self.rate(inserts).filter(|inserts| *inserts > 0.0)?;
        Some(self.rate(seconds)? / inserts)
    }
}
