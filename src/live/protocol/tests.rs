//! Messages read and written: what comes back is what was said.

use serde_json::{Value, json};

use super::*;

const TS: &str = "2026-01-01T10:30:15.123Z";
const ID: &str = "6f2c1f0e-8f6c-4b9e-9a53-0d6a3c1b2a77";

fn json(text: &Text) -> Value {
    serde_json::from_slice(text.bytes()).unwrap()
}

#[test]
fn a_subscription_is_read_with_all_it_may_say() {
    let text = r#"{"type":"subscribe","request_id":"r1","topic":"a/*","last_n":7,
        "client_id":"desk \"1\"","queue_size":50,"policy":"disconnect","unknown":1}"#;
    let (id, ask) = parse(text);
    assert_eq!(id.unwrap().get(), "\"r1\"");
    let Ok(Ask::Subscribe(subscribe)) = ask else { panic!("{ask:?}") };
    assert_eq!((&*subscribe.topic, subscribe.last_n), ("a/*", 7));
    assert_eq!(subscribe.client_id.unwrap(), "desk \"1\"");
    assert_eq!((subscribe.queue_size, subscribe.policy), (Some(50), Some(Strategy::Disconnect)));
}

#[test]
fn a_message_to_publish_keeps_its_payload_to_the_letter() {
    let text = format!(
        r#"{{"type":"publish","topic":"t","message":{{"id":"{ID}","payload":{{"p":1.0850000000000000001}}}}}}"#
    );
    let (id, ask) = parse(&text);
    let Ok(Ask::Publish(publish)) = ask else { panic!("{ask:?}") };
    assert!(id.is_none());
    assert_eq!(publish.payload.get(), r#"{"p":1.0850000000000000001}"#);
    let event = event("t", publish.id, publish.payload.get(), TS);
    let expected = json!({ "type": "event", "topic": "t", "message": { "id": ID, "payload": null }, "ts": TS });
    let mut found = json(&event);
    assert_eq!(found["message"]["payload"].take()["p"].to_string(), "1.0850000000000000001");
    assert_eq!(found, expected);
}

#[test]
fn what_is_wrong_is_said_and_what_the_request_was_called() {
    for (text, said) in [
        (r#"{"type":"subscribe","request_id":5}"#, "topic is missing"),
        (r#"{"type":"fly","request_id":5}"#, "no such type: fly"),
        (r#"{"request_id":5}"#, "type"),
        (r#"{"type":"publish","topic":"t","request_id":5}"#, "message is missing"),
        (
            r#"{"type":"publish","topic":"t","message":{"id":"x","payload":1},"request_id":5}"#,
            "UUID",
        ),
        (r#"{"type":"subscribe","topic":"t","last_n":-1,"request_id":5}"#, "invalid value"),
        (r#"{"type":"subscribe","topic":"t","policy":"block","request_id":5}"#, "drop_newest"),
    ] {
        let (id, ask) = parse(text);
        assert_eq!(id.map(RawValue::get), Some("5"), "{text}");
        let problem = ask.unwrap_err();
        assert_eq!(problem.code, Code::BadRequest);
        assert!(problem.message.contains(said), "{}", problem.message);
        let told = json(&error(id, &problem, TS));
        assert_eq!(
            (&told["request_id"], &told["error"]["code"]),
            (&json!(5), &json!("BAD_REQUEST"))
        );
        assert_eq!((&told["type"], &told["ts"]), (&json!("error"), &json!(TS)));
    }
}

#[test]
fn what_is_said_of_a_message_is_not_as_long_as_the_message() {
    let text = format!(r#"{{"type":"subscribe","topic":"t","last_n":"{}"}}"#, "é".repeat(30_000));
    let problem = parse(&text).1.unwrap_err();
    assert!(problem.message.len() < 500, "{}", problem.message.len());
    assert!(problem.message.ends_with('…'));
}

#[test]
fn a_client_is_called_by_what_can_stand_in_a_line() {
    assert_eq!(check_client_id("desk 1"), Ok(()));
    for id in ["", "a\nb", "\u{7f}", &"x".repeat(200)] {
        assert!(check_client_id(id).is_err(), "{id:?}");
    }
}

#[test]
fn a_request_id_is_a_short_text_or_number() {
    let long = format!(r#"{{"type":"ping","request_id":"{}"}}"#, "x".repeat(200));
    for text in
        [r#"{"type":"ping","request_id":{"a":1}}"#, r#"{"type":"ping","request_id":[]}"#, &long]
    {
        let (id, ask) = parse(text);
        assert!(id.is_none() && ask.unwrap_err().message.contains("request_id"), "{text}");
    }
    let (id, ask) = parse(r#"{"type":"ping","request_id":1e3}"#);
    assert!(matches!(ask, Ok(Ask::Ping)));
    assert_eq!(
        pong(id, TS),
        Text::from(format!(r#"{{"type":"pong","request_id":1e3,"ts":"{TS}"}}"#))
    );
}

#[test]
fn what_is_told_unasked_has_its_event() {
    let dropped = info(Info::Dropped { topic: "a\"b", count: 12 }, TS);
    let expected =
        json!({ "type": "info", "event": "dropped", "topic": "a\"b", "dropped": 12, "ts": TS });
    assert_eq!(json(&dropped), expected);
    assert_eq!(json(&info(Info::Shutdown, TS))["event"], "shutdown");
    assert_eq!(json(&info(Info::TopicDeleted("x"), TS))["topic"], "x");
    let ack = ack(None, "t", r#","replayed":3"#, TS);
    assert_eq!(json(&ack), json!({ "type": "ack", "topic": "t", "replayed": 3, "ts": TS }));
}

#[test]
fn a_time_has_its_milliseconds_and_a_z() {
    let time = "2026-01-01T10:30:15.120999Z".parse().unwrap();
    assert_eq!(timestamp(time), "2026-01-01T10:30:15.120Z");
}
