//! The protocol against a bucket in memory: single steps, and random histories in which answers are
//! lost, writes land late, instances sleep and wake, and clocks run as they like.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

const LASTS: Duration = Duration::from_secs(10);

fn place(next: u64) -> Place {
    Place { stream: 7, next, note: None }
}

fn first() -> Option<Place> {
    Some(place(1))
}

/// A key as JetStream keeps it.
#[derive(Debug, Default)]
struct Key {
    last: u64,
    value: Option<(u64, Value)>,
}

impl Key {
    fn entry(&self) -> Entry {
        let (revision, value) = self.value.clone().unzip();
        Entry { revision: revision.unwrap_or_default(), value }
    }

    /// The revision, if it was what was expected.
    fn write(&mut self, value: Value, revision: u64) -> Option<u64> {
        if self.entry().revision != revision {
            return None;
        }
        self.last += 1;
        self.value = Some((self.last, value));
        Some(self.last)
    }
}

fn lease(me: &str, now: Instant) -> Lease {
    Lease::new(me.to_owned(), LASTS, now)
}

/// Asks what there is to ask, and answers at once; what became known.
fn turn(lease: &mut Lease, key: &mut Key, now: Instant) -> Option<News> {
    match lease.question(now)? {
        Ask::Read => lease.read(key.entry(), first(), now),
        Ask::Write { value, revision } => {
            let revision = key.write(value, revision);
            lease.wrote(revision, now)
        }
    }
}

fn turns(lease: &mut Lease, key: &mut Key, now: Instant) -> Vec<News> {
    (0..6).filter_map(|_| turn(lease, key, now)).collect()
}

#[test]
fn the_first_one_begins_at_the_beginning_and_another_stands_by() {
    let (mut key, now) = (Key::default(), Instant::now());
    let (mut a, mut b) = (lease("a", now), lease("b", now));
    assert_eq!(turns(&mut a, &mut key, now), [News::Gained(place(1))]);
    assert_eq!(turns(&mut b, &mut key, now), []);
    assert_eq!(b.holder(), Some("a"));
    assert_eq!(a.holder(), None);
}

#[test]
fn who_renews_keeps_it_and_who_does_not_loses_it_after_the_lease() {
    let (mut key, start) = (Key::default(), Instant::now());
    let (mut a, mut b) = (lease("a", start), lease("b", start));
    turns(&mut a, &mut key, start);
    for second in 0..60 {
        let now = start + Duration::from_secs(second);
        turns(&mut a, &mut key, now);
        assert_eq!(turns(&mut b, &mut key, now), [], "second {second}");
    }
    let stopped = start + Duration::from_secs(60);
    let gained = (0..)
        .map(|step| stopped + step * Duration::from_millis(100))
        .find(|now| turns(&mut b, &mut key, *now).contains(&News::Gained(place(1))));
    let took = gained.unwrap() - stopped;
    // It had seen the last renewal up to a look, and up to a third of the lease, before.
    assert!(took > LASTS / 2 && took <= LASTS + LOOK_AT_MOST, "{took:?}");
    assert_eq!(turns(&mut a, &mut key, stopped + took), [News::Lost]);
    assert_eq!(a.landed(), None);
}

#[test]
fn a_bucket_that_was_away_for_longer_than_the_lease_changes_no_hands() {
    let (mut key, start) = (Key::default(), Instant::now());
    let (mut a, mut b) = (lease("a", start), lease("b", start));
    turns(&mut a, &mut key, start);
    turns(&mut b, &mut key, start);
    for step in 0..200 {
        let now = start + step * LASTS / 50;
        if b.question(now).is_some() {
            b.unread(now);
        }
    }
    let back = start + 4 * LASTS;
    assert_eq!(turns(&mut b, &mut key, back), [], "its owner may be as far away as it was");
    assert_eq!(turns(&mut b, &mut key, back + 2 * LASTS), [News::Gained(place(1))]);
}

