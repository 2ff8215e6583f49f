//! What a browser shows to pages from elsewhere.

use super::*;

/// One origin.
pub(super) const ALLOWING: &str = "allowed_origins = ['https://desk.example.com']";

const DESK: &str = "https://desk.example.com";
const EVIL: &str = "https://evil.example.com";

async fn ask(bridge: &Running, method: &str, path: &str, origin: &str, more: &str) -> Answer {
    let head = format!("host: localhost\r\nconnection: close\r\norigin: {origin}\r\n{more}");
    bridge.ask(&format!("{method} {path} HTTP/1.1\r\n{head}\r\n")).await
}

/// Whom the answer may be shown to.
fn shown(answer: &Answer) -> Option<&str> {
    answer.head.lines().find_map(|line| line.strip_prefix("access-control-allow-origin: "))
}

#[tokio::test]
async fn a_page_of_an_allowed_origin_reads_the_feed_and_no_other_does() {
    let bridge = Running::plain().await;
    for path in ["/topics", "/stats", "/subscriber-stats"] {
        let answer = ask(&bridge, "GET", path, DESK, "").await;
        assert_eq!((answer.code, shown(&answer)), (200, Some(DESK)), "{path}");
        assert!(answer.head.contains("vary: origin"), "{}", answer.head);
        let answer = ask(&bridge, "GET", path, EVIL, "").await;
        assert_eq!((answer.code, shown(&answer)), (403, None), "{path}");
        assert!(answer.head.contains("vary: origin"), "{}", answer.head);
    }
    let nothing = ask(&bridge, "GET", "/topics/nothing/events", DESK, "").await;
    assert_eq!((nothing.code, shown(&nothing)), (404, Some(DESK)), "it sees why");
    for path in ["/health", "/metrics", "/", "/admin/config", "/topicsandmore"] {
        assert_eq!(shown(&ask(&bridge, "GET", path, DESK, "").await), None, "{path}");
    }
}

#[tokio::test]
async fn a_browser_asks_without_the_token_and_sends_it_then() {
    const ASKS: &str = "access-control-request-method: POST\r\naccess-control-request-headers: \
                        authorization,content-type\r\n";
    let bridge = Running::start(Limits::default(), Some("s3cret")).await;
    let messages = "/topics/candles/messages";
    let answer = ask(&bridge, "OPTIONS", messages, DESK, ASKS).await;
    assert_eq!((answer.code, shown(&answer)), (204, Some(DESK)));
    for line in [
        "access-control-allow-methods: get, post, delete",
        "access-control-allow-headers: authorization, content-type",
        "access-control-max-age: 600",
    ] {
        assert!(answer.head.contains(line), "{line}: {}", answer.head);
    }
    for (path, origin, more) in
        [(messages, EVIL, ASKS), (messages, DESK, ""), ("/admin/config", DESK, ASKS)]
    {
        let answer = ask(&bridge, "OPTIONS", path, origin, more).await;
        assert_eq!(answer.code, 401, "{path} {origin} {more}");
    }
    let without = ask(&bridge, "GET", "/topics", DESK, "").await;
    assert_eq!((without.code, shown(&without)), (401, Some(DESK)), "it sees why");
    let token = "authorization: Bearer s3cret\r\n";
    let answer = ask(&bridge, "GET", "/topics", DESK, token).await;
    assert_eq!((answer.code, shown(&answer)), (200, Some(DESK)));
    assert!(answer.head.contains("access-control-expose-headers: retry-after"));
    let from_evil = ask(&bridge, "GET", "/topics", EVIL, token).await;
    assert_eq!((from_evil.code, shown(&from_evil)), (403, None));
}
