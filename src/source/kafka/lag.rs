//! The few numbers that are read out of librdkafka's statistics: where the partitions end, and
//! whether a broker is there. Pure.

use std::collections::HashMap;

use serde::Deserialize;

/// What one statistics event says.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Stats {
    /// At least one broker connection is up.
    pub(super) connected: bool,
    pub(super) ends: Vec<End>,
}

/// Where a partition begins and ends, and what the group had committed in it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct End {
    pub(super) topic: String,
    pub(super) number: i32,
    pub(super) low: Option<i64>,
    /// The offset after the last record that a consumer can read.
    pub(super) end: Option<i64>,
    pub(super) committed: Option<i64>,
}

#[derive(Deserialize)]
struct Raw {
    #[serde(default)]
    brokers: HashMap<String, RawBroker>,
    #[serde(default)]
    topics: HashMap<String, RawTopic>,
}

#[derive(Deserialize)]
struct RawBroker {
    state: String,
}

#[derive(Deserialize)]
struct RawTopic {
    #[serde(default)]
    partitions: HashMap<i32, RawPartition>,
}

/// Negative values stand for "not known yet".
#[derive(Deserialize)]
struct RawPartition {
    desired: bool,
    lo_offset: i64,
    hi_offset: i64,
    /// The last stable offset: with open transactions nobody can read beyond it.
    ls_offset: i64,
    committed_offset: i64,
}

pub(super) fn parse(json: &[u8]) -> serde_json::Result<Stats> {
    let raw: Raw = serde_json::from_slice(json)?;
    let known = |offset: i64| (offset >= 0).then_some(offset);
    let mut ends = Vec::new();
    for (topic, raw_topic) in raw.topics {
        for (number, partition) in raw_topic.partitions {
            // -1 is librdkafka's own bookkeeping; what is not desired is not ours.
            if number >= 0 && partition.desired {
                ends.push(End {
                    topic: topic.clone(),
                    number,
                    low: known(partition.lo_offset),
                    end: known(partition.ls_offset).or_else(|| known(partition.hi_offset)),
                    committed: known(partition.committed_offset),
                });
            }
        }
    }
    Ok(Stats { connected: raw.brokers.values().any(|broker| broker.state == "UP"), ends })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ends_of_our_partitions_are_read_from_statistics() {
        let json =
            br#"{"name":"x","brokers":{"b:1/1":{"state":"UP","rtt":{"avg":1}}},"topics":{"t":
            {"topic":"t","partitions":{"-1":{"desired":false,"lo_offset":-1001,"hi_offset":-1001,
            "ls_offset":-1001,"committed_offset":-1001},"3":{"desired":true,"lo_offset":2,
            "hi_offset":9,"ls_offset":8,"committed_offset":-1001}}}}}"#;
        let stats = parse(json).unwrap();
        assert!(stats.connected);
        let end =
            End { topic: "t".to_owned(), number: 3, low: Some(2), end: Some(8), committed: None };
        assert_eq!(stats.ends, [end]);
    }
}