#[test]
fn what_is_given_up_is_taken_at_once_where_it_was_left() {
    let (mut key, now) = (Key::default(), Instant::now());
    let (mut a, mut b) = (lease("a", now), lease("b", now));
    turns(&mut a, &mut key, now);
    turns(&mut b, &mut key, now);
    a.want(place(42));
    a.resign();
    assert_eq!(turns(&mut a, &mut key, now), [News::Landed(place(42))]);
    assert_eq!(a.question(now + LASTS), None, "it never comes back");
    let soon = now + LOOK_AT_MOST;
    assert_eq!(turns(&mut b, &mut key, soon), [News::Gained(place(42))]);
}

#[test]
fn a_write_without_an_answer_is_found_in_the_key() {
    let (mut key, now) = (Key::default(), Instant::now());
    let mut a = lease("a", now);
    turns(&mut a, &mut key, now);
    a.want(place(5));
    let Some(Ask::Write { value, revision }) = a.question(now) else { panic!("it writes") };
    assert!(key.write(value, revision).is_some());
    assert_eq!(a.wrote(None, now), None);
    assert_eq!(turns(&mut a, &mut key, now), [News::Landed(place(5))]);
}

#[test]
fn a_write_that_lands_after_it_was_looked_for_is_known_all_the_same() {
    let (mut key, now) = (Key::default(), Instant::now());
    let mut a = lease("a", now);
    turns(&mut a, &mut key, now);
    a.want(place(5));
    let Some(Ask::Write { value, revision }) = a.question(now) else { panic!("it writes") };
    a.wrote(None, now);
    assert_eq!(turn(&mut a, &mut key, now), None, "it is not there");
    a.want(place(8));
    let Some(Ask::Write { value: later, revision: same }) = a.question(now) else {
        panic!("it tries again")
    };
    assert_eq!(revision, same);
    assert!(key.write(value, revision).is_some());
    let refused = key.write(later, same);
    assert_eq!(a.wrote(refused, now), None);
    assert_eq!(turns(&mut a, &mut key, now), [News::Landed(place(5)), News::Landed(place(8))]);
}

#[test]
fn a_key_that_is_removed_is_written_again_by_its_owner_before_anybody_else_may() {
    let (mut key, now) = (Key::default(), Instant::now());
    let (mut a, mut b) = (lease("a", now), lease("b", now));
    turns(&mut a, &mut key, now);
    a.want(place(9));
    turns(&mut a, &mut key, now);
    turns(&mut b, &mut key, now);
    key = Key::default();
    let later = now + LASTS / 2;
    assert_eq!(turns(&mut b, &mut key, later), []);
    assert_eq!(turns(&mut a, &mut key, later), [News::Landed(place(9))]);
    // Without its owner it goes on from where it was seen last.
    turns(&mut b, &mut key, later + LOOK_AT_MOST);
    key = Key::default();
    assert_eq!(turns(&mut b, &mut key, later + LASTS), []);
    let gained = turns(&mut b, &mut key, later + 2 * LASTS);
    assert_eq!(gained, [News::Gained(place(9))]);
}

#[test]
fn a_bucket_that_takes_nothing_is_not_asked_in_a_tight_loop() {
    let (mut key, start) = (Key::default(), Instant::now());
    let mut a = lease("a", start);
    turns(&mut a, &mut key, start);
    a.want(place(2));
    let mut writes = 0;
    for step in 0..10_000 {
        let now = start + step * Duration::from_millis(1);
        match a.question(now) {
            Some(Ask::Read) => drop(a.read(key.entry(), None, now)),
            Some(Ask::Write { .. }) => {
                writes += 1;
                a.wrote(None, now);
            }
            None => {}
        }
    }
    assert!((5..20).contains(&writes), "{writes} in ten seconds");
    assert!(a.failures() >= 5);
}

// --- random histories -------------------------------------------------------------------------

const INSTANCES: usize = 3;
/// Records of the stream: sequences 1 to this.
const RECORDS: u64 = 40;

