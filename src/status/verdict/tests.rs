//! Each state has its word, and the most urgent one is said.

use super::*;
use crate::status::samples::busy;
use crate::status::{EndpointStatus, RouteState};

fn said(change: impl FnOnce(&mut Snapshot)) -> Verdict {
    let mut snapshot = busy();
    change(&mut snapshot);
    snapshot.verdict(Instant::now())
}

fn pause(snapshot: &mut Snapshot) {
    snapshot.backpressure.active = true;
    snapshot.backpressure.causes = vec!["level"];
    snapshot.backpressure.current_buffer = 41_234;
}

#[test]
fn each_state_has_its_word_and_its_entry() {
    let word = |change: fn(&mut Snapshot)| {
        let verdict = said(change);
        (verdict.word, verdict.runbook)
    };
    assert_eq!(word(|_| ()), ("Healthy", None));
    assert_eq!(word(|s| s.stage = RunStage::Starting), ("Starting", None));
    assert_eq!(word(|s| s.stage = RunStage::Draining), ("Draining", None));
    let ended = |s: &mut Snapshot| {
        s.stage = RunStage::Draining;
        s.source_ended = Some("kafka");
    };
    assert_eq!(word(ended), ("Draining", Some("source_ended")));
    let ended = said(ended);
    assert!(ended.why.starts_with("The source kafka ended by itself"), "{ended:?}");
    assert_eq!(word(|s| s.overdue = Some("a timer".into())), ("Stuck", Some("wedged")));
    let person = word(|s| s.needs_person.push("table ticks: create it".into()));
    assert_eq!(person, ("Needs a person", Some("needs_person")));
    let open = word(|s| s.breaker.state = BreakerState::Open);
    assert_eq!(open, ("ClickHouse unavailable", Some("breaker_open")));
    assert_eq!(word(pause), ("Paused", Some("paused")));
    let long = word(|s| {
        pause(s);
        s.backpressure.critical = true;
    });
    assert_eq!(long, ("Paused", Some("paused_long")));
    let away = word(|s| s.endpoints.push(EndpointStatus::default()));
    assert_eq!(away, ("ClickHouse server away", Some("server_away")));
    let alone = word(|s| s.sources.get_mut("kafka").unwrap().connected = false);
    assert_eq!(alone, ("Source away", Some("source_disconnected")));
    let retrying = word(|s| {
        s.routes.get_mut("candles").unwrap().state = RouteState::Retrying("timed out".into());
    });
    assert_eq!(retrying, ("Retrying", None));
    let empty = word(|s| s.sources.values_mut().for_each(|source| source.received = 0));
    assert_eq!(empty, ("Waiting", None));
}

#[test]
fn the_most_urgent_is_said_first() {
    let all = said(|s| {
        pause(s);
        s.breaker.state = BreakerState::Open;
        s.needs_person = vec!["a wrong password".into(), "a missing table".into()];
    });
    assert_eq!(all.word, "Needs a person");
    assert_eq!(all.why, "A wrong password. And 1 more, below.");
    assert_eq!(all.condition, Condition::Critical);
    let open = said(|s| {
        pause(s);
        s.breaker.state = BreakerState::Open;
        s.breaker.failures = 10;
        s.breaker.reason = Some("connection refused".into());
    });
    assert!(open.why.starts_with("10 inserts in a row failed: connection refused. 41,234 records"));
    assert_eq!(open.condition, Condition::Degraded);
}

#[test]
fn without_clickhouse_it_says_what_becomes_of_core_nats() {
    let open = |nats: fn(&mut Snapshot)| {
        let open = said(|s| {
            s.breaker.state = BreakerState::Open;
            nats(s);
        });
        open.why
    };
    assert!(open(|_| ()).ends_with("JetStream wait. Core NATS is taken up to 40,000."));
    let paused = open(|s| s.sources.get_mut("nats").unwrap().paused = true);
    assert!(paused.ends_with("JetStream wait. Core NATS loses what comes, counted."), "{paused}");
    let none = open(|s| drop(s.sources.remove("nats")));
    assert!(none.ends_with("JetStream wait."), "{none}");
}

#[test]
fn a_pause_says_how_full_and_what_is_lost() {
    let paused = said(pause);
    assert_eq!(
        paused.why,
        "More came than ClickHouse took: 41,234 of at most 50,000 records are held."
    );
    assert!(!paused.remedy.unwrap().contains("NATS"));
    let with_nats = said(|s| {
        pause(s);
        s.sources.get_mut("nats").unwrap().paused = true;
    });
    assert!(with_nats.remedy.unwrap().ends_with("core NATS loses what comes, counted."));
}
