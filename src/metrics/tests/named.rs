//! Whatever is named by the alert rules, the dashboard and the documents is in a scrape: metrics with
//! their suffixes, labels, and the values that a label is held against.

use std::path::{Path, PathBuf};

use promql_parser::label::MatchOp;
use promql_parser::parser::{self, AggregateExpr, Expr, VectorSelector};
use promql_parser::util::{ExprVisitor, walk_expr};
use serde_json::Value as Json;
use yaml_rust2::{Yaml, YamlLoader};

use super::*;
use crate::fleet::{Said, View};
use crate::source::PartitionObserved;
use crate::status::{EndpointStatus, FleetStatus, SourceStatus, TierStatus};
use crate::writer::CutReason;

/// What Prometheus itself gives to every series.
const TARGET: [&str; 2] = ["job", "instance"];
/// What Prometheus itself says of a target.
const UP: &str = "up";

fn root(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn read(name: &str) -> String {
    std::fs::read_to_string(root(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// A scrape in which every metric has a series.
fn everything() -> Scrape {
    let mut snapshot = busy();
    let consumer = PartitionObserved {
        topic: "BARS/data-bridge-bars".to_owned(),
        number: 0,
        lag: Some(7),
        committed: Some(8),
    };
    let jetstream = SourceStatus {
        natively_paused: Some(false),
        partitions: vec![consumer],
        ..SourceStatus::default()
    };
    snapshot.sources.insert("jetstream".to_owned(), jetstream);
    snapshot.endpoints.push(EndpointStatus {
        url: "http://localhost:8123".to_owned(),
        healthy: true,
        reason: None,
        unclear_inserts: 0,
    });
    snapshot.forecast.full_in_seconds = Some(200.0);
    snapshot.forecast.drained_in_seconds = Some(100.0);
    snapshot.overload.tiers.push(TierStatus { at_percent: 70, ..TierStatus::default() });
    let peer = Said { instance: "other".to_owned(), lag: Some(7), ..Said::default() };
    let others = [(peer.instance.clone(), peer)].into();
    let view = Arc::new(View { others, ..View::default() });
    snapshot.fleet = Some(FleetStatus { view, slowdowns: 1 });
    let metrics = Metrics::new();
    metrics.insert_finished("aggregate", Duration::from_millis(30), true);
    metrics.batch_cut("aggregate", CutReason::Linger, 10);
    metrics.durable("aggregate", 0.5, 1.5, 10);
    scrape(snapshot, metrics)
}

/// The series of a metric, each as its labels.
fn series(scrape: &Scrape, name: &str) -> Vec<BTreeMap<String, String>> {
    let of = |series: &String| {
        let (found, labels) = series.split_once('{').unwrap_or((series, "}"));
        (found == name).then(|| {
            let pairs = labels.trim_end_matches('}').split("\",").filter(|pair| !pair.is_empty());
            let pairs = pairs.map(|pair| pair.split_once("=\"").unwrap());
            pairs.map(|(k, v)| (k.to_owned(), v.trim_end_matches('"').to_owned())).collect()
        })
    };
    scrape.samples.keys().filter_map(of).collect()
}

/// Whether a metric is told of, with series or without.
fn is_described(scrape: &Scrape, name: &str) -> bool {
    let kind = |name: &str| scrape.types.get(name).map(String::as_str);
    match name.strip_suffix("_total") {
        Some(counter) => kind(counter) == Some("counter"),
        None => matches!(kind(name), Some("gauge" | "histogram")),
    }
}

/// Looks for what an expression names and the scrape has not.
struct Names<'a> {
    scrape: &'a Scrape,
    problems: Vec<String>,
    metrics: BTreeSet<String>,
}

impl Names<'_> {
    fn selector(&mut self, selector: &VectorSelector) {
        let name = selector.name.clone().unwrap_or_default();
        self.metrics.insert(name.clone());
        if name == UP {
            return;
        }
        let series = series(self.scrape, &name);
        if series.is_empty() {
            self.problems.push(format!("no metric {name}"));
            return;
        }
        for matcher in &selector.matchers.matchers {
            if TARGET.contains(&matcher.name.as_str()) {
                continue;
            }
            let values: Vec<_> = series.iter().filter_map(|s| s.get(&matcher.name)).collect();
            let fits = |value: &&String| match &matcher.op {
                MatchOp::Equal | MatchOp::NotEqual => **value == matcher.value,
                MatchOp::Re(pattern) | MatchOp::NotRe(pattern) => pattern.is_match(value),
            };
            if !values.iter().any(fits) {
                self.problems.push(format!("{name} has {} = {values:?}", matcher.name));
            }
        }
    }

    /// Labels that a sum keeps, or two sides are joined by.
    fn grouping(&mut self, of: &Expr, labels: &[String]) {
        let mut inner =
            Names { scrape: self.scrape, problems: Vec::new(), metrics: BTreeSet::new() };
        walk_expr(&mut inner, of).unwrap();
        for name in inner.metrics {
            let series = series(self.scrape, &name);
            let known = |label: &&String| {
                TARGET.contains(&label.as_str()) || series.iter().any(|s| s.contains_key(*label))
            };
            let unknown = labels.iter().filter(|label| !known(label));
            self.problems.extend(unknown.map(|label| format!("{name} has no label {label}")));
        }
    }
}

impl ExprVisitor for Names<'_> {
    type Error = std::convert::Infallible;

    fn pre_visit(&mut self, expr: &Expr) -> Result<bool, Self::Error> {
        match expr {
            Expr::VectorSelector(selector) => self.selector(selector),
            Expr::MatrixSelector(matrix) => self.selector(&matrix.vs),
            Expr::Aggregate(AggregateExpr { expr, modifier: Some(by), .. }) => {
                self.grouping(expr, &by.labels().labels);
            }
            Expr::Binary(binary) => {
                if let Some(by) = binary.modifier.as_ref().and_then(|m| m.matching.as_ref()) {
                    self.grouping(&binary.lhs, &by.labels().labels);
                    self.grouping(&binary.rhs, &by.labels().labels);
                }
            }
            _ => {}
        }
        Ok(true)
    }
}

/// What is wrong with an expression; and the metrics that it names.
fn problems(scrape: &Scrape, expression: &str) -> (Vec<String>, BTreeSet<String>) {
    // Grafana fills these in before it asks
    let expression = expression.replace("$__rate_interval", "1m");
    let mut names = Names { scrape, problems: Vec::new(), metrics: BTreeSet::new() };
    match parser::parse(&expression) {
        Ok(parsed) => {
            walk_expr(&mut names, &parsed).unwrap();
        }
        Err(error) => names.problems.push(error),
    }
    (names.problems, names.metrics)
}

fn rules() -> Vec<Yaml> {
    let document =
        YamlLoader::load_from_str(&read("deploy/prometheus/alerts.yml")).unwrap().remove(0);
    let groups = document["groups"].as_vec().unwrap().iter();
    groups.flat_map(|group| group["rules"].as_vec().unwrap().clone()).collect()
}

/// `{{ $labels.route }}` in a summary, `{{route}}` in a legend.
fn templates<'a>(text: &'a str, start: &str) -> Vec<&'a str> {
    text.split(start).skip(1).map(|rest| rest.split([' ', '}']).next().unwrap()).collect()
}