type Batch = (u64, u64);

/// What an instance does with what is its own, as the pipeline does: announces a range, sends it
/// when that has landed, and goes on behind it when it is durable.
#[derive(Debug, Default)]
struct Work {
    /// The next record to be read.
    next: u64,
    /// Read, or to be read again: in order.
    listed: Vec<Batch>,
    announced: BTreeSet<Batch>,
    durable: BTreeSet<Batch>,
}

impl Work {
    fn gained(place: &Place) -> Self {
        let listed = batches(place.note.as_deref());
        let next = listed.last().map_or(place.next, |(_, last)| last + 1).max(place.next);
        let announced = listed.iter().copied().collect();
        Self { next, listed, announced, durable: BTreeSet::new() }
    }

    fn place(&mut self) -> Place {
        while self.listed.first().is_some_and(|batch| self.durable.contains(batch)) {
            self.listed.remove(0);
        }
        let next = self.listed.first().map_or(self.next, |(first, _)| *first);
        let note: Vec<String> =
            self.listed.iter().map(|(first, last)| format!("{first}-{last}")).collect();
        Place { stream: 7, next, note: Some(note.join(" ").into()) }
    }
}

fn batches(note: Option<&str>) -> Vec<Batch> {
    let words = note.unwrap_or_default().split_whitespace();
    words
        .filter_map(|word| word.split_once('-'))
        .map(|(a, b)| (a.parse().unwrap(), b.parse().unwrap()))
        .collect()
}

/// A question on its way: not yet at the server, or its answer not yet here.
#[derive(Debug)]
enum OnItsWay {
    Asked(Ask),
    Read(Entry),
    Wrote(Option<u64>),
}

#[derive(Debug)]
struct Instance {
    lease: Lease,
    work: Option<Work>,
    way: Option<OnItsWay>,
}

struct World {
    now: Instant,
    key: Key,
    all: Vec<Instance>,
    /// Writes whose answer was given up, and which land whenever they like.
    late_writes: Vec<(Value, u64)>,
    /// Inserts that were sent, by whoever, and reach the table whenever they like.
    sent: Vec<Batch>,
    /// The table: how often each record is there, and the tokens that it remembers.
    rows: BTreeMap<u64, usize>,
    tokens: BTreeSet<Batch>,
}

impl World {
    fn new() -> Self {
        let now = Instant::now();
        let instance =
            |n: usize| Instance { lease: lease(&format!("i{n}"), now), work: None, way: None };
        Self {
            now,
            key: Key::default(),
            all: (0..INSTANCES).map(instance).collect(),
            late_writes: Vec::new(),
            sent: Vec::new(),
            rows: BTreeMap::new(),
            tokens: BTreeSet::new(),
        }
    }

    fn insert(&mut self, batch: Batch) {
        if self.tokens.insert(batch) {
            for sequence in batch.0..=batch.1 {
                *self.rows.entry(sequence).or_default() += 1;
            }
        }
    }

    /// The question of an instance gets a step further. `lost`: its answer does not come; a write
    /// may land later.
    fn talk(&mut self, index: usize, lost: bool) {
        let now = self.now;
        let way = match self.all[index].way.take() {
            None => self.all[index].lease.question(now).map(OnItsWay::Asked),
            Some(OnItsWay::Asked(Ask::Read)) if lost => {
                self.all[index].lease.unread(now);
                None
            }
            Some(OnItsWay::Asked(Ask::Write { value, revision })) if lost => {
                self.late_writes.push((value, revision));
                self.news(index, |lease, now| lease.wrote(None, now));
                None
            }
            Some(OnItsWay::Asked(Ask::Read)) => Some(OnItsWay::Read(self.key.entry())),
            Some(OnItsWay::Asked(Ask::Write { value, revision })) => {
                Some(OnItsWay::Wrote(self.key.write(value, revision)))
            }
            Some(OnItsWay::Read(entry)) => {
                self.news(index, |lease, now| lease.read(entry, first(), now));
                None
            }
            Some(OnItsWay::Wrote(revision)) => {
                let told = revision.filter(|_| !lost);
                self.news(index, |lease, now| lease.wrote(told, now));
                None
            }
        };
        self.all[index].way = way;
    }

