//! Spans of batches: what costs what, and what is bounded.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::*;
use crate::ledger::Ledger;
use crate::record::{Chunk, NewRecord};
use crate::route::RouteId;
use crate::source::SourceId;

const NAMES: Names<'_> = Names { table: "t", writer: "w", reason: "rows" };

/// A batch of records with these headers, one of each.
fn batch(traceparents: impl IntoIterator<Item = Option<String>>) -> Batch {
    let mut ledger = Ledger::default();
    let slot = ledger.open(SourceId(0), None);
    let mut chunk = Chunk::with_capacity(0, 0, 0);
    for value in traceparents {
        let headers = value.as_ref().map(|value| ("Traceparent", value.as_bytes()));
        let record = NewRecord { subject: "s", payload: Some(b"{}"), ..NewRecord::default() };
        chunk.push(record, headers);
    }
    let chunk = Arc::new(chunk);
    let mut batch = Batch::default();
    for index in 0..chunk.len() {
        batch.push(&chunk, index, ledger.admit(slot, 0, RouteId(0)));
    }
    batch
}

fn traceparent(number: usize) -> Option<String> {
    Some(format!("00-{:032x}-{:016x}-01", number + 1, number + 1))
}

#[test]
fn a_batch_has_few_links_however_many_producers_wrote_it() {
    let (tracer, mut spans) = channel(100);
    drop(tracer.begin(&batch((0..10_000).map(traceparent)), NAMES));
    let span = spans.told.try_recv().unwrap();
    assert!((LOOKED_AT / 2..=LOOKED_AT).contains(&span.links.len()), "{}", span.links.len());
    let ids: Vec<u128> = span.links.iter().map(|l| u128::from_be_bytes(l.trace_id)).collect();
    assert!(
        ids[0] < 1_000 && ids[ids.len() - 1] > 9_000,
        "they are spread over the batch: {ids:?}"
    );
}

#[test]
fn a_producer_of_many_records_is_one_link_and_others_none() {
    let (tracer, mut spans) = channel(100);
    let unsampled = traceparent(7).map(|value| value.replace("-01", "-00"));
    drop(tracer.begin(&batch([traceparent(1), None, traceparent(1), unsampled]), NAMES));
    assert_eq!(spans.told.try_recv().unwrap().links.len(), 1);
}

#[test]
fn without_a_collector_or_a_sample_there_is_no_span() {
    let (never, mut spans) = channel(0);
    for tracer in [Tracer::off(), never] {
        let mut trace = tracer.begin(&batch([traceparent(1)]), NAMES);
        trace.step(StepKind::Insert, Instant::now(), || panic!("nobody asks for it"));
        assert!(trace.open.is_none());
    }
    assert!(spans.told.try_recv().is_err());
}

#[test]
fn a_part_of_the_batches_is_told_if_that_is_wanted() {
    let (tracer, mut spans) = channel(25);
    let batch = batch([None]);
    let mut told = 0;
    for _ in 0..2_000 {
        drop(tracer.begin(&batch, NAMES));
        told += u32::from(spans.told.try_recv().is_ok());
    }
    assert!((350..650).contains(&told), "{told} of 2000");
}

#[test]
fn what_there_is_no_room_for_is_counted_and_nothing_waits() {
    let (tracer, spans) = channel(100);
    let batch = batch([None]);
    for _ in 0..WAITING + 5 {
        drop(tracer.begin(&batch, NAMES));
    }
    assert_eq!(spans.dropped.load(Ordering::Relaxed), 5);
    drop(spans.told);
    drop(tracer.begin(&batch, NAMES));
    assert_eq!(spans.dropped.load(Ordering::Relaxed), 6, "also when nobody is there any more");
}

#[test]
fn an_outage_of_hours_is_no_span_of_megabytes() {
    let (tracer, mut spans) = channel(100);
    let mut trace = tracer.begin(&batch([None]), NAMES);
    for _ in 0..1_000 {
        trace.step(StepKind::Insert, Instant::now(), || Some("down".to_owned()));
    }
    drop(trace);
    let span = spans.told.try_recv().unwrap();
    assert_eq!((span.steps.len(), span.attempts), (STEPS, 1_000));
    assert_eq!(span.steps_left_out as usize, 1_000 - STEPS);
}

#[test]
fn a_part_belongs_to_its_whole_and_is_told_with_it() {
    let (tracer, mut spans) = channel(100);
    let batch = batch([None]);
    let mut whole = tracer.begin(&batch, NAMES);
    drop(tracer.begin_within(&whole, &batch, NAMES));
    whole.becomes(Outcome::Halved);
    drop(whole);
    let (part, whole) = (spans.told.try_recv().unwrap(), spans.told.try_recv().unwrap());
    assert_eq!(part.parent, Some(whole.context));
    assert_eq!(part.context.trace_id, whole.context.trace_id);
    assert_eq!((whole.outcome, part.outcome), (Outcome::Halved, Outcome::LetGo));
    // Of a batch that is not sampled no part is.
    drop(tracer.begin_within(&Trace::default(), &batch, NAMES));
    assert!(spans.told.try_recv().is_err());
}

/// One id of two spans would make one of them what the other is, wherever they are kept.
#[test]
fn each_span_has_an_id_of_its_own_and_each_batch_that_was_cut_a_trace() {
    let (tracer, mut spans) = channel(100);
    let batch = batch([None]);
    for _ in 0..50 {
        let mut whole = tracer.begin(&batch, NAMES);
        whole.step(StepKind::Encode, Instant::now(), || None);
        whole.step(StepKind::Insert, Instant::now(), || None);
        drop(tracer.begin_within(&whole, &batch, NAMES));
        drop(tracer.begin_within(&whole, &batch, NAMES));
    }
    let (mut ids, mut traces) = (BTreeSet::new(), BTreeSet::new());
    while let Ok(span) = spans.told.try_recv() {
        let of_all = span.steps.iter().map(|step| step.context).chain([span.context]);
        for Context { trace_id, span_id } in of_all {
            assert_eq!(trace_id, span.context.trace_id);
            assert!(ids.insert(span_id), "{span:?}");
        }
        if span.parent.is_none() {
            assert!(traces.insert(span.context.trace_id), "{span:?}");
        }
    }
    assert_eq!((ids.len(), traces.len()), (50 * 5, 50));
}
