//! The protocol against a broker and a table as they are: a commit is one atomic note, an insert
//! is recognised by its token, and the process may end between any two steps.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

fn partition() -> Arc<Partition> {
    Arc::new(Partition { topic: "ticks".into(), number: 3, epoch: 1 })
}

fn range(first: i64, last: i64) -> Range {
    let (rows, checksum) = (usize::try_from(last - first + 1).unwrap(), 0xfeed);
    Range {
        table: "db.ticks".into(),
        first,
        last,
        rows,
        checksum,
        block: 7,
        listed_at: 1_000,
        spent: 0,
    }
}

fn intents() -> Intents {
    Intents::new(partition(), "c0ffee".into(), 9)
}

#[test]
fn a_note_says_again_what_was_said() {
    let ranges = vec![range(5, 9), Range { spent: 2, ..range(12, 12) }];
    let note = Note { incarnation: "c0ffee".into(), config: 9, ranges };
    let text = note.to_string();
    assert_eq!(text, "db1 c0ffee 9 db.ticks:5-9:5:feed:7:1000 db.ticks:12-12:1:feed:7:1000:2");
    assert!(text.is_ascii());
    assert_eq!(Note::parse(&text).unwrap(), Some(note));
}

#[test]
fn what_somebody_else_committed_is_no_note_and_what_a_later_version_wrote_is_an_error() {
    for foreign in ["", "consumer-1", "dbx", "{\"a\":1}", "db", "database"] {
        assert_eq!(Note::parse(foreign).unwrap(), None, "{foreign}");
    }
    for ours in ["db2 x 1", "db1", "db1 x", "db1 x y", "db1 x 1 t:5-4:1:1:1:1", "db1 x 1 t:1-2"] {
        assert!(Note::parse(ours).is_err(), "{ours}");
    }
    assert!(Note::parse("db1 x 1 t:1-5:1:1:1:1 t:5-9:1:1:1:1").is_err(), "they overlap");
}

#[test]
fn a_range_may_be_sent_once_its_note_is_committed_and_stays_listed_until_it_is_passed() {
    let mut intents = intents();
    intents.intend(range(5, 9));
    assert_eq!(intents.announced(5, 9), None);
    let (offset, note) = intents.commit(5);
    assert_eq!(offset, 5);
    intents.intend(range(10, 19));
    assert!(intents.committed(&note));
    assert_eq!(intents.announced(5, 9), Some(&range(5, 9)));
    assert_eq!(intents.announced(10, 19), None, "listed after the note was made");
    let (offset, note) = intents.commit(9);
    assert_eq!(offset, 5, "the next owner must be able to read all of it");
    assert!(note.contains(":5-9:"), "one of its records is not durable");
    assert!(intents.committed(&note));
    let (_, note) = intents.commit(10);
    assert!(!note.contains(":5-9:") && note.contains(":10-19:"), "{note}");
}

#[test]
fn the_same_note_is_asked_for_once_and_may_be_committed_twice() {
    let mut intents = intents();
    intents.intend(range(0, 9));
    let (_, first) = intents.commit(0);
    let (_, again) = intents.commit(0);
    assert!(Arc::ptr_eq(&first, &again));
    assert!(intents.committed(&first));
    assert!(!intents.committed(&first), "no news");
    assert!(!intents.committed("db1 other 9"), "not ours");
}

#[test]
fn a_half_takes_the_place_of_its_part_and_the_token_tells_them_apart() {
    let mut intents = intents();
    intents.intend(range(0, 9));
    let (whole, left) = (intents.token(0, 9, 0), intents.token(0, 4, 0));
    assert_eq!(whole, "ticks/c0ffee:3:0-9");
    assert_ne!(whole, left);
    assert_eq!(intents.token(0, 9, 1), "ticks/c0ffee:3:0-9~1");
    intents.intend(range(0, 4));
    let (_, note) = intents.commit(0);
    assert!(note.contains(":0-4:") && !note.contains(":0-9:"), "{note}");
}

#[test]
fn nothing_beyond_a_range_that_is_missing_is_committed() {
    let note = Note { incarnation: "c0ffee".into(), config: 9, ranges: vec![range(5, 9)] };
    let mut intents = Intents::restore(partition(), note, 9);
    intents.miss(5);
    let (offset, note) = intents.commit(30);
    assert_eq!(offset, 5);
    assert!(note.contains(":5-9:"));
    intents.resolve(5);
    let (offset, note) = intents.commit(7);
    assert!(offset == 5 && note.contains(":5-9:"), "what is left of it is not durable");
    let (offset, note) = intents.commit(30);
    assert_eq!((offset, &*note), (30, "db1 c0ffee 9"));
}

#[test]
fn a_note_never_grows_beyond_what_a_broker_takes() {
    let mut intents = intents();
    let mut listed = 0;
    while intents.has_room() {
        let mut next = range(listed * 10, listed * 10 + 9);
        next.table = "d".repeat(120) + "." + &"t".repeat(120);
        intents.intend(next);
        listed += 1;
    }
    assert!(listed >= 10, "{listed}");
    assert!(intents.commit(0).1.len() <= NOTE_BYTES);
}

/// The broker and the table, which outlive the process.
#[derive(Debug, Default)]
struct World {
    committed: i64,
    note: Option<String>,
    tokens: BTreeMap<String, (i64, i64)>,
    rows: BTreeMap<i64, u32>,
}

