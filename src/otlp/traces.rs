//! Spans of batches in OpenTelemetry's words. Pure.
//!
//! A batch is a span of kind CONSUMER, linked to the producers of its records; beneath it an INTERNAL
//! one for encoding and a CLIENT one for each attempt to insert.

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::span::{Link, SpanKind};
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span as Proto, Status};

use super::words::{nanos, number, scope, text};
use crate::trace::{Context, Outcome, Span, Step, StepKind};

/// W3C's flag: whoever has the other end keeps it.
const SAMPLED: u32 = 1;

pub(super) fn request(spans: &[Span], resource: &Resource) -> ExportTraceServiceRequest {
    let spans = spans.iter().flat_map(|span| {
        let steps = span.steps.iter().map(|step| step_of(span, step));
        std::iter::once(batch(span)).chain(steps)
    });
    let spans =
        ScopeSpans { scope: Some(scope()), spans: spans.collect(), ..ScopeSpans::default() };
    let resource = Some(resource.clone());
    let spans = ResourceSpans { resource, scope_spans: vec![spans], ..ResourceSpans::default() };
    ExportTraceServiceRequest { resource_spans: vec![spans] }
}

fn batch(span: &Span) -> Proto {
    let mut attributes = vec![
        text("db.system.name", "clickhouse"),
        text("db.collection.name", &span.table),
        number("messaging.batch.message_count", span.rows),
        text("data_bridge.writer", &span.writer),
        text("data_bridge.cut_reason", span.reason),
        number("data_bridge.bytes", span.bytes),
        number("data_bridge.attempts", span.attempts),
        text("data_bridge.outcome", span.outcome.name()),
    ];
    if span.rejected > 0 {
        attributes.push(number("data_bridge.rejected", span.rejected));
    }
    if span.steps_left_out > 0 {
        attributes.push(number("data_bridge.steps_left_out", span.steps_left_out as usize));
    }
    let failed = span.outcome == Outcome::LetGo;
    let links = span.links.iter().map(|producer| Link {
        trace_id: producer.trace_id.to_vec(),
        span_id: producer.span_id.to_vec(),
        flags: SAMPLED,
        ..Link::default()
    });
    Proto {
        links: links.collect(),
        end_time_unix_nano: span.began + nanos(span.took),
        status: failed.then(|| error("its records come again, or were given up")),
        ..made(
            span.context,
            span.parent,
            format!("batch {}", span.table),
            SpanKind::Consumer,
            span.began,
            attributes,
        )
    }
}

fn step_of(span: &Span, step: &Step) -> Proto {
    let (name, kind, attributes) = match step.kind {
        StepKind::Encode => ("encode".to_owned(), SpanKind::Internal, Vec::new()),
        StepKind::Insert => {
            let attributes = vec![
                text("db.system.name", "clickhouse"),
                text("db.operation.name", "INSERT"),
                text("db.collection.name", &span.table),
            ];
            (format!("INSERT {}", span.table), SpanKind::Client, attributes)
        }
    };
    let began = span.began + nanos(step.after);
    Proto {
        end_time_unix_nano: began + nanos(step.took),
        status: step.error.as_deref().map(error),
        ..made(step.context, Some(span.context), name, kind, began, attributes)
    }
}

fn made(
    context: Context,
    parent: Option<Context>,
    name: String,
    kind: SpanKind,
    began: u64,
    attributes: Vec<KeyValue>,
) -> Proto {
    Proto {
        trace_id: context.trace_id.to_vec(),
        span_id: context.span_id.to_vec(),
        parent_span_id: parent.map(|parent| parent.span_id.to_vec()).unwrap_or_default(),
        flags: SAMPLED,
        name,
        kind: kind.into(),
        start_time_unix_nano: began,
        attributes,
        ..Proto::default()
    }
}

fn error(message: &str) -> Status {
    Status { message: message.to_owned(), code: StatusCode::Error.into() }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// An answer may be lost: a collector that has it already must know it again.
    #[test]
    fn what_is_told_again_has_the_same_ids() {
        let context = Context::random();
        let step = |kind| Step {
            context: context.child(),
            kind,
            after: Duration::ZERO,
            took: Duration::from_millis(1),
            error: None,
        };
        let span = Span {
            context,
            parent: None,
            links: Vec::new(),
            began: 1,
            took: Duration::from_millis(3),
            table: "t".to_owned(),
            writer: "w".to_owned(),
            reason: "linger",
            rows: 1,
            bytes: 1,
            rejected: 0,
            attempts: 1,
            steps: vec![step(StepKind::Encode), step(StepKind::Insert)],
            steps_left_out: 0,
            outcome: Outcome::Inserted,
        };
        let told = || request(std::slice::from_ref(&span), &Resource::default());
        assert_eq!(told(), told());
    }
}
