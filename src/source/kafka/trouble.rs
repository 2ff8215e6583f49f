//! What goes wrong on the way to Kafka: which errors say that the source does not get on, and how
//! often the others are logged. None of them ends the source.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};

use crate::record::Partition;
use crate::source::Observed;

use super::{Poller, remedy, settings};

/// Repeated errors are logged at most this often, with their count.
const LOG_EVERY: Duration = Duration::from_secs(10);

/// A partition that could not be read is gone back in and asked for again, after 5 s at most: what was
/// not said for so many looks, one a second, is over.
const QUIET_LOOKS: u32 = 20;

/// What stands in the way at the moment.
#[derive(Debug, Default)]
pub(super) struct Troubles {
    /// Why no broker can be talked to; over when one can.
    brokers: Option<String>,
    /// What was last said of a connection: that all are down says nothing by itself.
    connection: Option<String>,
    refused: BTreeMap<Of, Refusal>,
    was_up: bool,
    /// What was last told to the pipeline, once there was anything to tell.
    told: Option<Option<String>>,
    logged: BTreeMap<String, (Instant, u64)>,
}

/// What is refused: a topic, or a partition of it; or something of the group as a whole.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Of {
    Topic(String),
    Partition(String, i32),
    Group,
}

/// What does not mend itself. Over when the topic is assigned, or the partition read, or assigned to
/// somebody else.
#[derive(Debug)]
struct Refusal {
    text: String,
    /// The looks since it was last said, where it is said again and again while it lasts.
    quiet: Option<u32>,
}

impl Refusal {
    fn lasting(text: String) -> Self {
        Self { text, quiet: None }
    }

    fn repeated(text: String) -> Self {
        Self { text, quiet: Some(0) }
    }
}

impl Troubles {
    pub(super) fn broker_is_up(&mut self, observed: &Observed) {
        if std::mem::replace(&mut self.was_up, true) {
            observed.reconnects.fetch_add(1, Ordering::AcqRel);
        }
        (self.brokers, self.connection) = (None, None);
    }

    pub(super) fn is_assigned(&mut self, topic: &str, number: i32) {
        self.refused.retain(|of, _| match of {
            Of::Topic(refused) => refused != topic,
            Of::Partition(refused, other) => (refused.as_str(), *other) != (topic, number),
            Of::Group => false,
        });
    }

    /// These go to other members of the group, and what is refused of them with them.
    pub(super) fn are_gone(&mut self, partitions: &[(String, i32)]) {
        let is_gone = |topic: &String, number: i32| {
            partitions.iter().any(|(gone, of)| gone == topic && *of == number)
        };
        self.drop_partitions(is_gone);
    }

    /// Records of these came.
    pub(super) fn are_read(&mut self, partitions: &[Arc<Partition>]) {
        let is_read = |topic: &String, number: i32| {
            partitions.iter().any(|read| read.topic == *topic && read.number == number)
        };
        self.drop_partitions(is_read);
    }

    fn drop_partitions(&mut self, are: impl Fn(&String, i32) -> bool) {
        self.refused
            .retain(|of, _| !matches!(of, Of::Partition(topic, number) if are(topic, *number)));
    }

    /// A look, once a second; `is_asked`: whether this partition is asked for. Of one that is, silence
    /// is an end, though no record comes.
    pub(super) fn look(&mut self, is_asked: impl Fn(&str, i32) -> bool) {
        self.refused.retain(|of, refusal| {
            let Of::Partition(topic, number) = of else { return true };
            let Some(quiet) = refusal.quiet.as_mut().filter(|_| is_asked(topic, *number)) else {
                return true;
            };
            *quiet += 1;
            *quiet <= QUIET_LOOKS
        });
    }

    /// These topics are wanted, and no others.
    pub(super) fn are_wanted(&mut self, topics: &[String]) {
        self.refused.retain(|of, _| match of {
            Of::Topic(topic) => topics.contains(topic),
            // It is taken away by the group, then.
            Of::Partition(..) | Of::Group => true,
        });
    }

