//! Judges a route's stream and its consumer: is anything lost before it is read? Pure.

use super::report::{Grade, Kept, Report, Sample, TopicLine};
use super::topics::{ahead_of_us, in_words, kept_long_enough};
use crate::config::Config;
use crate::source::nats::probe::streams::StreamSample;

pub(super) fn judge(
    config: &Config,
    index: usize,
    stream: &Result<StreamSample, String>,
    sample: Option<&Sample>,
    report: &mut Report,
) {
    let route = &config.routes[index].name;
    let stream = match stream {
        Ok(stream) => stream,
        Err(why) => {
            let text = format!("route {route}: its stream was not sampled: {why}");
            let finding = report.warn("stream_unread", text, Vec::new());
            report.blame(index, Grade::Warned, finding);
            return;
        }
    };
    keeping(config, index, stream, report);
    let alone = config.routes[index].is_exactly_once();
    if alone {
        replicas(index, stream, report);
    } else {
        consumer(config, index, stream, report);
    }
    let newest = stream.records.records().filter_map(|record| record.timestamp()).max();
    let ahead = newest.map_or(0, |time| time - stream.records_read_at);
    ahead_of_us(&format!("stream {}", stream.stream), ahead, "the NATS server", report);
    let siblings = 1 + usize::from(!report.routes[index].kafka.is_empty());
    report.topics.push(TopicLine {
        name: format!("{} (stream)", stream.stream),
        partitions: 1,
        pace: None,
        lag: stream.consumer.filter(|_| !alone).map(|consumer| consumer.pending),
        kept: stream.max_age.map_or(Kept::Forever, Kept::For),
        sampled: in_words(stream.records.len(), sample, siblings),
    });
}

/// What the stream forgets before anybody has read it.
fn keeping(config: &Config, index: usize, stream: &StreamSample, report: &mut Report) {
    let name = &stream.stream;
    if let Some(kept) = stream.max_age {
        kept_long_enough(config, index, &format!("stream {name}"), kept, "max_age", report);
    }
    if stream.overwrites && !stream.deletes_acknowledged {
        let text = format!(
            "stream {name} drops its oldest records, read or not, when it is full (discard old): a \
             pause that fills it loses some"
        );
        let finding = report.warn("stream_overwrites", text, Vec::new());
        report.blame(index, Grade::Warned, finding);
    }
    if stream.in_memory {
        let text = format!("stream {name} is kept in memory: it is gone when its servers stop");
        let finding = report.warn("stream_in_memory", text, Vec::new());
        report.blame(index, Grade::Warned, finding);
    }
}

/// What says how far a stream was read must not be lost sooner than the stream.
fn replicas(index: usize, stream: &StreamSample, report: &mut Report) {
    let Some(Ok(kept)) = &stream.kept else { return };
    let Some(replicas) = kept.replicas.filter(|replicas| *replicas < stream.replicas) else {
        return;
    };
    let text = format!(
        "stream {} has {} replicas, and the bucket {}, which says how far it was read, {replicas}: \
         nats stream edit KV_{} --replicas {}",
        stream.stream, stream.replicas, kept.bucket, kept.bucket, stream.replicas
    );
    let finding = report.warn("bucket_replicas", text, Vec::new());
    report.blame(index, Grade::Warned, finding);
}

fn consumer(config: &Config, index: usize, stream: &StreamSample, report: &mut Report) {
    let Some(facts) = stream.consumer else { return };
    let Some(takes) = &config.routes[index].jetstream else { return };
    let head = format!("consumer {} of stream {}", takes.consumer, stream.stream);
    if !facts.acknowledges {
        let text = format!(
            "{head} wants no acknowledgements, so that records count as done before they are: \
             delete it (the bridge makes its own), or name another one (jetstream_consumer)"
        );
        let finding = report.error("consumer_acknowledges_nothing", text);
        report.blame(index, Grade::Wrong, finding);
    }
    if let Some(times) = facts.max_deliver {
        let text = format!(
            "{head} gives a record up after {times} deliveries (max_deliver), also where only \
             ClickHouse was away: leave it without limit, the bridge counts itself"
        );
        let finding = report.warn("consumer_gives_up", text, Vec::new());
        report.blame(index, Grade::Warned, finding);
    }
}
