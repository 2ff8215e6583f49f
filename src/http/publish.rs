//! `POST /topics/{name}/messages`: records handed to the bridge itself, one as JSON or many as
//! NDJSON; to a topic of a user, messages for those who are subscribed. The answer is made of what
//! became of them; a 2xx is given only if all of them are as far as was asked for, so that whoever
//! looks at nothing else is not misled.

use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{HttpState, body, live, problem};
use crate::live::{Owner, Published};
use crate::source::live::{Ack, Refusal, Until};

pub(super) const MESSAGES: &str = "/topics/{name}/messages";

/// For the body to arrive.
const BODY_WITHIN: Duration = Duration::from_secs(10);

/// Whether this is the path of a topic's messages.
pub(super) fn is_messages(path: &str) -> bool {
    let name = path.strip_prefix("/topics/").and_then(|rest| rest.strip_suffix("/messages"));
    name.is_some_and(|name| !name.contains('/'))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Asked {
    /// Answer when they are durable, not when they are held.
    #[serde(default)]
    durable: bool,
}

/// One payload, or one on each line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    One,
    Lines,
}

pub(super) async fn publish(
    State(state): State<HttpState>,
    Path(topic): Path<String>,
    asked: Result<Query<Asked>, QueryRejection>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let Ok(Query(Asked { durable })) = asked else {
        let detail = "the query may only be `durable=true` or `durable=false`";
        return problem(StatusCode::BAD_REQUEST, detail);
    };
    let Some(shape) = shape(&headers) else {
        let detail = "send `Content-Type: application/json` for one message, or \
                      `application/x-ndjson` for one on each line";
        return problem(StatusCode::UNSUPPORTED_MEDIA_TYPE, detail);
    };
    if let Err(closed) = live::from_known_page(&state, &headers) {
        return closed.into_response();
    }
    if state.live.owner(&topic) == Some(Owner::User) {
        return match live::may_see(&state, &headers) {
            Ok(()) => fan_out(&state, &topic, durable, shape, body).await,
            Err(closed) => closed.into_response(),
        };
    }
    if !state.may_publish {
        let detail = "nobody may publish to a route here: set http.token or http.token_file, and \
                      restart the bridge";
        return problem(StatusCode::FORBIDDEN, detail);
    }
    let until = if durable { Until::Durable } else { Until::Admitted };
    let limits = state.publisher.limits();
    let bytes = body::announced(&headers).unwrap_or(limits.max_request_bytes);
    let entry = match state.publisher.enter(&topic, until, bytes).await {
        Ok(entry) => entry,
        Err(refusal) => return refused(refusal),
    };
    // One more shows that they are too many.
    let most = Most {
        bytes: limits.max_request_bytes,
        key: "live.publish.max_request_bytes",
        messages: limits.max_request_records + 1,
    };
    let (numbers, records) = match messages(body, shape, most).await {
        Ok(messages) => messages,
        Err(refusal) => return refusal,
    };
    match entry.publish(records).await {
        Ok(ack) => answer(&topic, &ack, until, &numbers),
        Err(refusal) => refused(refusal),
    }
}

/// To those who are subscribed now, and nowhere else.
async fn fan_out(
    state: &HttpState,
    topic: &str,
    durable: bool,
    shape: Shape,
    body: Body,
) -> Response {
    if durable {
        let detail = "this topic is in memory: nothing of it is ever durable";
        return problem(StatusCode::BAD_REQUEST, detail);
    }
    let bytes = state.live.settings().max_message;
    let most = Most { bytes, key: "live.max_message", messages: bytes };
    let payloads = match messages(body, shape, most).await {
        Ok((_, payloads)) => payloads,
        Err(refusal) => return refusal,
    };
    match state.live.publish_all(topic, &payloads) {
        Ok(Published { subscribers, .. }) => Json(json!({
            "topic": topic,
            "accepted": payloads.len(),
            "durable": false,
            "subscribers": subscribers,
        }))
        .into_response(),
        Err(gone) => problem(StatusCode::NOT_FOUND, &gone.message),
    }
}

/// What is taken of a body.
struct Most {
    bytes: usize,
    /// What says so.
    key: &'static str,
    /// Those behind are not looked at.
    messages: usize,
}

