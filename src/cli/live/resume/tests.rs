//! What is shown after connections that were lost, and what is not.

use serde_json::json;

use super::*;

/// Subscribed to these, each from this time of the bridge on.
fn watching(topics: &[(&str, &str)]) -> Resume {
    let mut resume = Resume::default();
    for (request, (topic, from)) in (1..).zip(topics) {
        resume.asked_for(topic, json!({ "last_n": 0 }), request);
        resume.acknowledged(request, from);
    }
    resume
}

/// Another connection, on which the bridge has all of it since then.
fn reconnected(resume: &mut Resume, since: &str) {
    resume.reconnected();
    for (request, (topic, ask)) in (100..).zip(resume.all()) {
        assert_eq!(ask["last_n"], REMEMBERED);
        resume.asked_again(&topic, request, false);
        resume.acknowledged(request, since);
    }
}

#[test]
fn after_a_reconnection_only_what_is_new_is_shown() {
    let mut resume = watching(&[("t", "10:00")]);
    assert!(resume.is_new("t", "a", "10:01") && resume.is_new("t", "b", "10:02"));
    assert!(resume.is_new("t", "e", "10:05"));
    reconnected(&mut resume, "10:05");
    assert!(!resume.is_new("t", "e", "10:05"), "in the millisecond of both connections");
    assert!(!resume.is_new("t", "z", "09:59"), "it was there before anybody watched");
    assert!(!resume.is_new("t", "y", "10:00"), "written when somebody began to watch");
    assert!(!resume.is_new("t", "a", "10:01") && !resume.is_new("t", "b", "10:02"));
    assert!(resume.is_new("t", "c", "10:02"), "in the same millisecond, and missed");
    assert!(resume.is_new("t", "d", "10:03") && !resume.is_new("t", "d", "10:03"));
}

/// A replay for a pattern is topic by topic; several subscriptions take turns.
#[test]
fn what_one_topic_showed_says_nothing_of_another() {
    let mut resume = watching(&[("candles/*", "10:00"), ("desk", "10:00")]);
    assert!(resume.is_new("candles/a", "1", "10:01") && resume.is_new("desk", "1", "10:01"));
    reconnected(&mut resume, "10:09");
    assert!(!resume.is_new("candles/a", "1", "10:01") && resume.is_new("candles/a", "2", "10:08"));
    assert!(resume.is_new("candles/b", "1", "10:02"), "older than what came of a, and missed");
    assert!(resume.is_new("desk", "2", "10:03"));
    assert!(!resume.is_new("candles/c", "0", "09:30"), "from before anybody watched");
}

#[test]
fn what_comes_live_after_a_reconnection_is_shown_whatever_its_order() {
    let mut resume = watching(&[("t", "10:00")]);
    reconnected(&mut resume, "10:05");
    for (id, ts) in [("a", "10:06"), ("b", "10:08"), ("c", "10:07"), ("a", "10:09")] {
        assert!(resume.is_new("t", id, ts), "{id}");
    }
}

#[test]
fn on_one_connection_a_record_that_comes_again_is_shown_again() {
    let mut resume = watching(&[("t", "10:00")]);
    assert!(resume.is_new("t", "a", "10:01") && resume.is_new("t", "a", "10:01"));
}

#[test]
fn what_somebody_asks_for_is_shown_again() {
    let mut resume = watching(&[("t", "10:00")]);
    assert!(resume.is_new("t", "a", "10:01"));
    reconnected(&mut resume, "10:05");
    resume.forget("t");
    resume.asked_for("t", json!({ "last_n": 5 }), 9);
    assert_eq!(resume.all()[0].1["last_n"], 5);
    resume.acknowledged(9, "10:06");
    assert!(resume.is_new("t", "a", "10:01"));
}

#[test]
fn a_topic_that_was_there_is_waited_for_and_one_that_never_was_is_not() {
    let mut resume = watching(&[("t", "10:00")]);
    resume.asked_for("typo", json!({}), 7);
    assert_eq!(resume.not_found(7), None);
    assert!(!resume.is_subscribed("typo"));
    resume.reconnected();
    resume.asked_again("t", 11, false);
    assert!(resume.missing().is_empty(), "nobody has answered");
    assert_eq!(resume.not_found(11), Some(("t".to_owned(), true)));
    assert_eq!(resume.missing().len(), 1);
    resume.asked_again("t", 12, true);
    assert_eq!(resume.not_found(12), Some(("t".to_owned(), false)), "that was told");
    resume.asked_again("t", 13, true);
    resume.acknowledged(13, "10:09");
    assert!(resume.missing().is_empty());
    assert!(resume.is_new("t", "a", "10:08"), "its first record, before it was asked for again");
}

#[test]
fn what_is_remembered_is_bounded_and_nothing_of_one_moment_comes_twice() {
    let mut resume = watching(&[("*", "09:00")]);
    for n in 0..REMEMBERED {
        assert!(resume.is_new("t", &n.to_string(), "10:00"));
    }
    assert!(resume.is_new("t", "later", "10:01"));
    assert_eq!(resume.seen["t"].recent.len(), RECENT);
    reconnected(&mut resume, "11:00");
    assert!((0..REMEMBERED).all(|n| !resume.is_new("t", &n.to_string(), "10:00")));
    for n in 0..3 * REMEMBERED {
        resume.is_new("t", &format!("of one moment {n}"), "10:02");
    }
    assert_eq!(resume.seen["t"].recent.len(), REMEMBERED);
    assert!(resume.is_new("t", "missed", "10:02"), "in that moment");
    for n in 0..TOPICS {
        resume.is_new(&n.to_string(), "a", "10:03");
    }
    assert_eq!(resume.seen.len(), TOPICS);
    assert!(!resume.seen.contains_key("t"), "it was silent for the longest time");
}
