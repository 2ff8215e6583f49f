//! Who is told, and who is refused.

use super::*;
use crate::status::SourceStatus;

#[test]
fn a_receiver_that_refuses_and_publishers_that_are_refused_are_seen() {
    let busy = |snapshot: &mut Snapshot| {
        let live = SourceStatus {
            connected: true,
            refused_requests: Some(12),
            ..busy().sources["nats"].clone()
        };
        snapshot.sources.insert("live".to_owned(), live);
    };
    let mut known = known(busy, &[]);
    let mut now = known.now.take().unwrap();
    let receiver = |name: &str, state: &str, reason: Option<&str>| told::Webhook {
        name: name.to_owned(),
        kind: "slack".to_owned(),
        to: "https://hooks.example".to_owned(),
        state: state.to_owned(),
        since: Some("2026-01-01T10:30:15.123Z".to_owned()),
        reason: reason.map(str::to_owned),
        sent: 3,
        failed: 4,
    };
    now.health.webhooks = vec![
        receiver("desk", "delivered", None),
        receiver("oncall", "refused", Some("404 Not Found")),
    ];
    known.now = Some(now);
    shows(&known, Page::Overview, &["!!Not told: oncall (page 4)"]);
    let page = drawn(&known, Page::Alerts, LARGE);
    for text in [
        "  desk (slack)",
        "delivered since 10:30:15",
        "!!oncall (slack)",
        "refused since 10:30:15: 404 Not Found",
    ] {
        assert!(page.contains(text), "{text}\n{page}");
    }
    assert!(drawn(&known, Page::Flow, LARGE).contains("12 requests were refused"));
}
