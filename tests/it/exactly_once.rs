//! Exactly once in memory: a source that remembers what was committed beside its offsets, a sink
//! that recognises tokens as ClickHouse does, and a process that ends between any two steps.

mod histories;
mod restart;
mod together;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use data_bridge::config::Config;
use data_bridge::record::{Partition, Position};
use data_bridge::sink::Insert;

use crate::rig::sink::{DEAD_LETTERS, TestSink};
use crate::rig::source::{Kind, Manners, Story, id};
use crate::rig::{Rig, Sources, config};

const TOPIC: &str = "once";

/// One route that promises exactly once, beside those of the rig.
const ONCE: &str = r#"
[[routes]]
name = "once"
kafka_topics = ["once"]
writer = "aggregate"
table = "once"
format = "json"
delivery = "exactly_once"
"#;

/// The configuration of the rig with this route in place of its own.
fn once(more: &str) -> Arc<Config> {
    config(Sources::Kafka, &format!("{more}\n{ONCE}"))
}

/// What a group's coordinator remembers: it outlives every process.
#[derive(Debug, Default)]
struct Group {
    committed: BTreeMap<i32, (i64, Option<String>)>,
    seen: usize,
}

impl Group {
    /// Takes in what was committed since the last look.
    fn look(&mut self, story: &Mutex<Story>) {
        let story = story.lock().unwrap();
        for position in story.commits[self.seen..].iter().flatten() {
            self.commit(position);
        }
        self.seen = story.commits.len();
    }

    fn commit(&mut self, position: &Position) {
        let before =
            self.committed.get(&position.partition.number).map_or(0, |(offset, _)| *offset);
        assert!(position.offset >= before, "{position:?} goes back from {before}");
        let note = position.note.as_deref().map(str::to_owned);
        self.committed.insert(position.partition.number, (position.offset, note));
    }

    fn note(&self, partition: i32) -> Option<String> {
        self.committed.get(&partition)?.1.clone()
    }
}

/// One life of the process after another, with what outlives them.
struct World {
    rig: Rig,
    group: Arc<Mutex<Group>>,
    epoch: u64,
    /// What was ever read of each partition.
    ends: BTreeMap<i32, i64>,
    assigned: BTreeMap<i32, Arc<Partition>>,
    /// What lies in the partitions: a record is the same whenever it is read.
    kind_at: fn(i64) -> Kind,
}

impl World {
    async fn begin(config: &Arc<Config>, partitions: i32) -> Self {
        Self::begin_with(config, partitions, |_| Kind::Good).await
    }

    async fn begin_with(config: &Arc<Config>, partitions: i32, kind_at: fn(i64) -> Kind) -> Self {
        let sink = Arc::new(TestSink::new());
        let rig = Rig::start_before(config, MANNERS, sink);
        let mut world = Self {
            rig,
            group: Arc::default(),
            epoch: 0,
            ends: (0..partitions).map(|partition| (partition, 0)).collect(),
            assigned: BTreeMap::new(),
            kind_at,
        };
        world.inspect();
        world.assign_all().await;
        world
    }

    /// No insert of the route is sent, and no dead letter of it, before its range was noted.
    fn inspect(&mut self) {
        let (group, story) = (Arc::clone(&self.group), Arc::clone(&self.rig.kafka().story));
        group.lock().unwrap().seen = 0;
        self.rig.sink.inspect(move |insert: &Insert| {
            let mut group = group.lock().unwrap();
            group.look(&story);
            let Some((place, range)) = insert.token.rsplit_once(':') else {
                assert_ne!(insert.table, "once", "a token without a range");
                return;
            };
            let number: i32 = place.rsplit(':').next().unwrap().parse().unwrap();
            let note = group.note(number).unwrap_or_default();
            let listed = note.contains(&format!("once:{}:", range.split('~').next().unwrap()));
            assert!(listed, "{} of {range} was not noted: {note:?}", insert.table);
        });
    }

    async fn assign_all(&mut self) {
        let partitions: Vec<i32> = self.ends.keys().copied().collect();
        for partition in partitions {
            self.assign(partition).await;
        }
    }

    /// This process gets the partition, from where the group left it.
    async fn assign(&mut self, number: i32) {
        self.epoch += 1;
        let left = self.group.lock().unwrap().committed.get(&number).cloned();
        let (offset, note) = left.unwrap_or_default();
        let epoch = self.epoch;
        let partition = self.rig.kafka().assign_with(TOPIC, number, epoch, note).await;
        self.rig.kafka().seek(&partition, offset);
        self.assigned.insert(number, partition);
    }

    /// As many as there are credits for, up to `count`.
    async fn poll(&mut self, number: i32, count: usize) -> usize {
        let partition = Arc::clone(&self.assigned[&number]);
        if self.rig.kafka().is_held(&partition) {
            return 0;
        }
        let from = self.rig.kafka().next_offset(&partition);
        let kinds: Vec<Kind> = (from..).take(count).map(self.kind_at).collect();
        let taken = self.rig.kafka().poll_kinds(&partition, &kinds).await;
        let end = self.rig.kafka().next_offset(&partition);
        let known = self.ends.get_mut(&number).unwrap();
        *known = end.max(*known);
        taken
    }

    /// The process is gone, and another one starts with this configuration.
    async fn restart(&mut self, config: &Arc<Config>) {
        self.rig.kill().await;
        self.group.lock().unwrap().look(&self.rig.kafka().story);
        let sink = Arc::clone(&self.rig.sink);
        self.rig = Rig::start_before(config, MANNERS, sink);
        self.inspect();
        self.assign_all().await;
    }

    /// Reads all that was ever read, and waits until all of it is durable.
    async fn catch_up(&mut self) {
        let ends = self.ends.clone();
        for _ in 0..10_000 {
            let mut behind = false;
            for (number, end) in &ends {
                let next = self.rig.kafka().next_offset(&self.assigned[number]);
                if next < *end {
                    behind = true;
                    let count = usize::try_from(end - next).unwrap().min(1_000);
                    self.poll(*number, count).await;
                }
            }
            if !behind {
                self.rig.drained().await;
                return;
            }
            self.rig.after(Duration::from_millis(50)).await;
        }
        panic!("what was read never comes to its end: {:#?}", self.rig.now());
    }

    /// Every record that was read is there, once: as a row, or as a dead letter.
    fn everything_is_there_once(&self) {
        let (rows, letters) = (self.rig.sink.ids("once"), self.rig.sink.ids(DEAD_LETTERS));
        for (number, end) in &self.ends {
            for offset in 0..*end {
                let name = id(&self.assigned[number], offset);
                let (row, letter) = (rows.get(&name), letters.get(&name));
                let wanted = match (self.kind_at)(offset) {
                    Kind::Good => (Some(&1), None),
                    Kind::Tombstone | Kind::Control => (None, None),
                    Kind::Poison | Kind::Broken => (None, Some(&1)),
                };
                assert_eq!((row, letter), wanted, "{name}, as a row and as a dead letter");
            }
        }
    }

    fn number_of_rows(&self) -> usize {
        self.rig.sink.ids("once").len()
    }
}

const MANNERS: Manners = Manners { drains: true, closes: true };