    /// The client is made anew: what stays refused is said again.
    pub(super) fn begin_anew(&mut self) {
        self.refused.clear();
    }

    fn refuse(&mut self, of: Of, refusal: Refusal) {
        let text = &refusal.text;
        if self.refused.get(&of).is_none_or(|known| known.text != *text) {
            tracing::error!(event = "needs_person", "needs a person: Kafka: {text}");
        }
        self.refused.insert(of, refusal);
    }

    /// What does not mend itself, each once.
    fn refusals(&self) -> BTreeSet<&String> {
        self.refused.values().map(|refusal| &refusal.text).collect()
    }

    /// What a person has to do before some of the records can come.
    pub(super) fn needs_person(&self) -> Vec<String> {
        self.refusals().into_iter().map(|text| format!("Kafka: {text}")).collect()
    }

    /// What to tell the pipeline, if it is not what it was told last.
    pub(super) fn news(&mut self) -> Option<Option<String>> {
        let all = self.brokers.iter().chain(self.refusals());
        let now = all.cloned().reduce(|all, one| format!("{all}; {one}"));
        if self.told.as_ref() == Some(&now) || (now.is_none() && !self.was_up) {
            return None;
        }
        self.told = Some(now.clone());
        Some(now)
    }

    pub(super) fn commit_failed(&mut self, error: &str) {
        self.log("commit", &format!("a commit failed and is tried again: {error}"));
    }

    /// At once the first time, then at most every ten seconds with a count.
    fn log(&mut self, kind: &str, text: &str) {
        let now = Instant::now();
        match self.logged.get_mut(kind) {
            Some((at, hidden)) if now < *at + LOG_EVERY => *hidden += 1,
            known => {
                // How often it came since the last line; nothing at the first.
                let repeated = known.map(|(_, hidden)| *hidden);
                tracing::warn!(event = "kafka_error", repeated, "Kafka: {text}");
                self.logged.insert(kind.to_owned(), (now, 0));
            }
        }
    }
}

impl Poller {
    /// `reason` are the words that came with it; `place` is the partition that it was said of.
    pub(super) fn apply_error(
        &mut self,
        error: &KafkaError,
        reason: Option<String>,
        place: Option<(&str, i32)>,
    ) {
        let text = remedy::with_remedy(&reason.unwrap_or_else(|| error.to_string()));
        let code = error.rdkafka_error_code();
        if let KafkaError::MessageConsumptionFatal(code) = error {
            self.fatal = Some(format!("{code}: {text}"));
        }
        let again = settings::look_for_topics_every(&self.client);
        if let Some((of, refusal)) = code.and_then(|code| refusal(code, &text, place, again)) {
            return self.troubles.refuse(of, refusal);
        }
        self.troubles.log(&format!("{code:?}"), &text);
        match code {
            // Says less than what it follows, such as a wrong password.
            Some(Code::AllBrokersDown) if self.troubles.brokers.is_some() => {}
            Some(Code::AllBrokersDown) => {
                self.port.observed.connected.store(false, Ordering::Release);
                let why = self.troubles.connection.as_ref();
                self.troubles.brokers =
                    Some(why.map_or_else(|| text.clone(), |why| format!("{text}: {why}")));
            }
            // Said of one broker: others may do.
            Some(
                Code::BrokerTransportFailure
                | Code::Authentication
                | Code::SaslAuthenticationFailed
                | Code::SSL
                | Code::Resolve,
            ) => self.troubles.connection = Some(text),
            Some(Code::Fatal) => {
                self.port.observed.connected.store(false, Ordering::Release);
                self.troubles.brokers = Some(text);
            }
            _ => {} // one broker of several, a timeout: librdkafka sees to it
        }
    }
}

