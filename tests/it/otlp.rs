//! OpenTelemetry: what is told of batches, in memory; and a bridge between real servers and a collector
//! that decodes what comes by OpenTelemetry's own crate.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use data_bridge::sink::InsertError;
use data_bridge::trace::{Outcome, Span, StepKind};
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value};
use opentelemetry_proto::tonic::metrics::v1::{Metric, metric, number_data_point};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::Span as Proto;
use prost::Message as _;
use rdkafka::message::{Header, OwnedHeaders};
use tokio::time::{Instant, timeout};

use crate::bridge::{Bridge, PATIENCE};
use crate::lab::Lab;
use crate::receiver::{Came, Receiver, Reply};
use crate::rig::sink::{DEAD_LETTERS, Mode, down, refusal};
use crate::rig::source::Kind;
use crate::rig::{NO_BREAKER, Rig};
use crate::stack::free_port;

const TOLD: &str = "[otlp]\nendpoint = \"http://unused:4318\"\n";

fn told(rig: &mut Rig) -> Vec<Span> {
    std::iter::from_fn(|| rig.spans.told.try_recv().ok()).collect()
}

#[tokio::test(start_paused = true)]
async fn a_span_tells_each_attempt_and_how_it_ended() {
    let mut rig = Rig::nats_alone(&format!("{TOLD}{NO_BREAKER}"));
    rig.sink.all(down());
    rig.nats().push("market.x", 7).await;
    rig.after(Duration::from_secs(5)).await;
    assert!(told(&mut rig).is_empty(), "it is not over");
    rig.sink.all(Mode::Accept);
    rig.drained().await;
    let spans = told(&mut rig);
    let [span] = &spans[..] else { panic!("{spans:#?}") };
    assert_eq!((span.table.as_str(), span.writer.as_str()), ("candles", "aggregate"));
    assert_eq!((span.rows, span.reason, span.outcome), (7, "linger", Outcome::Inserted));
    assert_eq!((span.rejected, span.steps_left_out), (0, 0));
    assert_eq!(span.attempts, rig.sink.attempts("candles").len());
    let kinds: Vec<StepKind> = span.steps.iter().map(|step| step.kind).collect();
    assert_eq!(
        (kinds[0], kinds.iter().filter(|k| **k == StepKind::Encode).count()),
        (StepKind::Encode, 1)
    );
    let (last, failed) = span.steps.split_last().unwrap();
    assert_eq!(last.error, None);
    assert!(failed.len() > 3, "{span:#?}");
    assert!(failed[1..].iter().all(|step| step.error.as_deref() == Some("connection refused")));
    assert!(span.took >= last.after && last.after > failed[failed.len() - 1].after);
}

#[tokio::test(start_paused = true)]
async fn the_halves_of_a_refused_batch_and_its_letters_are_told() {
    let mut rig = Rig::nats_alone(TOLD);
    rig.nats().push_kinds("market.x", &[Kind::Good, Kind::Poison, Kind::Broken, Kind::Good]).await;
    rig.drained().await;
    let spans = told(&mut rig);
    let roots = spans.iter().filter(|span| span.parent.is_none() && span.table == "candles");
    let [root] = &roots.collect::<Vec<_>>()[..] else { panic!("{spans:#?}") };
    assert_eq!((root.rows, root.rejected, root.outcome), (4, 1, Outcome::Halved));
    let within = spans.iter().filter(|span| span.context.trace_id == root.context.trace_id);
    let mut ends: Vec<_> = within.map(|span| (span.rows, span.outcome.name())).collect();
    ends.sort_unstable();
    let expected =
        [(1, "dead_lettered"), (1, "inserted"), (1, "inserted"), (2, "halved"), (4, "halved")];
    assert_eq!(ends, expected);
    let letters: usize =
        spans.iter().filter(|span| span.table == DEAD_LETTERS).map(|span| span.rows).sum();
    assert_eq!(letters, 2);
}

/// Whatever way a batch goes, somebody hears how it ended.
#[tokio::test(start_paused = true)]
async fn a_batch_that_is_never_durable_is_told_as_let_go() {
    let mut rig = Rig::kafka_alone(&format!("{TOLD}{NO_BREAKER}[shutdown]\ngrace = \"5s\"\n"));
    rig.sink.all(Mode::Refuse(InsertError::AwaitFix(refusal(60, "no table"))));
    let partition = rig.kafka().assign("candles", 0, 1).await;
    rig.kafka().pull(&partition, 20).await;
    rig.after(Duration::from_secs(3)).await;
    let ending = rig.stop().await;
    assert_eq!(ending.abandoned, 20);
    let spans = told(&mut rig);
    let ends: Vec<_> = spans.iter().map(|span| (span.rows, span.outcome)).collect();
    assert_eq!(ends, [(20, Outcome::LetGo)]);
    assert_eq!(spans[0].steps[1].error.as_deref(), Some("ClickHouse's code 60"), "no value quoted");
}