impl World {
    fn insert(&mut self, token: String, first: i64, last: i64) {
        if let Some(landed) = self.tokens.get(&token) {
            assert_eq!(*landed, (first, last), "the same token for other rows loses them");
            return;
        }
        self.tokens.insert(token, (first, last));
        (first..=last).for_each(|offset| *self.rows.entry(offset).or_default() += 1);
    }
}

/// The process: reads, cuts, announces, sends, settles, in any order that the rules allow.
#[derive(Debug)]
struct Process {
    intents: Intents,
    restoring: VecDeque<Range>,
    next: i64,
    cut: Vec<Range>,
    asked: Vec<(i64, Arc<str>)>,
    settled: BTreeSet<i64>,
    prefix: i64,
}

impl Process {
    fn start(world: &World, epoch: u64) -> Self {
        let partition = Arc::new(Partition { topic: "ticks".into(), number: 3, epoch });
        let note = world.note.as_deref().map(|note| Note::parse(note).unwrap().unwrap());
        let restoring = note.as_ref().map(|note| note.ranges.clone()).unwrap_or_default();
        let intents = match note {
            Some(note) => Intents::restore(partition, note, 9),
            None => Intents::new(partition, "c0ffee".into(), 9),
        };
        Self {
            intents,
            restoring: restoring.into(),
            next: world.committed,
            cut: Vec::new(),
            asked: Vec::new(),
            settled: BTreeSet::new(),
            prefix: world.committed,
        }
    }

    /// Reads so many records and cuts them: what was noted exactly as it was noted.
    fn read(&mut self, count: i64) {
        let first = self.next;
        match self.restoring.front() {
            Some(noted) if noted.first <= first => {
                let noted = self.restoring.pop_front().unwrap();
                self.next = noted.last + 1;
                self.cut.push(range(noted.first, noted.last));
            }
            noted => {
                let before = noted.map_or(i64::MAX, |noted| noted.first - 1);
                let last = (first + count - 1).min(before);
                self.next = last + 1;
                self.cut.push(range(first, last));
            }
        }
    }

    fn announce(&mut self, which: usize) {
        if let Some(range) = self.pick(which)
            && self.intents.announced(range.first, range.last).is_none()
            && self.intents.has_room()
        {
            self.intents.intend(range);
        }
    }

    fn pick(&self, which: usize) -> Option<Range> {
        (!self.cut.is_empty()).then(|| self.cut[which % self.cut.len()].clone())
    }

    fn ask(&mut self) {
        let asked = self.intents.commit(self.prefix);
        self.asked.push(asked);
    }

    /// The broker takes the oldest commit that is on its way; its answer may be lost.
    fn commit(&mut self, world: &mut World, answered: bool) {
        if self.asked.is_empty() {
            return;
        }
        let (offset, note) = self.asked.remove(0);
        assert!(offset >= world.committed, "commits never go back");
        (world.committed, world.note) = (offset, Some(note.to_string()));
        if answered {
            self.intents.committed(&note);
        }
    }

    /// Sends a batch that was announced; the answer may be lost.
    fn send(&mut self, world: &mut World, which: usize, answered: bool) {
        let Some(range) = self.pick(which) else { return };
        if self.intents.announced(range.first, range.last).is_none() {
            return;
        }
        world.insert(self.intents.token(range.first, range.last, 0), range.first, range.last);
        if answered {
            self.cut.retain(|cut| *cut != range);
            self.settled.extend(range.first..=range.last);
            while self.settled.remove(&self.prefix) {
                self.prefix += 1;
            }
        }
    }

    /// Refused as a whole: in two halves instead.
    fn halve(&mut self, world: &World, which: usize) {
        let Some(range) = self.pick(which).filter(|range| range.first < range.last) else { return };
        let landed = world.tokens.contains_key(&self.intents.token(range.first, range.last, 0));
        if !landed && self.intents.announced(range.first, range.last).is_some() {
            let middle = i64::midpoint(range.first, range.last);
            self.cut.retain(|cut| *cut != range);
            self.cut.push(self::range(range.first, middle));
            self.cut.push(self::range(middle + 1, range.last));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(10_000))]

    #[test]
    fn whatever_is_lost_between_two_steps_every_record_lands_once(
        steps in prop::collection::vec((0_u8..12, 0_usize..8, 1_i64..6), 1..80)
    ) {
        let mut world = World::default();
        let mut process = Process::start(&world, 1);
        for (epoch, (step, which, count)) in (2..).zip(steps) {
            match step {
                0..=2 => process.read(count),
                3 | 4 => process.announce(which),
                5 | 6 => process.ask(),
                7 => process.commit(&mut world, true),
                8 => process.commit(&mut world, which % 2 == 0),
                9 => process.send(&mut world, which, true),
                10 if which == 0 => process.halve(&world, which),
                10 => process.send(&mut world, which, false),
                _ => process = Process::start(&world, epoch), // kill -9
            }
        }
        // Everything that was ever read lands in the end, exactly once.
        let end = process.next;
        process = Process::start(&world, 1_000);
        while process.next < end {
            process.read(3);
        }
        while !process.cut.is_empty() {
            process.announce(0);
            process.ask();
            while !process.asked.is_empty() {
                process.commit(&mut world, true);
            }
            process.send(&mut world, 0, true);
        }
        for offset in 0..end {
            prop_assert_eq!(world.rows.get(&offset), Some(&1), "record {}", offset);
        }
    }
}
