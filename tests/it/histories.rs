//! Random histories of records, faults, revocations and time, with a stop at the end, against a
//! reference that remembers what a broker would: what was delivered, and what was committed.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use data_bridge::config::Config;
use data_bridge::pipeline::{Ending, Stop};
use data_bridge::record::Partition;
use data_bridge::source::SourceEvent;
use data_bridge::status::BreakerState;
use proptest::prelude::*;
use tokio::time::timeout;

use crate::rig::sink::{DEAD_LETTERS, Mode};
use crate::rig::source::{Kind, id};
use crate::rig::{Rig, Sources, config, config_edited, in_paused_time};

/// A tenth of a percent of the real limits, so that a short history meets all of them.
const SMALL: &str = r#"
[backpressure]
max_buffer_size = 50
pause_threshold = 40
resume_threshold = 20
[writers.aggregate]
batch_rows = 10
[writers.external]
batch_rows = 7
linger = "3s"
[retry]
max_delay = "2s"
[clickhouse]
max_in_flight = 3
[breaker]
max_failures = 3
reset_timeout = "5s"
[shutdown]
grace = "30s"
"#;
const CAP: usize = 50;

/// The one that it begins with, and others that may take its place: other limits; and other routes
/// over the same topics and subjects.
static CONFIGS: LazyLock<[Arc<Config>; 3]> = LazyLock::new(|| {
    let smaller = [
        ("max_buffer_size = 50", "max_buffer_size = 40"),
        ("pause_threshold = 40", "pause_threshold = 30"),
        ("resume_threshold = 20", "resume_threshold = 10"),
        ("batch_rows = 10", "batch_rows = 4"),
        ("max_failures = 3", "max_failures = 2"),
    ];
    let smaller = smaller.iter().fold(SMALL.to_owned(), |text, (from, to)| text.replace(from, to));
    let rerouted = [
        ("name = \"signals\"", "name = \"alerts\""),
        ("class = \"market\"", "class = \"bars\""),
        ("writer = \"aggregate\"", "writer = \"external\""),
        ("table = \"external\"", "table = \"candles\""),
    ];
    let both = Sources::Both;
    [config(both, SMALL), config(both, &smaller), config_edited(both, &rerouted, SMALL)]
});

const TABLES: [&str; 3] = ["candles", "external", DEAD_LETTERS];
const PARTITIONS: [(&str, i32); 3] = [("candles", 0), ("candles", 1), ("external", 0)];
const SUBJECTS: [&str; 5] = ["market.a", "external.b", "signals.c", "system.d", "nobody.e"];

#[derive(Debug, Clone)]
enum Step {
    /// As many records of a partition as there are credits for.
    Poll {
        partition: usize,
        count: usize,
    },
    Push {
        subject: usize,
        count: usize,
        kind: usize,
    },
    /// From here on, for a table or for all.
    Mode {
        table: Option<usize>,
        mode: usize,
    },
    /// For the next insert of a table.
    Once {
        table: usize,
        mode: usize,
    },
    Time {
        millis: u64,
    },
    Revoke {
        partition: usize,
        within_millis: u64,
    },
    Lose {
        partition: usize,
    },
    /// Another configuration, while everything goes on.
    Reload {
        config: usize,
    },
}

#[derive(Debug, Clone, Copy)]
enum End {
    /// The sink works, everything drains, then a stop.
    Drained,
    /// A stop, and the sink works.
    Stopped,
    /// A stop with the sink as it is.
    Abandoned,
    /// Two stops, one after the other.
    Aborted,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..3_usize, 1..40_usize)
            .prop_map(|(partition, count)| Step::Poll { partition, count }),
        5 => (0..5_usize, 1..30_usize, 0..8_usize)
            .prop_map(|(subject, count, kind)| Step::Push { subject, count, kind }),
        3 => (prop::option::of(0..3_usize), 0..6_usize)
            .prop_map(|(table, mode)| Step::Mode { table, mode }),
        2 => (0..3_usize, prop::sample::select(vec![1, 2, 4, 5]))
            .prop_map(|(table, mode)| Step::Once { table, mode }),
        3 => (0..4_000_u64).prop_map(|millis| Step::Time { millis }),
        1 => (0..3_usize, 0..3_000_u64)
            .prop_map(|(partition, within_millis)| Step::Revoke { partition, within_millis }),
        1 => (0..3_usize).prop_map(|partition| Step::Lose { partition }),
        2 => (0..3_usize).prop_map(|config| Step::Reload { config }),
    ]
}

