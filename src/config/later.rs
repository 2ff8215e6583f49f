//! What the design names and this version does not have: refused with a clear word, so that nobody
//! relies on a key that does nothing.

/// For a text that is not allowed yet.
pub(super) fn value(path: &str, text: &str) -> Option<&'static str> {
    match (generic(path).as_str(), text) {
        ("routes[].delivery", "exactly_once") => {
            Some("is not available in this version; must be \"at_least_once\"")
        }
        _ => None,
    }
}

/// `routes[3].x` → `routes[].x`.
fn generic(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    let mut inside = false;
    for c in path.chars() {
        inside = (inside && c != ']') || c == '[';
        if !inside || c == '[' {
            out.push(c);
        }
    }
    out
}