#[test]
fn every_alert_rule_asks_for_metrics_that_are_there() {
    let scrape = everything();
    for rule in rules() {
        let name = rule["alert"].as_str().unwrap();
        let (problems, metrics) = problems(&scrape, rule["expr"].as_str().unwrap());
        assert!(problems.is_empty(), "{name}: {problems:?}");
        assert!(!metrics.is_empty(), "{name}");
        let summary = rule["annotations"]["summary"].as_str().unwrap();
        for label in templates(summary, "$labels.") {
            let any = metrics.iter().flat_map(|metric| series(&scrape, metric));
            let known = TARGET.contains(&label) || any.into_iter().any(|s| s.contains_key(label));
            assert!(known, "{name}: no label {label}");
        }
    }
}

#[test]
fn every_alert_rule_has_an_id_a_severity_and_a_name_that_follows_from_its_id() {
    let mut ids = BTreeSet::new();
    for rule in rules() {
        let id = rule["labels"]["id"].as_str().unwrap().to_owned();
        let words = id.split('_').map(|word| word[..1].to_uppercase() + &word[1..]);
        let name = format!("DataBridge{}", words.collect::<String>());
        assert_eq!(rule["alert"].as_str(), Some(name.as_str()));
        let severity = rule["labels"]["severity"].as_str().unwrap();
        assert!(["warning", "critical"].contains(&severity), "{id}: {severity}");
        let runbook = rule["annotations"]["runbook"].as_str().unwrap();
        assert_eq!(runbook, format!("docs/runbook.md#{id}"));
        assert!(ids.insert(id.clone()), "{id} is there twice");
    }
}