fn end() -> impl Strategy<Value = End> {
    prop_oneof![Just(End::Drained), Just(End::Stopped), Just(End::Abandoned), Just(End::Aborted)]
}

/// What the broker knows of a partition.
#[derive(Debug)]
struct Known {
    now: Arc<Partition>,
    /// What was committed: where the next owner begins.
    committed: i64,
}

struct History {
    rig: Rig,
    known: Vec<Known>,
    pause_count: u64,
    /// How many entries of the story of commits were looked at.
    commits_seen: usize,
}

impl History {
    async fn begin() -> Self {
        let mut rig = Rig::start(&CONFIGS[0]);
        let mut known = Vec::new();
        for (topic, number) in PARTITIONS {
            known.push(Known { now: rig.kafka().assign(topic, number, 1).await, committed: 0 });
        }
        Self { rig, known, pause_count: 0, commits_seen: 0 }
    }

    async fn take(&mut self, step: &Step) {
        match *step {
            Step::Poll { partition, count } => {
                let partition = Arc::clone(&self.known[partition].now);
                let from = self.rig.kafka().next_offset(&partition);
                let kinds: Vec<Kind> = (from..).take(count).map(Kind::mixed).collect();
                self.rig.kafka().poll_kinds(&partition, &kinds).await;
            }
            Step::Push { subject, count, kind } => {
                let kinds = [Kind::Poison, Kind::Broken, Kind::Tombstone];
                let kind = kinds.get(kind).copied().unwrap_or(Kind::Good);
                self.rig.nats().push_kinds(SUBJECTS[subject], &vec![kind; count]).await;
            }
            Step::Mode { table: Some(table), mode } => {
                self.rig.sink.table(TABLES[table], Mode::of(mode));
            }
            Step::Mode { table: None, mode } => self.rig.sink.all(Mode::of(mode)),
            Step::Once { table, mode } => self.rig.sink.once(TABLES[table], Mode::of(mode)),
            Step::Time { millis } => self.rig.after(Duration::from_millis(millis)).await,
            Step::Revoke { partition, within_millis } => {
                self.revoke(partition, Duration::from_millis(within_millis)).await;
            }
            Step::Lose { partition } => {
                let lost = Arc::clone(&self.known[partition].now);
                self.rig.kafka().send(SourceEvent::Lost(vec![lost])).await;
                self.assign_again(partition).await;
            }
            Step::Reload { config } => self.rig.change_to(&CONFIGS[config]).await.unwrap(),
        }
    }

    async fn revoke(&mut self, partition: usize, within: Duration) {
        let now = Arc::clone(&self.known[partition].now);
        let answer = self.rig.kafka().revoke(&[&now], within).await;
        let answer = timeout(within + Duration::from_millis(1), answer).await;
        let answer = answer.expect("within the deadline").expect("there is an answer");
        self.look_at_commits();
        for position in answer {
            self.commit(&position.partition, position.offset);
        }
        self.assign_again(partition).await;
    }

    /// The same instance gets it again, from what was committed on.
    async fn assign_again(&mut self, partition: usize) {
        self.look_at_commits();
        let Known { now, committed } = &self.known[partition];
        let (topic, number, epoch) = (now.topic.clone(), now.number, now.epoch + 1);
        let committed = *committed;
        let now = self.rig.kafka().assign(&topic, number, epoch).await;
        self.rig.kafka().seek(&now, committed);
        self.known[partition].now = now;
    }

    /// A commit: everything before it must be durable, and it must not go back.
    fn commit(&mut self, partition: &Arc<Partition>, offset: i64) {
        let durable = self.rig.sink.everything();
        let Some(known) = self.known.iter_mut().find(|known| known.now == *partition) else {
            return;
        };
        assert!(offset >= known.committed, "{partition:?} goes back to {offset}: {known:?}");
        for before in known.committed..offset {
            let kept = Kind::mixed(before) == Kind::Tombstone
                || durable.contains_key(&id(partition, before));
            assert!(kept, "{before} of {partition:?} is not durable, but {offset} was committed");
        }
        known.committed = offset;
    }

    fn look_at_commits(&mut self) {
        let story = Arc::clone(&self.rig.kafka().story);
        let commits = story.lock().unwrap().commits[self.commits_seen..].to_vec();
        self.commits_seen += commits.len();
        for position in commits.into_iter().flatten() {
            self.commit(&position.partition, position.offset);
        }
    }