/// The numbers of the lines that hold a payload, and the payloads; else what to answer.
async fn messages(
    body: Body,
    shape: Shape,
    most: Most,
) -> Result<(Vec<usize>, Vec<Bytes>), Response> {
    let Most { bytes, key, messages } = most;
    let body = tokio::time::timeout(BODY_WITHIN, axum::body::to_bytes(body, bytes)).await;
    let body = match body {
        Ok(Ok(body)) => body,
        Ok(Err(_)) => {
            let detail = format!("the body is larger than {key}, or ended early");
            return Err(problem(StatusCode::PAYLOAD_TOO_LARGE, &detail));
        }
        Err(_) => {
            return Err(problem(StatusCode::REQUEST_TIMEOUT, "the body did not come in time"));
        }
    };
    let (numbers, payloads): (Vec<usize>, Vec<Bytes>) = lines(&body, shape).take(messages).unzip();
    if payloads.is_empty() {
        return Err(problem(StatusCode::BAD_REQUEST, "the body holds no message"));
    }
    Ok((numbers, payloads))
}

/// What the body is. A browser sends neither type to another site without asking first, so no page
/// can publish behind the back of whoever looks at it.
fn shape(headers: &HeaderMap) -> Option<Shape> {
    let media_type = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
    match media_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase().as_str() {
        "application/json" => Some(Shape::One),
        "application/x-ndjson" | "application/ndjson" | "application/jsonl" => Some(Shape::Lines),
        _ => None,
    }
}

/// The payloads, each with the number of its line, from 1; empty lines are none.
fn lines(body: &Bytes, shape: Shape) -> impl Iterator<Item = (usize, Bytes)> {
    let ends = move |byte: &u8| shape == Shape::Lines && *byte == b'\n';
    let payloads = body.split(ends).map(|line| body.slice_ref(line.trim_ascii()));
    (1..).zip(payloads).filter(|(_, payload)| !payload.is_empty())
}

/// How the request went, worst first.
fn verdict(ack: &Ack, until: Until) -> (StatusCode, Option<&'static str>) {
    let pending = match until {
        Until::Admitted => ack.taken - ack.became.decided(),
        Until::Durable => ack.pending(),
    };
    if ack.ended && pending > 0 {
        let detail = "the bridge gave up what is pending when it stopped: publish it again";
        (StatusCode::SERVICE_UNAVAILABLE, Some(detail))
    } else if pending > 0 {
        let detail = "what is pending is not durable yet, and still under way: published again, it \
                      may be stored twice";
        (StatusCode::GATEWAY_TIMEOUT, Some(detail))
    } else if ack.became.dropped > 0 {
        let detail = "the overload policy of the route let some go: these are not stored";
        (StatusCode::TOO_MANY_REQUESTS, Some(detail))
    } else if ack.became.filtered > 0 {
        (StatusCode::NOT_FOUND, Some("the route is gone: some were counted, and are not stored"))
    } else if ack.taken < ack.offered {
        let detail = "there was no room for more: go on from next_line";
        (StatusCode::TOO_MANY_REQUESTS, Some(detail))
    } else if until == Until::Durable {
        (StatusCode::OK, None)
    } else {
        (StatusCode::ACCEPTED, None)
    }
}

fn answer(topic: &str, ack: &Ack, until: Until, numbers: &[usize]) -> Response {
    let (status, detail) = verdict(ack, until);
    let became = ack.became;
    let mut body = Map::new();
    body.insert("topic".to_owned(), topic.into());
    body.insert("offered".to_owned(), ack.offered.into());
    body.insert("accepted".to_owned(), (ack.taken - became.dropped - became.filtered).into());
    body.insert("durable".to_owned(), ack.is_durable().into());
    let counts = [
        ("inserted", became.inserted),
        ("dead_lettered", became.dead_lettered),
        ("dropped", became.dropped),
        ("pending", ack.pending()),
    ];
    body.extend(counts.map(|(name, count)| (name.to_owned(), count.into())));
    if let Some(next) = numbers.get(ack.taken) {
        body.insert("next_line".to_owned(), (*next).into());
    }
    if let Some(detail) = detail {
        body.insert("error".to_owned(), status.canonical_reason().into());
        body.insert("detail".to_owned(), detail.into());
    }
    let response = (status, Json(Value::Object(body))).into_response();
    let again =
        status == StatusCode::TOO_MANY_REQUESTS || status == StatusCode::SERVICE_UNAVAILABLE;
    let after = ack.retry_after.unwrap_or(Duration::from_secs(1));
    if again { with_retry(response, after) } else { response }
}

