//! Where a record goes: the topics and subjects of the market profile. Pure.

use super::market::{Candle, Form, SYMBOL_COUNT};
use super::{Kind, Recipe, external, signals};

/// A transport.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Target {
    Kafka,
    Nats,
}

impl Target {
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Kafka => "kafka",
            Self::Nats => "nats",
        }
    }

    /// Signals and system messages travel over NATS only.
    #[must_use]
    pub fn carries(self, kind: Kind) -> bool {
        self == Self::Nats || !matches!(kind, Kind::Signals | Kind::System)
    }
}

/// A record's place on Kafka: the key is the symbol or the type, and whatever has the same key
/// goes to the same partition, so that a bar's revisions stay in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Address {
    pub topic: &'static str,
    pub key: &'static str,
    /// To be taken modulo the topic's partitions. Symbols are dealt out in turn: hashing 18 of
    /// them would leave partitions empty.
    pub lane: u64,
}

/// Every topic that [`on_kafka`] can name for these kinds.
pub(super) fn topics(kinds: impl IntoIterator<Item = Kind>) -> Vec<&'static str> {
    let mut topics = Vec::new();
    for kind in kinds {
        match kind {
            Kind::Ticks => topics.extend(["tick_archive", "confirmation_archive"]),
            Kind::Candles => topics.push("aggregate_archive"),
            Kind::External => topics.extend(EXTERNAL_SUBJECTS),
            Kind::Bars => topics.push("bench.bars"),
            Kind::Indicators => topics.push("bench.indicators"),
            Kind::Quotes => topics.push("bench.quotes"),
            Kind::Books => topics.push("bench.books"),
            Kind::Signals | Kind::System => {}
        }
    }
    topics
}

/// In the order of `external::TYPES`; the same name is the topic and the subject.
const EXTERNAL_SUBJECTS: [&str; 6] = [
    "market.external.economic_calendar",
    "market.external.fred_economic",
    "market.external.crypto_sentiment",
    "market.external.fear_greed_index",
    "market.external.commodity_prices",
    "market.external.market_sessions",
];

/// None for the kinds that Kafka does not carry.
pub(super) fn on_kafka(kind: Kind, seq: u64) -> Option<Address> {
    let (lane, key) = (seq % SYMBOL_COUNT, signals::symbol_of(seq));
    // To be measured with any number of partitions: dealt out one by one.
    let bench = |topic| Some(Address { topic, key, lane: seq });
    match kind {
        Kind::Ticks if seq / SYMBOL_COUNT % 4 == 3 => {
            Some(Address { topic: "confirmation_archive", key, lane })
        }
        Kind::Ticks => Some(Address { topic: "tick_archive", key, lane }),
        Kind::Candles => Some(Address { topic: "aggregate_archive", key, lane }),
        Kind::External => {
            let topic = super::numbers::pick(&EXTERNAL_SUBJECTS, seq);
            Some(Address { topic, key: external::type_of(seq), lane: seq / 6 })
        }
        Kind::Bars => bench("bench.bars"),
        Kind::Indicators => bench("bench.indicators"),
        Kind::Quotes => bench("bench.quotes"),
        Kind::Books => bench("bench.books"),
        Kind::Signals | Kind::System => None,
    }
}

pub(super) fn on_nats(recipe: &Recipe, kind: Kind, seq: u64) -> String {
    let symbol = signals::symbol_of(seq);
    match kind {
        Kind::Ticks => format!("market.{symbol}.tick"),
        Kind::Candles => {
            let candle = Candle::new(recipe.seed, recipe.revisions, seq);
            let root = if candle.form == Form::Live { "market" } else { "bars" };
            format!("{root}.{}.{}", candle.symbol, candle.timeframe)
        }
        Kind::External => super::numbers::pick(&EXTERNAL_SUBJECTS, seq).to_owned(),
        Kind::Signals => format!("signals.{symbol}"),
        Kind::System => super::numbers::pick(&signals::SYSTEM_SUBJECTS, seq).to_owned(),
        Kind::Bars | Kind::Indicators | Kind::Quotes | Kind::Books => {
            format!("bench.{}.{symbol}", kind.name())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subjects_follow_the_types() {
        for (name, subject) in external::TYPES.iter().zip(EXTERNAL_SUBJECTS) {
            assert_eq!(subject, format!("market.external.{name}"));
        }
    }

    #[test]
    fn every_partition_of_six_gets_as_much() {
        let mut counts = [0; 6];
        for seq in 0..1_800 {
            let address = on_kafka(Kind::Candles, seq).unwrap();
            counts[usize::try_from(address.lane % 6).unwrap()] += 1;
        }
        assert_eq!(counts, [300; 6]);
    }

    #[test]
    fn revisions_of_a_bar_share_a_subject() {
        let recipe = Recipe { revisions: 5, ..Recipe::new(1) };
        let first = on_nats(&recipe, Kind::Candles, 7);
        assert!((0..5).all(|r| on_nats(&recipe, Kind::Candles, 7 + r * 18) == first));
        assert_eq!(on_nats(&recipe, Kind::Ticks, 0), "market.EUR/USD.tick");
    }
}
