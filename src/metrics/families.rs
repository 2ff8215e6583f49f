//! What a scrape says, taken apart: for those who want the same metrics in another form. So each metric
//! is said once, in the collectors, whoever hears of it.
//!
//! Reads our own OpenMetrics text, as the client library writes it, and no other.

use std::borrow::Cow;

/// A metric, with all of its series.
#[derive(Debug, Clone, PartialEq)]
pub struct Family<'a> {
    /// Without `_total` and the like.
    pub name: &'a str,
    pub help: &'a str,
    /// `seconds`, `bytes`, or nothing.
    pub unit: &'a str,
    pub kind: Kind,
    pub samples: Vec<Sample<'a>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Counter,
    Gauge,
    Histogram,
}

/// Names with their values, in the order of the text.
pub type Labels<'a> = Vec<(&'a str, Cow<'a, str>)>;

/// One line.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample<'a> {
    /// What the line's name has beyond the metric's: `_bucket`, `_sum`, `_count`, `_total`, or nothing.
    pub suffix: &'a str,
    pub labels: Labels<'a>,
    /// As it is written: a whole number stays one.
    pub value: &'a str,
}

/// All metrics of a scrape in OpenMetrics' format, in its order.
pub(super) fn read(text: &str) -> Vec<Family<'_>> {
    let mut families: Vec<Family<'_>> = Vec::new();
    for line in text.lines() {
        let Some(comment) = line.strip_prefix("# ") else {
            if let Some(family) = families.last_mut() {
                family.samples.extend(sample(line, family.name));
            }
            continue;
        };
        let mut words = comment.splitn(3, ' ');
        let (keyword, name) = (words.next(), words.next().unwrap_or_default());
        let rest = words.next().unwrap_or_default();
        if families.last().is_none_or(|last| last.name != name) && keyword != Some("EOF") {
            let kind = Kind::Gauge;
            families.push(Family { name, help: "", unit: "", kind, samples: Vec::new() });
        }
        let Some(family) = families.last_mut() else { continue };
        match (keyword, rest) {
            (Some("HELP"), help) => family.help = help.trim_end_matches('.'),
            (Some("UNIT"), unit) => family.unit = unit,
            (Some("TYPE"), "counter") => family.kind = Kind::Counter,
            (Some("TYPE"), "histogram") => family.kind = Kind::Histogram,
            _ => {}
        }
    }
    families
}

/// `name_suffix{label="value",…} value`.
fn sample<'a>(line: &'a str, family: &str) -> Option<Sample<'a>> {
    let rest = line.strip_prefix(family)?;
    let (suffix, rest) = rest.split_at(rest.find(['{', ' '])?);
    let (labels, value) = match rest.strip_prefix('{') {
        None => (Vec::new(), rest.trim_start()),
        Some(rest) => labels(rest)?,
    };
    Some(Sample { suffix, labels, value: value.split(' ').next()? })
}

/// Pairs up to the closing brace, and what is behind it.
fn labels(mut rest: &str) -> Option<(Labels<'_>, &str)> {
    let mut labels = Vec::new();
    loop {
        rest = rest.trim_start_matches(',');
        if let Some(value) = rest.strip_prefix('}') {
            return Some((labels, value.trim_start()));
        }
        let (name, quoted) = rest.split_once("=\"")?;
        let mut escaped = false;
        let end = quoted.find(|c| {
            let ends = c == '"' && !escaped;
            escaped = c == '\\' && !escaped;
            ends
        })?;
        labels.push((name, unescaped(&quoted[..end])));
        rest = &quoted[end + 1..];
    }
}

fn unescaped(text: &str) -> Cow<'_, str> {
    if !text.contains('\\') {
        return Cow::Borrowed(text);
    }
    let (mut out, mut characters) = (String::with_capacity(text.len()), text.chars());
    while let Some(character) = characters.next() {
        out.push(match (character, characters.as_str().chars().next()) {
            ('\\', Some('n')) => {
                characters.next();
                '\n'
            }
            ('\\', Some(escaped @ ('"' | '\\'))) => {
                characters.next();
                escaped
            }
            _ => character,
        });
    }
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_belongs_to_its_metric_and_labels_are_what_was_meant() {
        let text = "# HELP a_seconds How long.\n# TYPE a_seconds counter\n# UNIT a_seconds seconds\n\
                    a_seconds_total{q=\"x,\\\"}\\\\n\\n\",r=\"\"} 1.5\na_seconds_total 7\n\
                    # HELP b B.\n# TYPE b gauge\n# HELP a A.\n# TYPE a histogram\n\
                    a_sum 1.0\na_count 2\na_bucket{le=\"+Inf\"} 2\n# EOF\n";
        let families = read(text);
        let told: Vec<_> = families.iter().map(|f| (f.name, f.help, f.unit, f.kind)).collect();
        assert_eq!(
            told,
            [
                ("a_seconds", "How long", "seconds", Kind::Counter),
                ("b", "B", "", Kind::Gauge),
                ("a", "A", "", Kind::Histogram)
            ]
        );
        let first = &families[0].samples[0];
        assert_eq!((first.suffix, first.value), ("_total", "1.5"));
        assert_eq!(first.labels, [("q", "x,\"}\\n\n".into()), ("r", "".into())]);
        assert_eq!(families[0].samples[1].value, "7");
        assert!(families[1].samples.is_empty());
        let suffixes: Vec<_> = families[2].samples.iter().map(|sample| sample.suffix).collect();
        assert_eq!(suffixes, ["_sum", "_count", "_bucket"]);
    }
}
