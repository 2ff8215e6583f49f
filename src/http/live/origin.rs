//! Which pages may connect. A browser sends requests, and opens sockets, to wherever a page wants;
//! it says where the page came from, and nobody else does.

use axum::http::{HeaderMap, HeaderName, HeaderValue, header};

/// `guarded`: who connects needs a token, or the feed is open to everybody. Without either only this
/// machine is let in, and then it has to be called by its own name, also by a page that says nothing
/// of where it came from, as browsers do when they read from the page's own host: a stranger's name
/// that leads to this machine is a stranger's.
pub(super) fn is_allowed(headers: &HeaderMap, allowed: &[String], guarded: bool) -> bool {
    let host = text(headers, &header::HOST);
    let is_own = guarded || host.is_some_and(is_this_machine);
    let Some(origin) = headers.get(header::ORIGIN) else { return is_own };
    let page =
        origin.to_str().ok().and_then(|origin| origin.split_once("://")).map(|(_, page)| page);
    let is_its_own =
        is_own && host.zip(page).is_some_and(|(host, page)| host.eq_ignore_ascii_case(page));
    is_its_own || is_listed(origin, allowed)
}

/// The configuration names this origin.
pub(super) fn is_listed(origin: &HeaderValue, allowed: &[String]) -> bool {
    let Ok(origin) = origin.to_str() else { return false };
    allowed.iter().any(|allowed| allowed == "*" || allowed.eq_ignore_ascii_case(origin))
}

fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

fn is_this_machine(host: &str) -> bool {
    let port = |rest: &str| rest.is_empty() || rest.starts_with(':');
    ["localhost", "127.0.0.1", "[::1]"].iter().any(|name| {
        host.get(..name.len()).is_some_and(|h| h.eq_ignore_ascii_case(name))
            && port(&host[name.len()..])
    })
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn is_let_in(origin: Option<&str>, host: &str, allowed: &[&str], guarded: bool) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, HeaderValue::from_str(host).unwrap());
        if let Some(origin) = origin {
            headers.insert(header::ORIGIN, HeaderValue::from_str(origin).unwrap());
        }
        let allowed: Vec<String> = allowed.iter().map(|&origin| origin.to_owned()).collect();
        is_allowed(&headers, &allowed, guarded)
    }

    #[test]
    fn who_is_no_page_is_let_in_and_so_are_the_bridges_own() {
        assert!(is_let_in(None, "localhost:8080", &[], false));
        assert!(is_let_in(None, "bridge:8080", &[], true));
        assert!(is_let_in(Some("http://localhost:8080"), "localhost:8080", &[], false));
        assert!(is_let_in(Some("http://[::1]:8080"), "[::1]:8080", &[], false));
        assert!(is_let_in(Some("https://bridge"), "bridge", &[], true));
    }

    #[test]
    fn a_strangers_page_is_not_also_where_its_name_leads_here() {
        assert!(!is_let_in(Some("https://evil.example"), "localhost:8080", &[], false));
        assert!(!is_let_in(Some("null"), "localhost:8080", &[], true));
        assert!(!is_let_in(None, "evil.example:8080", &[], false), "a GET names no origin");
        assert!(!is_let_in(Some("http://evil.example:8080"), "evil.example:8080", &[], false));
        assert!(!is_let_in(
            Some("http://localhost.evil.example"),
            "localhost.evil.example",
            &[],
            false
        ));
    }

    #[test]
    fn allowed_origins_are_let_in_and_no_others() {
        let allowed = ["https://desk.example.com"];
        assert!(is_let_in(Some("https://desk.example.com"), "bridge", &allowed, false));
        assert!(!is_let_in(Some("http://desk.example.com"), "bridge", &allowed, false));
        assert!(is_let_in(Some("http://any"), "bridge", &["*"], false));
    }
}