    /// What holds at every quiet moment.
    async fn check(&mut self) {
        self.rig.after(Duration::from_millis(120)).await;
        self.look_at_commits();
        let now = self.rig.accounts_close();
        let backpressure = &now.backpressure;
        assert!(backpressure.peak_buffer <= CAP, "{} held", backpressure.peak_buffer);
        // The snapshot may be a tenth of a second old.
        let mut looks = 0;
        while self.rig.credits.used() != self.rig.now().backpressure.current_buffer {
            looks += 1;
            assert!(looks < 50, "the credits never become what is held");
            self.rig.after(Duration::from_millis(7)).await;
        }
        let began = backpressure.pause_count - self.pause_count;
        assert!(began <= 1 || backpressure.last_resume.is_some(), "two pauses without a resume");
        self.pause_count = backpressure.pause_count;
        let level = backpressure.current_buffer;
        let (pause, resume) = (backpressure.pause_threshold, backpressure.resume_threshold);
        assert!(level <= pause || backpressure.active, "{level} held and not paused");
        let bytes_low = backpressure.current_bytes < backpressure.max_buffer_bytes / 10 * 4;
        let open = now.breaker.state != BreakerState::Closed;
        let may_pause = level >= resume || !bytes_low || open;
        assert!(may_pause || !backpressure.active, "{level} held and paused");
        assert!(level > 0 || backpressure.current_bytes == 0, "bytes of nothing");
    }

    fn mend(&self) {
        self.rig.sink.all(Mode::Accept);
        for table in TABLES {
            self.rig.sink.table(table, Mode::Accept);
        }
    }

    async fn end(&mut self, end: End) {
        match end {
            End::Drained => {
                self.mend();
                let now = self.rig.drained().await;
                assert!(!now.backpressure.active, "a pause ends once the sink works");
                assert_eq!(self.rig.stop().await, CLEAN);
            }
            End::Stopped => {
                self.rig.tell(Stop::Drain);
                self.mend();
                assert_eq!(self.rig.ending().await, CLEAN);
            }
            End::Abandoned => {
                self.rig.stop().await;
            }
            End::Aborted => {
                self.rig.tell(Stop::Drain);
                self.rig.after_maybe_the_end(Duration::from_millis(50)).await;
                self.rig.tell(Stop::Abort);
                self.rig.ending().await;
            }
        }
        self.look_at_commits();
        let now = self.rig.accounts_close();
        assert_eq!((now.backpressure.current_buffer, now.backpressure.active), (0, false));
        assert!(now.sources.values().all(|source| source.held == 0));
        self.nothing_of_nats_is_there_twice();
        if matches!(end, End::Drained | End::Stopped) {
            self.everything_is_durable_and_committed(&now.sources["nats"]);
        }
    }

    fn nothing_of_nats_is_there_twice(&self) {
        let durable = self.rig.sink.everything();
        let twice = durable.iter().find(|(id, times)| id.starts_with("n/") && **times > 1);
        assert_eq!(twice, None);
    }

    fn everything_is_durable_and_committed(&mut self, nats: &data_bridge::status::SourceStatus) {
        let durable: BTreeMap<String, u32> = self.rig.sink.everything();
        for index in 0..self.known.len() {
            let now = Arc::clone(&self.known[index].now);
            let next = self.rig.kafka().next_offset(&now);
            assert_eq!(self.known[index].committed, next, "of {now:?}");
            for offset in (0..next).filter(|offset| Kind::mixed(*offset) != Kind::Tombstone) {
                assert!(durable.contains_key(&id(&now, offset)), "{offset} of {now:?}");
            }
        }
        let of_nats = durable.keys().filter(|id| id.starts_with("n/")).count() as u64;
        assert_eq!(of_nats, nats.inserted + nats.dead_lettered);
    }
}

/// As many as run in ten seconds; `HISTORIES=20000` for a night.
fn cases() -> u32 {
    std::env::var("HISTORIES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(600)
}

const CLEAN: Ending = Ending { abandoned: 0, closed: true, aborted: false };

proptest! {
    #![proptest_config(ProptestConfig {
        max_shrink_iters: 300,
        failure_persistence: None,
        ..ProptestConfig::with_cases(cases())
    })]

    #[test]
    fn whatever_happens_nothing_is_lost_and_the_accounting_closes(
        steps in prop::collection::vec(step(), 1..30),
        end in end(),
    ) {
        in_paused_time(async {
            let mut history = History::begin().await;
            for step in &steps {
                history.take(step).await;
                history.check().await;
            }
            history.end(end).await;
        });
    }
}