/// What librdkafka says of a partition that it then leaves alone until it is assigned anew.
const NO_COMMITTED: &str = "Failed to fetch committed offset";
const NOT_ASKED_AGAIN: &str =
    " (the client does not ask again by itself: allow it, then restart the bridge)";
/// The same of a partition whose next record is not there any more.
const NOT_RESET: &str = " (auto_offset_reset = \"error\": the client leaves the partition until it is \
                         assigned anew; set the group's offset for it and restart the bridge)";

/// What the error refuses, and of what; None where librdkafka gets on by itself. `again`: how often
/// missing topics are looked for.
fn refusal(
    code: Code,
    text: &str,
    place: Option<(&str, i32)>,
    again: Option<Duration>,
) -> Option<(Of, Refusal)> {
    let partition = |(topic, number): (&str, i32)| Of::Partition(topic.to_owned(), number);
    let remedy = what_to_do(code);
    if text.starts_with(NO_COMMITTED) {
        let of = uncommitted_in(text).map_or(Of::Group, partition);
        return Some((of, Refusal::lasting(format!("{text}{NOT_ASKED_AGAIN}"))));
    }
    if let Some(place) = place {
        // Nothing behind it is read before it is: no other partition makes up for that.
        let refusal = match code {
            Code::AutoOffsetReset => Refusal::lasting(format!("{}: {text}{NOT_RESET}", at(place))),
            _ => Refusal::repeated(format!("{}: {text}{remedy}", at(place))),
        };
        return Some((partition(place), refusal));
    }
    if let Some(topic) = topic_in(text) {
        // Whoever mends it shall know that this needs no restart, and takes a while.
        let again = again.map(humantime::format_duration);
        let again = again.map_or_else(String::new, |e| format!(" (looked for again every {e})"));
        let refusal = Refusal::lasting(format!("{text}{remedy}{again}"));
        return Some((Of::Topic(topic.to_owned()), refusal));
    }
    (!remedy.is_empty()).then(|| (Of::Group, Refusal::lasting(format!("{text}{remedy}"))))
}

fn at((topic, number): (&str, i32)) -> String {
    format!("{topic}/{number} is not read")
}

/// What the brokers have to be told before they describe the topic, or serve the group.
fn what_to_do(code: Code) -> &'static str {
    match code {
        Code::UnknownTopic | Code::UnknownTopicOrPartition | Code::UnknownPartition => {
            "; create the topic, or correct kafka_topics"
        }
        Code::TopicAuthorizationFailed => "; allow the bridge's user to read the topic",
        Code::GroupAuthorizationFailed => "; allow the bridge's user to read as kafka.group_id",
        _ => "",
    }
}

/// librdkafka says `Subscribed topic not available: NAME: why`.
fn topic_in(text: &str) -> Option<&str> {
    let rest = text.strip_prefix("Subscribed topic not available: ")?;
    rest.split_once(": ").map(|(topic, _)| topic)
}

