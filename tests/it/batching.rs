//! Random histories of a writer's open batch: every row leaves it once and in its order, or is
//! forgotten with its partition; a batch is cut at its limits and no later than its linger.

use std::sync::Arc;
use std::time::Duration;

use data_bridge::batch::Batch;
use data_bridge::config;
use data_bridge::ledger::{Ledger, Slot};
use data_bridge::record::{Chunk, NewRecord, Partition};
use data_bridge::route::RouteId;
use data_bridge::source::SourceId;
use data_bridge::writer::{CutReason, TableBuffer};
use proptest::prelude::*;
use tokio::time::Instant;

const ROUTE: RouteId = RouteId(0);
const PARTITIONS: usize = 3;

#[derive(Debug, Clone)]
enum Step {
    /// A record of so many bytes in a partition.
    Push(usize, usize),
    Wait(Duration),
    /// The partition goes away.
    Revoke(usize),
    /// A drain.
    Cut,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0..PARTITIONS, 0..400_usize).prop_map(|(of, bytes)| Step::Push(of, bytes)),
        2 => (0..800_u64).prop_map(|ms| Step::Wait(Duration::from_millis(ms))),
        1 => (0..PARTITIONS).prop_map(Step::Revoke),
        1 => Just(Step::Cut),
    ]
}

fn limits() -> impl Strategy<Value = config::Writer> {
    (1..20_usize, 200..2_000_usize, 1..1_000_u64).prop_map(|(batch_rows, batch_bytes, ms)| {
        let linger = Duration::from_millis(ms);
        let (batch_rows_min, batch_rows_max) = (batch_rows, batch_rows);
        config::Writer { batch_rows, batch_bytes, linger, batch_rows_min, batch_rows_max }
    })
}

/// One buffer, and beside it what has to be in it: (partition, offset) in their order.
struct History {
    limits: config::Writer,
    buffer: TableBuffer,
    ledger: Ledger,
    partitions: Vec<(Arc<Partition>, Slot)>,
    next: [i64; PARTITIONS],
    open: Vec<(usize, i64)>,
    opened_at: Option<Instant>,
    now: Instant,
}

impl History {
    fn new(limits: config::Writer) -> Self {
        let mut ledger = Ledger::default();
        let partition = |number: usize| {
            let number = i32::try_from(number).unwrap();
            let partition = Arc::new(Partition { topic: "t".to_owned(), number, epoch: 1 });
            let slot = ledger.open(SourceId(0), Some(Arc::clone(&partition)));
            (partition, slot)
        };
        Self {
            limits,
            buffer: TableBuffer::new(limits),
            partitions: (0..PARTITIONS).map(partition).collect(),
            ledger,
            next: [0; PARTITIONS],
            open: Vec::new(),
            opened_at: None,
            now: Instant::now(),
        }
    }

    fn take(&mut self, step: &Step) {
        match *step {
            Step::Push(of, bytes) => self.push(of, bytes),
            Step::Wait(time) => {
                self.now += time;
                if self.buffer.deadline().is_some_and(|deadline| deadline <= self.now) {
                    let batch = self.buffer.cut().expect("what is empty has no deadline");
                    self.left(&batch);
                }
            }
            Step::Revoke(of) => self.revoke(of),
            Step::Cut => match self.buffer.cut() {
                Some(batch) => self.left(&batch),
                None => assert!(self.open.is_empty()),
            },
        }
        assert_eq!(self.buffer.rows(), self.open.len());
        assert!(self.open.len() < self.limits.batch_rows, "a full batch stays");
        let deadline = self.opened_at.map(|at| at + self.limits.linger);
        assert_eq!(self.buffer.deadline(), deadline);
    }

    fn push(&mut self, of: usize, bytes: usize) {
        let mut chunk = Chunk::with_capacity(0, 1, bytes);
        let (partition, slot) = &self.partitions[of];
        let place = Some((chunk.partition(partition), self.next[of]));
        let payload = vec![b'x'; bytes];
        chunk.push(NewRecord { place, payload: Some(&payload), ..NewRecord::default() }, []);
        let ticket = self.ledger.admit(*slot, self.next[of], ROUTE);
        self.open.push((of, self.next[of]));
        self.opened_at.get_or_insert(self.now);
        self.next[of] += 1;
        if let Some((batch, reason)) = self.buffer.push(&Arc::new(chunk), 0, ticket, self.now) {
            match reason {
                CutReason::Rows => assert_eq!(batch.len(), self.limits.batch_rows),
                CutReason::Bytes => assert!(batch.bytes() >= self.limits.batch_bytes),
                other => panic!("a row that came is no reason for {other:?}"),
            }
            self.left(&batch);
        }
    }

    fn revoke(&mut self, of: usize) {
        let slot = self.partitions[of].1;
        let before = self.open.len();
        self.open.retain(|(partition, _)| *partition != of);
        let (rows, _) = self.buffer.forget(|of| of == slot);
        assert_eq!(rows, before - self.open.len());
        if self.open.is_empty() {
            self.opened_at = None;
        }
    }

    /// It holds what was open, in order.
    fn left(&mut self, batch: &Batch) {
        assert!(batch.len() <= self.limits.batch_rows);
        let open = std::mem::take(&mut self.open);
        self.opened_at = None;
        assert_eq!(rows(batch), open);
    }
}

fn rows(batch: &Batch) -> Vec<(usize, i64)> {
    let row = |row| {
        let (partition, offset) = batch.record(row).place().expect("it came from a partition");
        (usize::try_from(partition.number).unwrap(), offset)
    };
    (0..batch.len()).map(row).collect()
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(10_000)
    })]

    #[test]
    fn every_row_leaves_its_batch_once_in_order_and_in_time(
        limits in limits(),
        steps in prop::collection::vec(step(), 1..60),
    ) {
        let mut history = History::new(limits);
        steps.iter().for_each(|step| history.take(step));
    }

    #[test]
    fn halving_to_single_rows_keeps_each_once_and_in_order(count in 1..200_usize) {
        let limits = config::Writer {
            batch_rows: usize::MAX,
            batch_bytes: usize::MAX,
            linger: Duration::from_secs(1),
            batch_rows_min: 1,
            batch_rows_max: usize::MAX,
        };
        let mut history = History::new(limits);
        (0..count).for_each(|n| history.push(n % PARTITIONS, 1));
        let batch = history.buffer.cut().expect("rows are in it");
        let (mut halves, mut singles, mut cuts) = (vec![batch], Vec::new(), 0);
        while let Some(batch) = halves.pop() {
            if batch.len() == 1 {
                singles.extend(rows(&batch));
            } else {
                let (left, right) = batch.halves();
                cuts += 1;
                halves.extend([right, left]);
            }
        }
        prop_assert_eq!(&singles, &history.open);
        prop_assert_eq!(cuts, count - 1);
    }
}
