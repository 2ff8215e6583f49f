//! NATS subject patterns: what they match, and which of them make others superfluous.
//!
//! Pure. The routes, the configuration and the NATS source ask the same questions here, so that
//! what is subscribed, what is routed and what is validated can never disagree.

use std::fmt;
use std::str::FromStr;

/// A subject in which `*` stands for one token and a final `>` for one or more.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SubjectPattern(String);

impl SubjectPattern {
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether a record on `subject` belongs to this pattern. An empty token matches nothing, as
    /// in the server.
    #[must_use]
    pub fn matches(&self, subject: &str) -> bool {
        let mut tokens = subject.split('.');
        for wanted in self.0.split('.') {
            match (wanted, tokens.next()) {
                (_, None | Some("")) => return false,
                (">", _) => return tokens.all(|token| !token.is_empty()),
                ("*", _) => {}
                (literal, Some(token)) if literal == token => {}
                _ => return false,
            }
        }
        tokens.next().is_none()
    }

    /// Whether this pattern matches everything that `other` matches.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        let mut theirs = other.0.split('.');
        for ours in self.0.split('.') {
            match (ours, theirs.next()) {
                (_, None) => return false,
                (">", _) => return true,
                // `>` may be several tokens, of which `*` is only one
                (_, Some(">")) => return false,
                ("*", _) => {}
                (literal, Some(token)) if literal == token => {}
                _ => return false,
            }
        }
        theirs.next().is_none()
    }

    /// Whether there is a subject that both match.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        let mut theirs = other.0.split('.');
        for ours in self.0.split('.') {
            match (ours, theirs.next()) {
                (_, None) => return false,
                (">", _) | (_, Some(">")) => return true,
                ("*", _) | (_, Some("*")) => {}
                (literal, Some(token)) if literal == token => {}
                _ => return false,
            }
        }
        theirs.next().is_none()
    }
}

impl FromStr for SubjectPattern {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        match broken_rule(text) {
            Some(rule) => Err(anyhow::anyhow!("NATS subject {text:?}: {rule}")),
            None => Ok(Self(text.to_owned())),
        }
    }
}

/// The server would take `a*` as a literal token and close the connection at white space: neither
/// is what anybody meant.
fn broken_rule(text: &str) -> Option<&'static str> {
    if text.is_empty() {
        return Some("must not be empty");
    }
    if text.contains(|c: char| c.is_whitespace() || c.is_control()) {
        return Some("must not contain white space or control characters");
    }
    let mut tokens = text.split('.').peekable();
    while let Some(token) = tokens.next() {
        if token.is_empty() {
            return Some("must not have an empty token (a dot first, last, or after a dot)");
        }
        if token == ">" && tokens.peek().is_some() {
            return Some("`>` must be the last token");
        }
        if token.len() > 1 && token.contains(['*', '>']) {
            return Some("`*` and `>` must be whole tokens, as in `market.*.tick` or `market.>`");
        }
    }
    None
}

impl fmt::Display for SubjectPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A name as one token of a subject, or of a key: what that may not contain is written as its bytes,
/// so that no two names have one token.
#[must_use]
pub fn token(name: &str) -> String {
    let mut token = String::with_capacity(name.len());
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_') {
            token.push(char::from(byte));
        } else {
            token.push_str(&format!("={byte:02x}"));
        }
    }
    token
}

