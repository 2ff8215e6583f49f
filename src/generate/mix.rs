//! The order in which the streams of one target are sent: each advances in proportion to its
//! length, so that a run looks the same at its beginning as at its end. Pure.

use super::Stream;

#[derive(Debug)]
pub(super) struct Mix {
    streams: Vec<Stream>,
    taken: Vec<u64>,
}

impl Mix {
    pub(super) fn new(streams: Vec<Stream>) -> Self {
        let taken = vec![0; streams.len()];
        Self { streams, taken }
    }

    pub(super) fn total(&self) -> u64 {
        self.streams.iter().map(|stream| stream.count).sum()
    }
}

impl Iterator for Mix {
    /// A stream and the next sequence number in it.
    type Item = (Stream, u64);

    fn next(&mut self) -> Option<Self::Item> {
        let behind = (0..self.streams.len())
            .filter(|&i| self.taken[i] < self.streams[i].count)
            .min_by(|&a, &b| {
                // a's share is less than b's: taken[a] / count[a] < taken[b] / count[b]
                let share = |x: usize, y: usize| {
                    u128::from(self.taken[x]) * u128::from(self.streams[y].count)
                };
                share(a, b).cmp(&share(b, a))
            })?;
        let seq = self.streams[behind].first + self.taken[behind];
        self.taken[behind] += 1;
        Some((self.streams[behind], seq))
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Kind, Target};
    use super::*;

    fn stream(index: usize, kind: Kind, first: u64, count: u64) -> Stream {
        Stream { index, target: Target::Kafka, kind, first, count }
    }

    #[test]
    fn a_short_stream_is_spread_over_a_long_one() {
        let streams = vec![stream(0, Kind::Candles, 0, 900), stream(1, Kind::Ticks, 50, 100)];
        let order: Vec<_> = Mix::new(streams).collect();
        assert_eq!(order.len(), 1_000);
        let ticks_in_first_half = order[..500].iter().filter(|(s, _)| s.index == 1).count();
        assert_eq!(ticks_in_first_half, 50);
    }

    #[test]
    fn each_stream_keeps_its_order() {
        let streams = vec![stream(0, Kind::Candles, 7, 30), stream(1, Kind::Ticks, 0, 11)];
        let candles: Vec<_> =
            Mix::new(streams).filter(|(s, _)| s.index == 0).map(|(_, seq)| seq).collect();
        assert_eq!(candles, (7..37).collect::<Vec<_>>());
    }
}
