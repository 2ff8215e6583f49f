//! The parts of the hot path by themselves, with what they allocate: `scripts/bench --micro`.
//!
//! Time on a shared machine tells tens of per cent; for single ones, `scripts/bench --micro` counts
//! instructions too.

mod shapes;

use std::sync::Arc;

use data_bridge::batch::Batch;
use data_bridge::config::{Action, Delivery, InsertAction, Route, RouteFormat, RouteOverload};
use data_bridge::decode::Mapping;
use data_bridge::generate::Kind;
use data_bridge::ledger::{Ledger, Ticket};
use data_bridge::live::{self, Live, RouteTopic};
use data_bridge::record::{Chunk, Partition};
use data_bridge::route::{RouteId, Router};
use data_bridge::source::SourceId;
use divan::counter::{BytesCount, ItemsCount};
use divan::{AllocProfiler, Bencher, black_box};

/// "No allocation per record" is a claim that can be counted.
#[global_allocator]
static ALLOCATIONS: AllocProfiler = AllocProfiler::system();

/// About what a source takes at a time.
const RECORDS: u64 = 1_000;
const SHAPES: [Kind; 4] = [Kind::Bars, Kind::Indicators, Kind::Quotes, Kind::Books];

fn main() {
    divan::main();
}

/// A payload's bytes into typed columns.
#[divan::bench(args = SHAPES)]
fn decode(bencher: Bencher<'_, '_>, kind: Kind) {
    let chunk = shapes::chunk(kind, 0, RECORDS);
    let mut decoder = shapes::decoder(kind);
    let mut columns = decoder.columns();
    bencher.counter(BytesCount::new(chunk.filled_bytes())).bench_local(|| {
        columns.clear();
        for record in chunk.records() {
            decoder.decode(&record, None, &mut columns).expect("the shape fits its table");
        }
        black_box(columns.rows())
    });
}

/// Typed columns into the body of an insert.
#[divan::bench(args = SHAPES)]
fn encode(bencher: Bencher<'_, '_>, kind: Kind) {
    let chunk = shapes::chunk(kind, 0, RECORDS);
    let mut decoder = shapes::decoder(kind);
    let mut columns = decoder.columns();
    for record in chunk.records() {
        decoder.decode(&record, None, &mut columns).expect("the shape fits its table");
    }
    bencher.counter(ItemsCount::new(RECORDS)).bench_local(|| columns.encode());
}

/// What a source copies out of its client's buffers.
#[divan::bench(args = SHAPES)]
fn build_chunk(bencher: Bencher<'_, '_>, kind: Kind) {
    let chunk = shapes::chunk(kind, 0, RECORDS);
    let all: Vec<usize> = (0..chunk.len()).collect();
    bencher.counter(BytesCount::new(chunk.filled_bytes())).bench_local(|| chunk.extract(&all));
}

/// What the owner does for the live feed while nobody listens: so many routes take the records in turn.
#[divan::bench(args = [1, 2, 10])]
fn tap(bencher: Bencher<'_, '_>, routes: u16) {
    let chunk = Arc::new(shapes::chunk(Kind::Bars, 0, RECORDS));
    let live = Arc::new(Live::new(live_by_default(), &[]));
    // With nobody at its other end it hands over to no one: what that end does is not measured.
    let (mut tap, _) = live::tap(&live);
    let route = |n| (RouteId(n), RouteTopic { name: format!("r{n}"), key: None });
    tap.lay_routes((0..routes).map(route));
    let each = || (0..chunk.len()).map(|index| index..index + 1);
    let rows = || each().zip((0..routes).map(RouteId).cycle());
    bencher.counter(ItemsCount::new(RECORDS)).bench_local(|| tap.admitted(&chunk, rows()));
}

/// With this many routes that take a topic each, the last of them ours.
#[divan::bench(args = [1, 10, 100])]
fn route(bencher: Bencher<'_, '_>, routes: usize) {
    let chunk = shapes::chunk(Kind::Bars, 0, RECORDS);
    let others = (1..routes).map(|n| format!("other.{n}"));
    let topics = others.chain(["bench.bars".to_owned()]);
    let routes: Vec<Route> = topics.map(route_of).collect();
    let mut router = Router::new(&routes).expect("exact topics are no patterns");
    bencher
        .counter(ItemsCount::new(RECORDS))
        .bench_local(|| chunk.records().filter_map(|record| router.route(&record)).count());
}

fn live_by_default() -> data_bridge::config::Live {
    let file = tempfile::Builder::new().suffix(".toml").tempfile().expect("there is room");
    std::fs::write(
        file.path(),
        "[kafka]\n[[routes]]\nname = 'r'\nkafka_topics = ['r']\ntable = 'r'\n",
    )
    .expect("there is room");
    data_bridge::config::load(&[file.path().to_owned()]).expect("it is valid").live
}

fn route_of(topic: String) -> Route {
    Route {
        name: topic.clone(),
        kafka_topics: vec![topic],
        nats_subjects: Vec::new(),
        jetstream: None,
        publish: false,
        live_key: None,
        rate_limit: None,
        class: "default".to_owned(),
        overload: RouteOverload::default(),
        action: Action::Insert(InsertAction {
            writer: "default".to_owned(),
            table: "bars".to_owned(),
            format: RouteFormat::Columns(Mapping::empty()),
            delivery: Delivery::AtLeastOnce,
        }),
    }
}

/// Records admitted and settled, in the order in which they came.
#[divan::bench]
fn ledger(bencher: Bencher<'_, '_>) {
    let mut ledger = Ledger::default();
    let partition = Arc::new(Partition { topic: "bench.bars".to_owned(), number: 0, epoch: 1 });
    let slot = ledger.open(SourceId(0), Some(partition));
    let mut tickets: Vec<Ticket> = Vec::new();
    let mut next = 0;
    bencher.counter(ItemsCount::new(RECORDS)).bench_local(|| {
        for _ in 0..RECORDS {
            tickets.push(ledger.admit(slot, next, RouteId(0)));
            next += 1;
        }
        tickets.drain(..).filter(|&ticket| ledger.settle(ticket, 1)).count()
    });
}

/// Rows of one chunk put into a batch.
#[divan::bench]
fn fill_batch(bencher: Bencher<'_, '_>) {
    let chunk: Arc<Chunk> = Arc::new(shapes::chunk(Kind::Bars, 0, RECORDS));
    let mut ledger = Ledger::default();
    let slot = ledger.open(SourceId(0), None);
    let ticket = ledger.admit(slot, 0, RouteId(0));
    bencher.counter(ItemsCount::new(RECORDS)).bench_local(|| {
        let mut batch = Batch::default();
        for (index, n) in (0..chunk.len()).zip(0..) {
            batch.push(&chunk, index, ticket.nth(n));
        }
        batch
    });
}
