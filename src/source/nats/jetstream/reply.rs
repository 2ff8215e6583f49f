//! What JetStream says of a message in its reply subject. Pure.

use crate::record::UnixMs;

const PREFIX: &str = "$JS.ACK.";
const NANOS_PER_MS: i64 = 1_000_000;

/// One delivery of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Delivery {
    /// How often this message was delivered by now.
    pub(super) times: u64,
    /// Its number in the stream.
    pub(super) sequence: u64,
    /// The number of this delivery, counted by the consumer.
    pub(super) number: u64,
    /// When the stream took it.
    pub(super) published: UnixMs,
    /// Messages that the consumer has not delivered yet.
    pub(super) pending: u64,
}

impl Delivery {
    /// `$JS.ACK.STREAM.CONSUMER.times.sequence.number.nanoseconds.pending`; newer servers put a
    /// domain and an account before the stream, and may append a token.
    pub(super) fn parse(reply: &str) -> Option<Self> {
        let (rest, names) = parts(reply)?;
        let mut numbers = rest.split('.').skip(names).map(str::parse::<u64>);
        let mut next = || numbers.next()?.ok();
        Some(Self {
            times: next()?,
            sequence: next()?,
            number: next()?,
            published: i64::try_from(next()?).ok()? / NANOS_PER_MS,
            pending: next()?,
        })
    }
}

/// Behind the prefix, and how many of its tokens are names.
fn parts(reply: &str) -> Option<(&str, usize)> {
    let rest = reply.strip_prefix(PREFIX)?;
    Some((rest, if rest.split('.').count() >= 9 { 4 } else { 2 }))
}

/// The consumer that delivered it.
pub(super) fn consumer(reply: &str) -> Option<&str> {
    let (rest, names) = parts(reply)?;
    rest.split('.').nth(names - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_of_the_reply_are_read() {
        let expected = Delivery {
            times: 2,
            sequence: 10,
            number: 5,
            published: 1_700_000_000_123,
            pending: 42,
        };
        for reply in [
            "$JS.ACK.S.c.2.10.5.1700000000123456789.42",
            "$JS.ACK._.hash.S.c.2.10.5.1700000000123456789.42",
            "$JS.ACK.hub.hash.S.c.2.10.5.1700000000123456789.42.token",
        ] {
            assert_eq!(Delivery::parse(reply), Some(expected), "{reply}");
            assert_eq!(consumer(reply), Some("c"), "{reply}");
        }
    }

    #[test]
    fn what_is_no_delivery_is_none() {
        for reply in ["", "_INBOX.x.1", "$JS.ACK.S.c.2.10.5", "$JS.ACK.S.c.x.10.5.1.42"] {
            assert_eq!(Delivery::parse(reply), None, "{reply}");
        }
    }
}