/// librdkafka says `Failed to fetch committed offset for group "GROUP" topic NAME [N]: why`.
fn uncommitted_in(text: &str) -> Option<(&str, i32)> {
    let (of, _) = text.split_once("]: ")?;
    let (_, of) = of.rsplit_once(" topic ")?;
    let (topic, number) = of.split_once(" [")?;
    Some((topic, number.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(of: &[Of]) -> Troubles {
        let mut troubles = Troubles { was_up: true, ..Troubles::default() };
        for of in of {
            troubles.refuse(of.clone(), Refusal::repeated(format!("{of:?} is refused")));
        }
        troubles
    }

    fn topic(name: &str) -> Of {
        Of::Topic(name.to_owned())
    }

    fn partition(topic: &str, number: i32) -> Of {
        Of::Partition(topic.to_owned(), number)
    }

    fn read(topic: &str, number: i32) -> Arc<Partition> {
        Arc::new(Partition { topic: topic.to_owned(), number, epoch: 1 })
    }

    #[test]
    fn a_refusal_of_one_partition_is_over_when_that_one_is_read() {
        let mut troubles = refused(&[partition("t", 0)]);
        troubles.are_read(&[read("t", 1), read("u", 0)]);
        assert_eq!(troubles.news(), Some(Some("Partition(\"t\", 0) is refused".to_owned())));
        assert_eq!(troubles.needs_person(), ["Kafka: Partition(\"t\", 0) is refused"]);
        troubles.are_read(&[read("t", 0)]);
        assert_eq!(troubles.news(), Some(None));
        assert!(troubles.needs_person().is_empty());
    }

    #[test]
    fn a_refusal_goes_with_its_partition_and_no_other_takes_it_back() {
        let mut troubles = refused(&[topic("t"), partition("t", 0), partition("t", 1), Of::Group]);
        troubles.is_assigned("t", 1);
        assert!(troubles.refused.keys().eq([&partition("t", 0)]));
        troubles.are_gone(&[("t".to_owned(), 1), ("u".to_owned(), 0)]);
        assert!(!troubles.refused.is_empty());
        troubles.are_gone(&[("t".to_owned(), 0)]);
        assert_eq!(troubles.news(), Some(None));
    }

    #[test]
    fn what_is_asked_for_and_not_said_again_is_over_though_no_record_comes() {
        let mut troubles = refused(&[topic("t"), partition("t", 0)]);
        troubles.refuse(partition("t", 1), Refusal::lasting("left alone".to_owned()));
        (0..QUIET_LOOKS * 2).for_each(|_| troubles.look(|_, _| false));
        assert_eq!(troubles.refused.len(), 3, "nobody asked");
        (0..QUIET_LOOKS).for_each(|_| troubles.look(|_, _| true));
        troubles.refuse(partition("t", 0), Refusal::repeated("again".to_owned()));
        (0..QUIET_LOOKS).for_each(|_| troubles.look(|_, _| true));
        assert_eq!(troubles.refused.len(), 3, "it was said again");
        troubles.look(|_, _| true);
        assert!(troubles.refused.keys().eq([&topic("t"), &partition("t", 1)]));
    }

    #[test]
    fn what_a_reload_gave_up_is_not_missed_any_more() {
        let mut troubles = refused(&[topic("typo"), topic("t"), Of::Group]);
        troubles.are_wanted(&["t".to_owned()]);
        assert!(troubles.refused.keys().eq([&topic("t"), &Of::Group]));
        troubles.is_assigned("t", 0);
        assert_eq!(troubles.news(), Some(None));
    }

    #[test]
    fn what_is_refused_in_the_same_words_is_told_once() {
        let mut troubles = refused(&[partition("t", 0), partition("t", 1)]);
        troubles.refused.values_mut().for_each(|known| "not allowed".clone_into(&mut known.text));
        assert_eq!(troubles.news(), Some(Some("not allowed".to_owned())));
    }

    #[test]
    fn an_error_is_of_the_partition_that_it_is_said_of() {
        let of = |code, text, place| refusal(code, text, place, None).map(|(of, _)| of);
        let denied = Code::TopicAuthorizationFailed;
        let committed = "Failed to fetch committed offset for group \"my topic g\" topic a.b [12]: \
                         Broker: Unknown topic or partition";
        assert_eq!(of(denied, committed, None), Some(partition("a.b", 12)));
        let several = "Failed to fetch committed offsets for 2 partition(s) in group \"g\": why";
        assert_eq!(of(denied, several, None), Some(Of::Group));
        let missing = "Subscribed topic not available: t: Broker: Unknown topic or partition";
        assert_eq!(of(Code::UnknownTopicOrPartition, missing, None), Some(topic("t")));
        assert_eq!(of(Code::BadMessage, "Bad CRC", Some(("t", 3))), Some(partition("t", 3)));
        assert_eq!(of(Code::GroupAuthorizationFailed, "no", None), Some(Of::Group));
        assert_eq!(of(Code::OperationTimedOut, "late", None), None);
    }
}
