//! OpenMetrics text as the classic Prometheus text format, 0.0.4.
//!
//! They differ, for what we emit, in one thing that matters: OpenMetrics describes the counter
//! `x_total` as `x`; a classic parser would find no description and call it untyped.

use std::collections::HashSet;

/// The same metrics in the classic format.
pub(super) fn from_open_metrics(text: &str) -> String {
    let counters: HashSet<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.strip_suffix(" counter"))
        .collect();
    let mut classic = String::with_capacity(text.len() + counters.len() * 16);
    for line in text.lines() {
        match described(line) {
            // Classic parsers read these as comments: nothing is lost.
            Some(("UNIT" | "EOF", ..)) => continue,
            Some((keyword, name, rest)) if counters.contains(name) => {
                for part in ["# ", keyword, " ", name, "_total ", rest] {
                    classic.push_str(part);
                }
            }
            _ => classic.push_str(line),
        }
        classic.push('\n');
    }
    classic
}

/// Keyword, name and rest of a comment line.
fn described(line: &str) -> Option<(&str, &str, &str)> {
    let mut parts = line.strip_prefix("# ")?.splitn(3, ' ');
    Some((parts.next()?, parts.next().unwrap_or_default(), parts.next().unwrap_or_default()))
}