#[test]
fn every_panel_of_the_dashboard_asks_for_metrics_that_are_there() {
    let scrape = everything();
    let dashboard: Json = serde_json::from_str(&read("deploy/grafana/data-bridge.json")).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let mut asked = 0;
    for panel in panels {
        let title = &panel["title"];
        for target in panel["targets"].as_array().unwrap() {
            asked += 1;
            let (problems, metrics) = problems(&scrape, target["expr"].as_str().unwrap());
            assert!(problems.is_empty(), "{title}: {problems:?}");
            for label in templates(target["legendFormat"].as_str().unwrap(), "{{") {
                let any = metrics.iter().flat_map(|metric| series(&scrape, metric));
                let known =
                    TARGET.contains(&label) || any.into_iter().any(|s| s.contains_key(label));
                assert!(known, "{title}: no label {label}");
            }
        }
    }
    assert!(asked > panels.len(), "{asked}");
    for annotation in dashboard["annotations"]["list"].as_array().unwrap() {
        let (problems, _) = problems(&scrape, annotation["expr"].as_str().unwrap());
        assert!(problems.is_empty(), "{problems:?}");
    }
    let variable = dashboard["templating"]["list"][1]["definition"].as_str().unwrap();
    let metric = variable.strip_prefix("label_values(").unwrap().split(',').next().unwrap();
    assert!(!series(&scrape, metric).is_empty(), "{variable}");
}

/// Documents name metrics in prose and in rules of their own.
#[test]
fn every_metric_that_a_document_names_is_there() {
    let scrape = everything();
    let documents = std::fs::read_dir(root("docs")).unwrap();
    let documents = documents.map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> =
        documents.filter(|path| path.extension().is_some_and(|end| end == "md")).collect();
    files.extend(["README.md", "ARCHITECTURE.md", "CHANGELOG.md"].map(root));
    let mut named = 0;
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        for rest in text.split("data_bridge_").skip(1) {
            let end = rest.find(|c: char| !c.is_ascii_lowercase() && c != '_');
            let name = format!("data_bridge_{}", &rest[..end.unwrap_or(rest.len())]);
            // `data_bridge_…` speaks of all of them
            if name != "data_bridge_" {
                named += 1;
                let known = is_described(&scrape, &name);
                assert!(known, "{}: {name}", file.display());
            }
        }
    }
    assert!(named > 5, "{named}");
}

#[test]
fn an_expression_that_names_what_is_not_there_is_found_out() {
    let scrape = everything();
    for wrong in [
        "data_bridge_pauses",
        "data_bridge_breaker_state{state=\"ajar\"} == 1",
        "data_bridge_breaker_state{states=\"open\"} == 1",
        "sum by (source) (data_bridge_route_held_back)",
        "data_bridge_wedged ==",
        "rate(data_bridge_wedged)",
    ] {
        assert!(!problems(&scrape, wrong).0.is_empty(), "{wrong}");
    }
}