fn refused(refusal: Refusal) -> Response {
    match refusal {
        Refusal::NoSuchTopic => {
            let detail = "no topic of this name takes messages: a route of this name needs \
                          publish = true";
            problem(StatusCode::NOT_FOUND, detail)
        }
        Refusal::TooManyRecords { most } => {
            let detail = format!("at most {most} messages a request; send the rest with another");
            problem(StatusCode::PAYLOAD_TOO_LARGE, &detail)
        }
        Refusal::Busy { retry_after } => {
            let detail = "the bridge has no room for this now, and took nothing of it";
            with_retry(problem(StatusCode::TOO_MANY_REQUESTS, detail), retry_after)
        }
        Refusal::NotRunning { retry_after } => {
            let detail = "the bridge starts or stops, and took nothing of this";
            with_retry(problem(StatusCode::SERVICE_UNAVAILABLE, detail), retry_after)
        }
    }
}

/// Whole seconds, rounded up.
fn with_retry(mut response: Response, after: Duration) -> Response {
    let seconds = after.as_secs() + u64::from(after.subsec_nanos() > 0);
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds.max(1)));
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::live::Tally;

    fn ack(taken: usize, became: Tally) -> Ack {
        Ack { offered: 10, taken, became, retry_after: None, ended: false }
    }

    fn tally(admitted: usize, inserted: usize, dead_lettered: usize, dropped: usize) -> Tally {
        Tally { admitted, inserted, dead_lettered, dropped, filtered: 0 }
    }

    #[test]
    fn a_2xx_says_no_more_than_what_is_so() {
        use Until::{Admitted, Durable};
        let code = |ack: &Ack, until| verdict(ack, until).0.as_u16();
        assert_eq!(code(&ack(10, tally(10, 0, 0, 0)), Admitted), 202);
        assert_eq!(code(&ack(10, tally(10, 9, 1, 0)), Durable), 200, "a dead letter is durable");
        assert_eq!(code(&ack(10, tally(10, 9, 0, 0)), Durable), 504, "one is not heard of yet");
        assert_eq!(code(&ack(10, tally(9, 9, 0, 0)), Admitted), 504, "nor is this one");
        assert_eq!(code(&ack(10, tally(9, 9, 0, 1)), Durable), 429, "one was dropped");
        assert_eq!(code(&ack(10, tally(9, 0, 0, 1)), Admitted), 429);
        assert_eq!(code(&ack(9, tally(9, 9, 0, 0)), Durable), 429, "one was refused");
        let gone = Ack { ended: true, ..ack(10, tally(10, 9, 0, 0)) };
        assert_eq!(code(&gone, Durable), 503);
        assert_eq!(code(&Ack { ended: true, ..ack(10, tally(10, 10, 0, 0)) }, Durable), 200);
    }

    #[test]
    fn a_line_keeps_its_number_and_an_empty_one_is_no_message() {
        let body = Bytes::from_static(b"{\"a\":1}\r\n\n  \n[2]\n");
        let found: Vec<(usize, Bytes)> = lines(&body, Shape::Lines).collect();
        let texts: Vec<_> = found.iter().map(|(line, text)| (*line, text.as_ref())).collect();
        assert_eq!(texts, [(1, &b"{\"a\":1}"[..]), (4, b"[2]")]);
        assert_eq!(lines(&body, Shape::One).count(), 1, "one message may have many lines");
        assert_eq!(lines(&Bytes::from_static(b" \n"), Shape::One).count(), 0);
    }

    #[test]
    fn only_a_type_that_browsers_ask_about_first_is_taken() {
        let of = |text: &'static str| {
            let headers = [(header::CONTENT_TYPE, HeaderValue::from_static(text))];
            shape(&headers.into_iter().collect())
        };
        assert_eq!(of("application/json; charset=utf-8"), Some(Shape::One));
        assert_eq!(of("Application/X-NDJSON"), Some(Shape::Lines));
        for other in ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data"] {
            assert_eq!(of(other), None, "{other}");
        }
        assert_eq!(shape(&HeaderMap::new()), None);
    }

    #[test]
    fn the_path_of_messages_is_that_of_one_topic() {
        assert!(is_messages("/topics/candles/messages"));
        for other in
            ["/topics/messages", "/topics/a/b/messages", "/topics/a/messages/", "/messages"]
        {
            assert!(!is_messages(other), "{other}");
        }
    }

    #[test]
    fn retry_after_is_in_whole_seconds_and_never_none() {
        for (after, said) in [(0, "1"), (1, "1"), (1_000, "1"), (1_001, "2"), (5_000, "5")] {
            let response = with_retry("".into_response(), Duration::from_millis(after));
            assert_eq!(response.headers()[header::RETRY_AFTER], said, "{after} ms");
        }
    }
}