#[tokio::test(start_paused = true)]
async fn off_is_off() {
    let mut rig = Rig::nats_alone("");
    rig.nats().push("market.x", 7).await;
    rig.drained().await;
    assert!(told(&mut rig).is_empty());
}

/// What a collector got, over all requests.
#[derive(Default)]
struct Got {
    spans: Vec<Proto>,
    metrics: BTreeMap<String, Metric>,
    resource: Option<Resource>,
    heads: Vec<String>,
}

impl Got {
    fn take(&mut self, came: Came) {
        let Came { head, body } = came;
        if head.starts_with("post /base/v1/traces http/1.1") {
            let request = ExportTraceServiceRequest::decode(&*body).unwrap();
            for spans in request.resource_spans {
                self.resource = spans.resource;
                self.spans.extend(spans.scope_spans.into_iter().flat_map(|scope| scope.spans));
            }
        } else {
            assert!(head.starts_with("post /base/v1/metrics http/1.1"), "{head}");
            let request = ExportMetricsServiceRequest::decode(&*body).unwrap();
            let scopes = request.resource_metrics.into_iter().flat_map(|of| of.scope_metrics);
            let metrics = scopes.flat_map(|scope| scope.metrics);
            self.metrics.extend(metrics.map(|metric| (metric.name.clone(), metric)));
        }
        self.heads.push(head);
    }

    async fn until(&mut self, collector: &mut Receiver, enough: impl Fn(&Self) -> bool) {
        let taking = async {
            while !enough(self) {
                self.take(collector.next().await);
            }
        };
        timeout(PATIENCE, taking).await.expect("the collector is told");
    }

    /// The spans of batches of this table, each once: an answer that came too late brings them again.
    fn batches(&self, table: &str) -> Vec<&Proto> {
        let name = format!("batch {table}");
        let batches = self.spans.iter().filter(|span| span.name == name);
        batches
            .map(|span| (&span.span_id, span))
            .collect::<BTreeMap<_, _>>()
            .into_values()
            .collect()
    }

    /// The sum of a counter over its series.
    fn sum(&self, name: &str) -> i64 {
        let Some(metric::Data::Sum(sum)) = self.metrics.get(name).and_then(|m| m.data.as_ref())
        else {
            return 0;
        };
        let values = sum.data_points.iter().map(|point| match point.value {
            Some(number_data_point::Value::AsInt(whole)) => whole,
            other => panic!("{name}: {other:?}"),
        });
        values.sum()
    }
}

fn attribute(attributes: &[KeyValue], key: &str) -> String {
    let pair = attributes.iter().find(|pair| pair.key == key);
    match pair.and_then(|pair| pair.value.as_ref()?.value.as_ref()) {
        Some(any_value::Value::StringValue(text)) => text.clone(),
        Some(any_value::Value::IntValue(number)) => number.to_string(),
        other => panic!("{key}: {other:?} in {attributes:?}"),
    }
}

fn rows(spans: &[&Proto]) -> u64 {
    let of = |span: &&Proto| attribute(&span.attributes, "messaging.batch.message_count");
    spans.iter().map(|span| of(span).parse::<u64>().unwrap()).sum()
}

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";

/// Each with the context of its own producer.
async fn send_traced(lab: &Lab, numbers: std::ops::Range<u64>) {
    let (sender, topic) = (lab.kafka(), lab.topic("numbers"));
    let nats = lab.nats().await;
    for n in numbers {
        let (payload, parent) = (format!("{{\"n\":{n}}}"), format!("00-{TRACE}-{:016x}-01", n + 1));
        if n % 2 == 0 {
            let header = Header { key: "traceparent", value: Some(parent.as_bytes()) };
            let headers = OwnedHeaders::new().insert(header);
            sender.send_with_headers(&topic, payload.as_bytes(), headers);
        } else {
            let mut headers = async_nats::HeaderMap::new();
            headers.insert("traceparent", parent.as_str());
            let subject = lab.subject("numbers.x");
            nats.publish_with_headers(subject, headers, payload.into()).await.unwrap();
        }
    }
    nats.flush().await.unwrap();
    sender.flush().await;
}

