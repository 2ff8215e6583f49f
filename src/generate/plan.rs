//! What a run sends: which streams, and which sequence numbers belong to each. Pure.

use std::collections::{BTreeMap, BTreeSet};

use super::market::SYMBOL_COUNT;
use super::{Kind, Pace, Recipe, Target};

/// The records of one kind on one transport: `first` and the `count - 1` numbers after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stream {
    /// Its place in [`Plan::streams`].
    pub index: usize,
    pub target: Target,
    pub kind: Kind,
    pub first: u64,
    pub count: u64,
}

impl Stream {
    /// The number after the last one.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.first + self.count
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    pub recipe: Recipe,
    pub streams: Vec<Stream>,
    pub paces: BTreeMap<Target, Pace>,
}

impl Plan {
    /// Deals out sequence numbers: the streams of one kind follow each other from `seq_start`, so
    /// that a number is never used twice within a kind, not even over two transports.
    #[must_use]
    pub fn new(recipe: Recipe, seq_start: u64, wanted: &[(Target, Kind, u64)]) -> Self {
        let mut next: BTreeMap<Kind, u64> = BTreeMap::new();
        let mut streams = Vec::new();
        for &(target, kind, count) in wanted.iter().filter(|(_, _, count)| *count > 0) {
            let first = *next.entry(kind).or_insert(seq_start);
            // A bar's revisions must not be split over two streams: who has the last one would be
            // a race between the transports.
            let first =
                first.next_multiple_of(if kind == Kind::Candles { block(&recipe) } else { 1 });
            next.insert(kind, first + count);
            streams.push(Stream { index: streams.len(), target, kind, first, count });
        }
        Self { recipe, streams, paces: BTreeMap::new() }
    }

    /// Leaves out the streams of other targets. The numbers of the rest stay what they are.
    pub fn keep_targets(&mut self, wanted: impl Fn(Target) -> bool) {
        self.streams.retain(|stream| wanted(stream.target));
        for (index, stream) in self.streams.iter_mut().enumerate() {
            stream.index = index;
        }
    }

    #[must_use]
    pub fn of_target(&self, target: Target) -> Vec<Stream> {
        self.streams.iter().copied().filter(|stream| stream.target == target).collect()
    }

    #[must_use]
    pub fn total(&self) -> u64 {
        self.streams.iter().map(|stream| stream.count).sum()
    }

    /// How many rows a table that keeps the last revision holds of a stream in the end, when
    /// everything good has landed.
    #[must_use]
    pub fn expected_rows(&self, stream: &Stream) -> u64 {
        match stream.kind {
            Kind::System => 0,
            Kind::Candles => bars(stream, &self.recipe) - lost_bars(stream, &self.recipe),
            _ => stream.count - self.bad_in(stream),
        }
    }

    fn bad_in(&self, stream: &Stream) -> u64 {
        match self.recipe.bad_every {
            Some(every) if stream.kind != Kind::System => {
                stream.end() / every - stream.first / every
            }
            _ => 0,
        }
    }
}

/// All revisions of one bar of every symbol lie within a block of so many numbers.
fn block(recipe: &Recipe) -> u64 {
    SYMBOL_COUNT * recipe.revisions
}

/// The bars that a stream has at least one revision of. Within a block, consecutive numbers walk
/// through the symbols; a stream starts at a block.
fn bars(stream: &Stream, recipe: &Recipe) -> u64 {
    let block = block(recipe);
    stream.count / block * SYMBOL_COUNT + (stream.count % block).min(SYMBOL_COUNT)
}

/// The bars none of whose revisions in this stream is good.
fn lost_bars(stream: &Stream, recipe: &Recipe) -> u64 {
    let Some(every) = recipe.bad_every else { return 0 };
    let block = block(recipe);
    let bad_turns = stream.first / every..stream.end() / every;
    let lost: BTreeSet<_> = bad_turns
        .map(|turn| turn * every + every - 1)
        .map(|seq| (seq / block, seq % SYMBOL_COUNT))
        .filter(|(nth, symbol)| {
            let first = nth * block + symbol;
            (0..recipe.revisions)
                .map(|r| first + r * SYMBOL_COUNT)
                .filter(|&seq| seq < stream.end())
                .all(|seq| recipe.is_bad(Kind::Candles, seq))
        })
        .collect();
    u64::try_from(lost.len()).expect("a count fits")
}

/// What `scripts/demo` sends: 201,320 records of every kind over both transports.
#[must_use]
pub fn demo_profile(seed: u64, seq_start: u64) -> Plan {
    let recipe = Recipe { seed, revisions: 3, bad_every: Some(10_000) };
    let mut plan = Plan::new(
        recipe,
        seq_start,
        &[
            (Target::Kafka, Kind::Candles, 90_000),
            (Target::Kafka, Kind::Ticks, 60_000),
            (Target::Kafka, Kind::External, 3_000),
            (Target::Nats, Kind::Candles, 15_012),
            (Target::Nats, Kind::Ticks, 30_000),
            (Target::Nats, Kind::External, 1_500),
            (Target::Nats, Kind::Signals, 1_500),
            (Target::Nats, Kind::System, 308),
        ],
    );
    // About ten seconds: NATS at the rate that its subscribers are promised to keep up with.
    plan.paces.insert(Target::Kafka, Pace { rate: Some(20_000), burst: None });
    plan.paces.insert(Target::Nats, Pace { rate: Some(5_000), burst: None });
    plan
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_number_is_dealt_out_twice_within_a_kind() {
        let plan = demo_profile(42, 5);
        let mut seen = BTreeSet::new();
        for stream in &plan.streams {
            for seq in stream.first..stream.end() {
                assert!(seen.insert((stream.kind, seq)), "{stream:?} {seq}");
            }
        }
        assert!(plan.total() >= 200_000);
    }

    #[test]
    fn candle_streams_start_with_a_bar() {
        let recipe = Recipe { revisions: 4, ..Recipe::new(1) };
        let wanted = [(Target::Kafka, Kind::Candles, 100), (Target::Nats, Kind::Candles, 100)];
        let plan = Plan::new(recipe, 10, &wanted);
        assert!(plan.streams.iter().all(|s| s.first.is_multiple_of(72)));
        assert_eq!(plan.streams[1].first, 216);
    }

    #[test]
    fn the_expected_rows_are_those_that_counting_gives() {
        let recipe = Recipe { revisions: 3, bad_every: Some(7), ..Recipe::new(1) };
        let wanted = [(Target::Kafka, Kind::Candles, 130), (Target::Kafka, Kind::Ticks, 130)];
        let plan = Plan::new(recipe, 0, &wanted);
        let bars: BTreeSet<_> = (0..130)
            .filter(|&n| !recipe.is_bad(Kind::Candles, n))
            .map(|n| (n / 54, n % 18))
            .collect();
        assert_eq!(plan.expected_rows(&plan.streams[0]), bars.len() as u64);
        let ticks = (0..130).filter(|&n| !recipe.is_bad(Kind::Ticks, n)).count();
        assert_eq!(plan.expected_rows(&plan.streams[1]), ticks as u64);
    }
}