/// The patterns without those that another covers, in their order; of equal ones the first stays.
/// Subscribing to the rest brings the same records, with fewer of them twice.
#[must_use]
pub fn minimal<'a>(patterns: impl IntoIterator<Item = &'a SubjectPattern>) -> Vec<SubjectPattern> {
    let mut kept: Vec<SubjectPattern> = Vec::new();
    for pattern in patterns {
        if kept.iter().any(|other| other.covers(pattern)) {
            continue;
        }
        kept.retain(|other| !pattern.covers(other));
        kept.push(pattern.clone());
    }
    kept
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pattern(text: &str) -> SubjectPattern {
        text.parse().unwrap()
    }

    fn patterns(texts: &[&str]) -> Vec<SubjectPattern> {
        texts.iter().map(|text| pattern(text)).collect()
    }

    #[test]
    fn a_star_is_one_token_and_an_arrow_is_one_or_more() {
        assert!(pattern("market.*.tick").matches("market.EURUSD.tick"));
        assert!(!pattern("market.*.tick").matches("market.tick"));
        assert!(!pattern("market.*.tick").matches("market.a.b.tick"));
        assert!(pattern("market.>").matches("market.a.b.c"));
        assert!(!pattern("market.>").matches("market"));
        assert!(pattern(">").matches("a"));
        assert!(!pattern("market").matches("market.a"));
    }

    #[test]
    fn an_empty_token_matches_nothing() {
        for subject in ["", ".", "market.", "market..tick", ".market"] {
            for text in [">", "*", "market.>", "market.*", "*.*", "*.*.*"] {
                assert!(!pattern(text).matches(subject), "{text} on {subject:?}");
            }
        }
    }

    #[test]
    fn a_refusal_names_the_value_and_the_rule() {
        for (text, rule) in [
            ("", "empty"),
            ("a..b", "empty token"),
            (".a", "empty token"),
            ("a.", "empty token"),
            ("a b", "white space"),
            ("a\tb", "white space"),
            ("a.>.b", "last token"),
            ("a.b*", "whole tokens"),
            ("a.b>", "whole tokens"),
            ("**", "whole tokens"),
        ] {
            let error = text.parse::<SubjectPattern>().unwrap_err().to_string();
            assert!(error.contains(&format!("{text:?}")) && error.contains(rule), "{error}");
        }
    }

    #[test]
    fn the_arrow_covers_the_candles_and_the_externals() {
        let all = patterns(&["market.*.*", "market.>", "market.external.*", "bars.*.*"]);
        assert_eq!(minimal(&all), patterns(&["market.>", "bars.*.*"]));
        let crossing = patterns(&["market.*.tick", "market.external.*"]);
        assert_eq!(minimal(&crossing), crossing, "neither covers the other");
        assert!(crossing[0].overlaps(&crossing[1]));
        assert_eq!(minimal(&patterns(&["a", "a"])), patterns(&["a"]));
    }

    fn any_pattern() -> impl Strategy<Value = SubjectPattern> {
        let token = prop::sample::select(vec!["a", "b", "*"]);
        (prop::collection::vec(token, 0..4), any::<bool>()).prop_filter_map(
            "at least one token",
            |(mut tokens, arrow)| {
                if arrow {
                    tokens.push(">");
                }
                tokens.join(".").parse().ok()
            },
        )
    }

    /// All subjects of up to five tokens; `c` is in no pattern, so it stands for every other token,
    /// and five are more than the longest pattern has.
    fn subjects() -> Vec<String> {
        let mut subjects = vec![String::new()];
        let mut start = 0;
        for _ in 0..5 {
            let end = subjects.len();
            for index in start..end {
                for token in ["a", "b", "c"] {
                    let longer = format!("{}.{token}", subjects[index]);
                    subjects.push(longer.trim_start_matches('.').to_owned());
                }
            }
            start = end;
        }
        subjects.split_off(1)
    }

    proptest! {
        #[test]
        fn matching_agrees_with_a_regular_expression(pattern in any_pattern()) {
            let text = pattern.as_str().replace('.', r"\.");
            let text = text.replace('*', "[^.]+").replace('>', r"[^.]+(\.[^.]+)*");
            let expression = regex::Regex::new(&format!("^{text}$")).unwrap();
            for subject in subjects() {
                prop_assert_eq!(pattern.matches(&subject), expression.is_match(&subject));
            }
        }

        #[test]
        fn covers_and_overlaps_say_what_matching_shows(a in any_pattern(), b in any_pattern()) {
            let subjects = subjects();
            let covers = subjects.iter().all(|s| a.matches(s) || !b.matches(s));
            prop_assert_eq!(a.covers(&b), covers, "{} covers {}", a, b);
            let overlaps = subjects.iter().any(|s| a.matches(s) && b.matches(s));
            prop_assert_eq!(a.overlaps(&b), overlaps, "{} overlaps {}", a, b);
        }

        #[test]
        fn the_minimal_set_matches_the_same_and_covers_nothing_twice(
            all in prop::collection::vec(any_pattern(), 0..6),
        ) {
            let minimal = minimal(&all);
            for subject in subjects() {
                prop_assert_eq!(
                    all.iter().any(|p| p.matches(&subject)),
                    minimal.iter().any(|p| p.matches(&subject))
                );
            }
            for (i, a) in minimal.iter().enumerate() {
                for (j, b) in minimal.iter().enumerate() {
                    prop_assert!(i == j || !a.covers(b), "{} covers {}", a, b);
                }
            }
        }
    }
}