/// With a time-out that no stall of the machine reaches: what was taken too late would be sent twice.
fn collector_at(address: std::net::SocketAddr) -> String {
    format!("[otlp]\nendpoint = \"http://{address}/base/\"\ninterval = \"1s\"\ntimeout = \"20s\"\n")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_collector_gets_a_span_for_each_batch_linked_to_its_producers_and_all_metrics() {
    let lab = Lab::new().await;
    lab.numbers_places().await;
    let mut collector = Receiver::start(&[]).await;
    let more = "[otlp.headers]\nx-api-key = \"s3cret\"\n[otlp.resource]\n\
                \"deployment.environment.name\" = \"test\"\n\"service.name\" = \"moved\"\n";
    let over = format!("instance = \"one\"\n{}{more}", collector_at(collector.address));
    let bridge = lab.start(&lab.numbers("kafka and nats"), &over).await;
    send_traced(&lab, 0..400).await;
    lab.clickhouse.until("SELECT count() FROM numbers", 400).await;
    let mut got = Got::default();
    let name = "data_bridge_records_inserted";
    got.until(&mut collector, |got| rows(&got.batches("numbers")) >= 400 && got.sum(name) == 400)
        .await;
    let batches = got.batches("numbers");
    assert_eq!(rows(&batches), 400, "each row is told of once");
    let mut producers = 0;
    for batch in batches {
        assert_eq!(attribute(&batch.attributes, "data_bridge.outcome"), "inserted");
        assert_eq!((batch.kind, batch.parent_span_id.len()), (5, 0));
        producers += batch.links.len();
        assert!(
            batch.links.iter().all(|link| link.trace_id
                == 0x0af7_6519_16cd_43dd_8448_eb21_1c80_319c_u128.to_be_bytes())
        );
        let steps = got.spans.iter().filter(|span| span.parent_span_id == batch.span_id);
        let names: BTreeSet<&str> = steps.clone().map(|span| span.name.as_str()).collect();
        let names: Vec<&str> = names.into_iter().collect();
        assert_eq!(names, ["INSERT numbers", "encode"]);
        for step in steps {
            assert_eq!(step.trace_id, batch.trace_id);
            assert!(step.start_time_unix_nano >= batch.start_time_unix_nano);
            assert!(step.end_time_unix_nano <= batch.end_time_unix_nano);
        }
    }
    assert!(producers > 40, "{producers}");
    let resource = got.resource.as_ref().unwrap();
    for (key, value) in [
        ("service.name", "moved"),
        ("service.instance.id", "one"),
        ("deployment.environment.name", "test"),
    ] {
        assert_eq!(attribute(&resource.attributes, key), value);
    }
    for head in &got.heads {
        assert!(head.contains("x-api-key: s3cret\r\n"), "{head}");
        assert!(head.contains("content-type: application/x-protobuf\r\n"), "{head}");
    }
    // As a scraper sees them: by the same names.
    let scraped = bridge.metrics().await;
    let counters = scraped.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    let counters = counters.filter_map(|line| line.strip_suffix(" counter"));
    let mut seen = 0;
    for name in counters {
        let is_of_it =
            |line: &str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']));
        if scraped.lines().any(is_of_it) {
            seen += 1;
            assert!(got.metrics.contains_key(name.trim_end_matches("_total")), "{name}");
        }
    }
    assert!(seen > 15, "{seen}");
    bridge.stop().await;
    assert_eq!(lab.count_in_logs("s3cret"), 0);
}

/// This series is at this number, or beyond.
async fn metric_until(bridge: &Bridge, series: &str, least: u64) {
    let series = format!("data_bridge_{series} ");
    let there = async {
        loop {
            let metrics = bridge.metrics().await;
            let value = metrics.lines().find_map(|line| line.strip_prefix(&series));
            if value.is_some_and(|value| value.parse::<u64>().unwrap() >= least) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    timeout(PATIENCE, there).await.unwrap_or_else(|_| panic!("{series} is never {least}"));
}

async fn four_hundred_land(lab: &Lab) {
    send_traced(lab, 0..400).await;
    lab.clickhouse.until("SELECT count() FROM numbers", 400).await;
}

/// One that is not there: the records go through, and it is said once of each signal.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_collector_harms_nothing_and_is_one_line_of_each_signal() {
    let closed = std::net::SocketAddr::from(([127, 0, 0, 1], free_port()));
    let lab = Lab::new().await;
    lab.numbers_places().await;
    let mut bridge = lab.start(&lab.numbers("kafka and nats"), &collector_at(closed)).await;
    four_hundred_land(&lab).await;
    for signal in ["traces", "metrics"] {
        let labels = format!("{{signal=\"{signal}\",result=");
        metric_until(&bridge, &format!("otlp_requests_total{labels}\"failed\"}}"), 2).await;
        let none = format!("data_bridge_otlp_requests_total{labels}\"sent\"}} 0\n");
        assert!(bridge.metrics().await.contains(&none));
    }
    assert_eq!(bridge.terminate().await, 0);
    for signal in ["traces", "metrics"] {
        let said = format!("the OpenTelemetry collector does not get {signal}: cannot reach it");
        assert_eq!(lab.count_in_logs(&said), 1);
    }
    assert_eq!(lab.count_in_logs("otlp_failed"), 2);
}

/// Many a collector has a pipeline for one signal only: that is said once, not at each interval.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_collector_that_takes_one_signal_only_is_one_line() {
    let mut collector = Receiver::start(&[Reply::Only("/v1/traces"); 1_024]).await;
    let lab = Lab::new().await;
    lab.numbers_places().await;
    let over = collector_at(collector.address);
    let mut bridge = lab.start(&lab.numbers("kafka and nats"), &over).await;
    let (mut traces, mut metrics, mut sent) = (0, 0, 0);
    while traces < 3 || metrics < 3 {
        send_traced(&lab, sent..sent + 10).await;
        sent += 10;
        let came = collector.next().await;
        if came.head.contains("/v1/traces") { traces += 1 } else { metrics += 1 }
    }
    assert_eq!(bridge.terminate().await, 0);
    let said = "the OpenTelemetry collector does not get metrics: 404";
    assert_eq!((lab.count_in_logs(said), lab.count_in_logs("otlp_failed")), (1, 1));
    assert_eq!(lab.count_in_logs("otlp_works"), 0);
}

/// One that takes requests and never answers: a stop waits for it for a moment only.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_collector_that_hangs_does_not_hold_up_a_stop() {
    let mut hangs = Receiver::start(&[Reply::Hang; 64]).await;
    let lab = Lab::new().await;
    lab.numbers_places().await;
    let over = collector_at(hangs.address).replace("timeout = \"20s\"", "timeout = \"300s\"");
    let mut bridge = lab.start(&lab.numbers("kafka and nats"), &over).await;
    hangs.next().await;
    four_hundred_land(&lab).await;
    let began = Instant::now();
    assert_eq!(bridge.terminate().await, 0);
    assert!(began.elapsed() < Duration::from_secs(60), "{:?}", began.elapsed());
    assert_eq!(lab.count_in_logs("otlp_not_told"), 1);
}