    fn news(&mut self, index: usize, of: impl FnOnce(&mut Lease, Instant) -> Option<News>) {
        let instance = &mut self.all[index];
        match of(&mut instance.lease, self.now) {
            Some(News::Gained(place)) => instance.work = Some(Work::gained(&place)),
            Some(News::Lost) => instance.work = None,
            Some(News::Landed(place)) => {
                if let Some(work) = &mut instance.work {
                    work.announced.extend(batches(place.note.as_deref()));
                }
            }
            None => {}
        }
    }

    /// Reads some more and announces it.
    fn take(&mut self, index: usize, records: u64) {
        let Instance { lease, work: Some(work), .. } = &mut self.all[index] else { return };
        let last = (work.next + records - 1).min(RECORDS);
        if work.next <= last {
            work.listed.push((work.next, last));
            work.next = last + 1;
        }
        lease.want(work.place());
    }

    /// Sends what is announced; `answered`: the table has it at once, and says so.
    fn send(&mut self, index: usize, answered: bool) {
        let Some(work) = &mut self.all[index].work else { return };
        let open = |batch: &&Batch| work.announced.contains(batch) && !work.durable.contains(batch);
        let Some(batch) = work.listed.iter().find(open).copied() else { return };
        if !answered {
            return self.sent.push(batch);
        }
        work.durable.insert(batch);
        let place = work.place();
        self.all[index].lease.want(place);
        self.insert(batch);
    }

    fn step(&mut self, (kind, who, amount): (u8, usize, u64)) {
        match kind {
            0..=5 => self.talk(who, false),
            6 => self.talk(who, true),
            7 => self.take(who, 1 + amount % 5),
            8 | 9 => self.send(who, amount % 3 > 0),
            10 => self.now += Duration::from_millis(amount * 200),
            11 if !self.late_writes.is_empty() => {
                let which = usize::try_from(amount).unwrap() % self.late_writes.len();
                let (value, revision) = self.late_writes.swap_remove(which);
                self.key.write(value, revision);
            }
            12 if !self.sent.is_empty() => {
                let which = usize::try_from(amount).unwrap() % self.sent.len();
                let batch = self.sent.swap_remove(which);
                self.insert(batch);
            }
            // The process dies, and another one takes its place.
            13 if amount < 6 => {
                let me = format!("i{who} of {amount} {:?}", self.now);
                self.all[who] = Instance { lease: lease(&me, self.now), work: None, way: None };
            }
            _ => {}
        }
    }

    /// Only this one goes on, for as long as it takes.
    fn finish(&mut self, who: usize) {
        for batch in std::mem::take(&mut self.sent) {
            self.insert(batch);
        }
        for (value, revision) in std::mem::take(&mut self.late_writes) {
            self.key.write(value, revision);
        }
        let all = usize::try_from(RECORDS).unwrap();
        for _ in 0..4_000 {
            self.talk(who, false);
            self.take(who, 4);
            self.send(who, true);
            self.now += Duration::from_millis(50);
            if self.rows.len() == all {
                break;
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(10_000))]

    #[test]
    fn whatever_happens_each_record_is_there_once(
        steps in prop::collection::vec((0u8..14, 0..INSTANCES, 0u64..60), 0..200),
        survivor in 0..INSTANCES,
    ) {
        let mut world = World::new();
        for step in steps {
            world.step(step);
            prop_assert!(world.rows.values().all(|times| *times == 1), "{:?}", world.rows);
        }
        world.finish(survivor);
        let once: BTreeMap<u64, usize> = (1..=RECORDS).map(|sequence| (sequence, 1)).collect();
        prop_assert_eq!(&world.rows, &once);
    }
}
