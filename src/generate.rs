//! What the load generator sends: realistic market records, each with a sequence number `_seq`.
//!
//! Everything is a pure function of (seed, kind, seq): a test can compute again what was sent, and
//! so can SQL (`check.rs`). Owns the shapes, the addresses and the plan of a run; `kafka.rs` and
//! `nats.rs` send it. Must never know the pipeline: it judges the bridge from outside.

mod address;
mod bad;
mod check;
mod external;
mod kafka;
mod market;
mod mix;
mod nats;
mod numbers;
mod pace;
mod plan;
mod run;
mod signals;
mod uniform;

pub use address::{Address, Target};
pub use check::sql_check;
pub use pace::{Burst, Pace};
pub use plan::{Plan, Stream, demo_profile};
pub use run::{Counts, Run, Servers, Tally};

use bad::Spoil;

/// What a record is about. Each kind counts its own `_seq`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    Ticks,
    Candles,
    External,
    Signals,
    System,
    /// The shapes to measure with, see `uniform.rs`.
    Bars,
    Indicators,
    Quotes,
    Books,
}

impl Kind {
    pub const ALL: [Self; 9] = [
        Self::Ticks,
        Self::Candles,
        Self::External,
        Self::Signals,
        Self::System,
        Self::Bars,
        Self::Indicators,
        Self::Quotes,
        Self::Books,
    ];

    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ticks => "ticks",
            Self::Candles => "candles",
            Self::External => "external",
            Self::Signals => "signals",
            Self::System => "system",
            Self::Bars => "bars",
            Self::Indicators => "indicators",
            Self::Quotes => "quotes",
            Self::Books => "books",
        }
    }
}

impl std::str::FromStr for Kind {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|kind| kind.name() == name).ok_or_else(|| {
            let names = Self::ALL.map(Self::name).join(", ");
            format!("`{name}` is no kind; there are {names}")
        })
    }
}

/// All that decides what a sequence number stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recipe {
    pub seed: u64,
    /// How often a bar is published; the last time it is complete. 1 to 100: the least lively bar
    /// has a hundred ticks, and each revision must have more than the one before.
    pub revisions: u64,
    /// The last of each so many records is bad.
    pub bad_every: Option<u64>,
}

impl Recipe {
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { seed, revisions: 1, bad_every: None }
    }

    /// System messages go into no table, so nothing can be wrong with them.
    #[must_use]
    pub fn is_bad(&self, kind: Kind, seq: u64) -> bool {
        kind != Kind::System && self.bad_every.is_some_and(|every| seq % every == every - 1)
    }

    /// Where it goes on Kafka; None for the kinds that Kafka does not carry.
    #[must_use]
    pub fn kafka_address(&self, kind: Kind, seq: u64) -> Option<Address> {
        address::on_kafka(kind, seq)
    }

    /// Where it goes on NATS.
    #[must_use]
    pub fn nats_subject(&self, kind: Kind, seq: u64) -> String {
        address::on_nats(self, kind, seq)
    }

    /// Appends the record's payload to an empty `out`.
    pub fn write(&self, kind: Kind, seq: u64, out: &mut Vec<u8>) {
        match kind {
            Kind::Ticks => market::Tick::new(self.seed, seq).write(seq, out),
            Kind::Candles => market::Candle::new(self.seed, self.revisions, seq).write(seq, out),
            Kind::External => external::write(self.seed, seq, out),
            Kind::Signals => signals::write_signal(self.seed, seq, out),
            Kind::System => signals::write_system(self.seed, seq, out),
            Kind::Bars => uniform::write_bar(self.seed, seq, out),
            Kind::Indicators => uniform::write_indicators(self.seed, seq, out),
            Kind::Quotes => uniform::write_quote(self.seed, seq, out),
            Kind::Books => uniform::write_book(self.seed, seq, out),
        }
        if let Some(every) = self.bad_every.filter(|_| self.is_bad(kind, seq)) {
            Spoil::at(kind, seq / every).apply(kind, out);
        }
    }
}

/// The good record that stands at `seq`, each bar published once.
#[must_use]
pub fn record(seed: u64, kind: Kind, seq: u64) -> Vec<u8> {
    let mut out = Vec::with_capacity(512);
    Recipe::new(seed).write(kind, seq, &mut out);
    out
}

#[cfg(test)]
mod tests;