/// What may pass is sent again as it is; what is refused for good is dropped, counted, and not sent
/// again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn spans_that_were_not_taken_come_again_unless_they_were_refused_for_good() {
    let lab = Lab::new().await;
    lab.numbers_places().await;
    let mut collector = Receiver::start(&[Reply::Status(503), Reply::Status(400)]).await;
    let over = format!("{}metrics = false\n", collector_at(collector.address));
    let bridge = lab.start(&lab.numbers("kafka"), &over).await;
    // one record is one batch, and its spans are of one request
    lab.numbers_to_kafka(0..1, 1_000).await;
    lab.clickhouse.until("SELECT count() FROM numbers", 1).await;
    let (busy, refused) = (collector.next().await, collector.next().await);
    let batches = |came: &Came| {
        let request = ExportTraceServiceRequest::decode(&*came.body).unwrap();
        let spans = request.resource_spans[0].scope_spans[0].spans.iter();
        let batches = spans.filter(|span| span.name.starts_with("batch "));
        batches.map(|span| span.span_id.clone()).collect::<Vec<_>>()
    };
    let refused = batches(&refused);
    assert_eq!((batches(&busy), refused.len()), (refused.clone(), 1), "the same span");
    let name = "otlp_spans_dropped_total{reason=\"refused\"}";
    metric_until(&bridge, name, 1).await;
    for sent in 1..3 {
        lab.numbers_to_kafka(sent..sent + 1, 1_000).await;
        let later = batches(&collector.next().await);
        assert!(!later.contains(&refused[0]), "what was refused comes again");
    }
    bridge.stop().await;
}
