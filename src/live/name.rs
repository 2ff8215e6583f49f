//! The names of topics, and the patterns that stand for several. Pure.
//!
//! A name is segments with `/` between them: `candles/EURUSD`. In a pattern a segment `*` stands for
//! any one: `candles/*`.

/// Of a name, in bytes.
const MAX_NAME: usize = 200;
const MAX_SEGMENTS: usize = 8;
/// Of a segment that is made of some text, in bytes.
const MAX_SEGMENT: usize = MAX_NAME / 2;

/// What a segment is made of.
fn is_plain(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | ':' | '@' | '+' | '=')
}

/// Nothing, or what means another place in a path.
fn is_dots(segment: &str) -> bool {
    segment.chars().all(|c| c == '.')
}

/// Why this is no topic's name.
///
/// # Errors
///
/// What a name is made of, for people.
pub fn check(name: &str) -> Result<(), String> {
    let segments = || name.split('/');
    let plain = segments().all(|segment| !is_dots(segment) && segment.chars().all(is_plain));
    if plain && name.len() <= MAX_NAME && segments().count() <= MAX_SEGMENTS {
        return Ok(());
    }
    Err(format!(
        "a topic's name is of letters, digits and `_ - . : @ + =`, in at most {MAX_SEGMENTS} \
         segments with single `/` between them, at most {MAX_NAME} bytes"
    ))
}

/// Whether this stands for several topics.
#[must_use]
pub fn is_pattern(name: &str) -> bool {
    name.split('/').any(|segment| segment == "*")
}

/// Why this is neither a name nor a pattern.
///
/// # Errors
///
/// As [`check`].
pub fn check_pattern(pattern: &str) -> Result<(), String> {
    let stood_for: Vec<&str> =
        pattern.split('/').map(|segment| if segment == "*" { "any" } else { segment }).collect();
    check(&stood_for.join("/"))
}

/// Whether a topic is among those that the pattern stands for.
#[must_use]
pub fn matches(pattern: &str, name: &str) -> bool {
    let (mut wanted, mut found) = (pattern.split('/'), name.split('/'));
    loop {
        match (wanted.next(), found.next()) {
            (None, None) => return true,
            (Some(wanted), Some(found)) if wanted == "*" || wanted == found => {}
            _ => return false,
        }
    }
}

/// A segment out of whatever text a route or a record has: what no name may have becomes `_`.
#[must_use]
pub fn segment(text: &str) -> String {
    let plain = |c: char| if is_plain(c) { c } else { '_' };
    let segment: String = text.chars().take(MAX_SEGMENT).map(plain).collect();
    if is_dots(&segment) { "_".to_owned() } else { segment }
}

/// The name of a route's topic.
#[must_use]
pub fn of_route(route: &str) -> String {
    if check(route).is_ok() { route.to_owned() } else { segment(route) }
}

/// Whether what is under this name, one [`segment`] further, has a name too, whatever the segment.
#[must_use]
pub fn has_room_below(name: &str) -> bool {
    name.len() + "/".len() + MAX_SEGMENT <= MAX_NAME && name.split('/').count() < MAX_SEGMENTS
}

/// Whether this is under that name.
#[must_use]
pub fn is_below(above: &str, name: &str) -> bool {
    name.strip_prefix(above).is_some_and(|rest| rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_told_apart_from_what_is_none() {
        for name in ["candles", "candles/EURUSD", "a.b:c@d+e=f-g_h", "a/b/c/d/e/f/g/h"] {
            assert_eq!(check(name), Ok(()), "{name}");
        }
        let long = "x".repeat(MAX_NAME + 1);
        for name in [
            "",
            "/",
            "..",
            "a/./b",
            "a//b",
            "/a",
            "a/",
            "a b",
            "a\n",
            "é",
            "a/*",
            "1/2/3/4/5/6/7/8/9",
            &long,
        ] {
            assert!(check(name).is_err(), "{name}");
        }
    }

    #[test]
    fn a_star_stands_for_one_segment() {
        assert!(is_pattern("a/*") && !is_pattern("a/b*") && is_pattern("*"));
        assert!(check_pattern("*/b").is_ok() && check_pattern("a*").is_err());
        assert!(matches("candles/*", "candles/EURUSD"));
        for other in ["candles", "candles/EURUSD/1m", "bars/EURUSD"] {
            assert!(!matches("candles/*", other), "{other}");
        }
        assert!(matches("*/EURUSD", "candles/EURUSD") && matches("a", "a"));
    }

    #[test]
    fn whatever_a_record_says_becomes_a_segment() {
        assert_eq!(segment("EUR/USD *"), "EUR_USD__");
        assert_eq!([segment(""), segment("..")], ["_", "_"]);
        assert_eq!(check(&segment(&"é".repeat(1_000))), Ok(()));
    }

    #[test]
    fn what_is_below_a_name_with_room_has_a_name_itself() {
        let longest = segment(&"x".repeat(1_000));
        let just = "r".repeat(MAX_NAME - MAX_SEGMENT - 1);
        for name in ["a", "a/b/c/d/e/f/g", &just] {
            assert!(has_room_below(name), "{name}");
            assert_eq!(check(&format!("{name}/{longest}")), Ok(()), "{name}");
        }
        for name in ["a/b/c/d/e/f/g/h", &format!("{just}r")] {
            assert!(!has_room_below(name) && check(name).is_ok(), "{name}");
            assert!(check(&format!("{name}/{longest}")).is_err(), "{name}");
        }
        assert!(is_below("a", "a/b") && !is_below("a", "ab") && !is_below("a", "a"));
    }
}
