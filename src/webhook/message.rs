//! What a receiver gets: the same notice as JSON, as Slack takes it, as Alertmanager takes it. Pure.

use std::fmt;
use std::time::Duration;

use serde_json::{Value, json};

use crate::alert::{Alert, Severity};
use crate::config::{Webhook, WebhookKind};
use crate::record::UnixMs;
use crate::status::Identity;
use crate::status::health::rfc3339;

/// Characters of a summary; what a person must do can be long.
const SUMMARY: usize = 1_000;
/// Alertmanager takes an alert for over that it did not hear of for so many repetitions.
const GONE_AFTER: u32 = 4;

/// So many alerts are in one message; a storm of them helps nobody. Slack cuts a message of more than
/// 40,000 characters.
pub(super) fn most(kind: WebhookKind) -> usize {
    match kind {
        WebhookKind::Slack => 30,
        WebhookKind::Json | WebhookKind::Alertmanager => 200,
    }
}

/// Everything that is said at once.
#[derive(Debug, Clone, PartialEq)]
pub struct Notice {
    pub items: Vec<Item>,
    /// So many more there are; the next message has them.
    pub left_out: usize,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Item {
    pub status: Status,
    pub what: What,
}

impl Item {
    /// Less is more urgent: what is new, then what is over, then what is known; of each the critical
    /// first.
    pub(super) fn urgency(&self) -> (Status, std::cmp::Reverse<Severity>) {
        (self.status, std::cmp::Reverse(self.what.facts().severity))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Status {
    /// It is new to the receiver.
    Fired,
    Resolved,
    /// It is known there, and fires still.
    Firing,
}

impl Status {
    fn name(self) -> &'static str {
        match self {
            Self::Fired => "fired",
            Self::Firing => "firing",
            Self::Resolved => "resolved",
        }
    }
}

#[derive(Debug, Clone, PartialEq)]
pub enum What {
    Alert(Alert),
    /// Somebody wants to know whether it arrives.
    Test {
        at: UnixMs,
    },
}

impl Notice {
    /// One that says that nothing is wrong.
    #[must_use]
    pub fn test(at: UnixMs) -> Self {
        Self { items: vec![Item { status: Status::Fired, what: What::Test { at } }], left_out: 0 }
    }

    fn count(&self, wanted: impl Fn(Status) -> bool) -> usize {
        self.items.iter().filter(|item| wanted(item.status)).count()
    }
}

/// `2 fired, 1 firing, 3 resolved`
impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let statuses = [Status::Fired, Status::Firing, Status::Resolved];
        let counts = statuses.map(|each| (self.count(|status| status == each), each.name()));
        let said = counts.iter().filter(|(count, _)| *count > 0);
        let words: Vec<String> = said.map(|(count, name)| format!("{count} {name}")).collect();
        f.write_str(&words.join(", "))
    }
}

/// What is said of one thing, whatever the format.
struct Facts<'a> {
    id: &'static str,
    of: Option<&'a str>,
    severity: Severity,
    since: UnixMs,
    summary: String,
    remedy: &'static str,
    runbook: Option<&'a str>,
}

impl What {
    fn facts(&self) -> Facts<'_> {
        match self {
            Self::Alert(alert) => Facts {
                id: alert.id.name(),
                of: alert.of.as_deref(),
                severity: alert.id.severity(),
                since: alert.since,
                summary: alert.summary.chars().take(SUMMARY).collect(),
                remedy: alert.id.remedy(),
                runbook: Some(&alert.runbook),
            },
            Self::Test { at } => Facts {
                id: "test",
                of: None,
                severity: Severity::Warning,
                since: *at,
                summary: "this is a test: notices of alerts arrive here".to_owned(),
                remedy: "nothing is to be done",
                runbook: None,
            },
        }
    }
}

/// The body of a request.
#[must_use]
pub fn body(notice: &Notice, config: &Webhook, instance: &str, now: UnixMs) -> Vec<u8> {
    let body = match config.kind {
        WebhookKind::Json => plain(notice, instance, now),
        WebhookKind::Slack => slack(notice, instance),
        WebhookKind::Alertmanager => {
            let until = config.repeat_every.saturating_mul(GONE_AFTER);
            alertmanager(notice, instance, now, until)
        }
    };
    body.to_string().into_bytes()
}

fn plain(notice: &Notice, instance: &str, now: UnixMs) -> Value {
    let alerts = notice.items.iter().map(|item| {
        let Facts { id, of, severity, since, summary, remedy, runbook } = item.what.facts();
        json!({
            "status": item.status.name(), "id": id, "of": of, "severity": severity,
            "since": rfc3339(since), "summary": summary, "remedy": remedy, "runbook": runbook,
        })
    });
    let firing = notice.count(|status| status != Status::Resolved);
    json!({
        "version": 1,
        "service": Identity::SERVICE,
        "instance": instance,
        "sent_at": rfc3339(now),
        // Of what is left out nobody knows here: the last message says that all is over.
        "status": if firing + notice.left_out > 0 { "firing" } else { "resolved" },
        "alerts": alerts.collect::<Vec<_>>(),
        "left_out": notice.left_out,
    })
}

fn slack(notice: &Notice, instance: &str) -> Value {
    let mut lines = vec![format!("*{} {}*: {notice}", Identity::SERVICE, escaped(instance))];
    for item in &notice.items {
        let Facts { severity, summary, remedy, runbook, .. } = item.what.facts();
        let summary = escaped(&summary);
        if item.status == Status::Resolved {
            lines.push(format!(":white_check_mark: resolved; it was: {summary}"));
            continue;
        }
        let (mark, word) = match severity {
            Severity::Critical => (":red_circle:", "CRITICAL"),
            Severity::Warning => (":large_orange_circle:", "WARNING"),
        };
        // Only an address can be followed from there.
        let runbook = runbook.filter(|runbook| runbook.contains("://"));
        let link = runbook.map_or(String::new(), |runbook| format!(" (<{runbook}|runbook>)"));
        lines.push(format!("{mark} *{word}* {summary}\n> {}{link}", escaped(remedy)));
    }
    if notice.left_out > 0 {
        lines.push(format!("and {} more, in the next message", notice.left_out));
    }
    json!({ "text": lines.join("\n") })
}

/// These three mean something to Slack.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// Names and labels as those of the rules in deploy/prometheus/alerts.yml.
fn alertmanager(notice: &Notice, instance: &str, now: UnixMs, until: Duration) -> Value {
    let until = i64::try_from(until.as_millis()).unwrap_or(i64::MAX);
    let alerts = notice.items.iter().map(|item| {
        let Facts { id, of, severity, since, summary, remedy, runbook } = item.what.facts();
        let words = id.split('_').map(|word| word[..1].to_uppercase() + &word[1..]);
        let mut labels = json!({
            "alertname": format!("DataBridge{}", words.collect::<String>()),
            "id": id, "severity": severity, "job": Identity::SERVICE, "instance": instance,
        });
        if let Some(of) = of {
            labels["of"] = of.into();
        }
        let mut annotations = json!({ "summary": summary, "remedy": remedy });
        if let Some(runbook) = runbook {
            annotations["runbook"] = runbook.into();
        }
        let ends = match item.status {
            Status::Resolved => now,
            Status::Fired | Status::Firing => now.saturating_add(until),
        };
        json!({
            "labels": labels, "annotations": annotations,
            "startsAt": rfc3339(since), "endsAt": rfc3339(ends),
        })
    });
    Value::Array(alerts.collect())
}
