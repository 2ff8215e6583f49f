//! What is wrong with a configuration, said so that the reader knows what to write instead: the
//! file or variable, the key, the value, the remedy. A secret is never part of it.

use std::collections::BTreeMap;
use std::fmt;

use config::{Value, ValueKind};

use super::units::HIDDEN;

/// More than these at a time help nobody: one mistake often has many consequences.
const SHOWN: usize = 8;
/// Characters of a value that are shown.
const VALUE_CHARS: usize = 80;

/// A configuration that cannot be used, and why.
#[derive(Debug, Clone)]
pub struct ConfigError {
    problems: Vec<Problem>,
}

impl ConfigError {
    pub(super) fn new(problems: Vec<Problem>) -> Self {
        Self { problems }
    }

    /// A problem that has no key: a file that is missing or cannot be read.
    pub(super) fn file(text: String) -> Self {
        Self::new(vec![Problem { key: String::new(), value: None, text, origin: None }])
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let [only] = self.problems.as_slice() {
            return write!(f, "{only}");
        }
        write!(f, "{} problems in the configuration:", self.problems.len())?;
        for problem in self.problems.iter().take(SHOWN) {
            write!(f, "\n  {problem}")?;
        }
        match self.problems.len().checked_sub(SHOWN) {
            None | Some(0) => Ok(()),
            Some(more) => write!(f, "\n  and {more} more"),
        }
    }
}

impl std::error::Error for ConfigError {}

/// One mistake.
#[derive(Debug, Clone)]
pub(super) struct Problem {
    /// The full path of the key: `routes[2].table`.
    pub(super) key: String,
    /// As it was given; None if it was not.
    pub(super) value: Option<String>,
    /// What is wrong and what would be right.
    pub(super) text: String,
    /// The file or the variable that said so.
    pub(super) origin: Option<String>,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(origin) = &self.origin {
            write!(f, "{origin}: ")?;
        }
        if !self.key.is_empty() {
            write!(f, "{}", self.key)?;
            if let Some(value) = &self.value {
                write!(f, " = {value}")?;
            }
            write!(f, ": ")?;
        }
        f.write_str(&self.text)
    }
}

/// Problems as they are found.
#[derive(Debug, Default)]
pub(super) struct Problems {
    found: Vec<Problem>,
}

impl Problems {
    /// `value` is what was given for `key`, or what it defaults to.
    pub(super) fn push(&mut self, key: &str, value: impl fmt::Display, text: impl Into<String>) {
        self.add(key, Some(shorten(&value.to_string())), text);
    }

    /// The value is a text: it is shown in quotes.
    pub(super) fn text(&mut self, key: &str, value: &str, text: impl Into<String>) {
        self.add(key, Some(shorten(&format!("{value:?}"))), text);
    }

    /// The key is missing, or its value must not be shown.
    pub(super) fn bare(&mut self, key: &str, text: impl Into<String>) {
        self.add(key, None, text);
    }

    fn add(&mut self, key: &str, value: Option<String>, text: impl Into<String>) {
        self.found.push(Problem { key: key.to_owned(), value, text: text.into(), origin: None });
    }

    /// `Ok` if nothing was found; else each problem with the place its value came from.
    pub(super) fn settle(mut self, origins: &Origins) -> Result<(), ConfigError> {
        if self.found.is_empty() {
            return Ok(());
        }
        for problem in &mut self.found {
            if problem.origin.is_none() {
                problem.origin = origins.of(&problem.key);
            }
            if let Some(route) = origins.route(&problem.key) {
                problem.text.push_str(&format!(" (route \"{route}\")"));
            }
        }
        Err(ConfigError::new(self.found))
    }
}

/// Which file or variable said what.
#[derive(Debug, Default)]
pub(super) struct Origins {
    by_key: BTreeMap<String, String>,
    routes: Vec<Option<String>>,
}

impl Origins {
    pub(super) fn new(tree: &Value) -> Self {
        let mut origins = Self::default();
        origins.collect("", tree);
        if let Some(ValueKind::Array(routes)) = child(tree, "routes").map(|value| &value.kind) {
            origins.routes = routes.iter().map(|route| text(child(route, "name"))).collect();
        }
        origins
    }

    fn collect(&mut self, path: &str, value: &Value) {
        if let Some(origin) = value.origin() {
            self.by_key.insert(path.to_owned(), origin.to_owned());
        }
        match &value.kind {
            ValueKind::Table(table) => {
                for (key, value) in table {
                    self.collect(&join(path, key), value);
                }
            }
            ValueKind::Array(items) => {
                for (index, value) in items.iter().enumerate() {
                    self.collect(&format!("{path}[{index}]"), value);
                }
            }
            _ => {}
        }
    }

    /// Of the key, or of the table around it: that is where a missing key is missing.
    fn of(&self, key: &str) -> Option<String> {
        let mut path = key;
        loop {
            if let Some(origin) = self.by_key.get(path) {
                return Some(origin.clone());
            }
            path = &path[..path.rfind(['.', '['])?];
        }
    }

    fn route(&self, key: &str) -> Option<&str> {
        let (index, _) = key.strip_prefix("routes[")?.split_once(']')?;
        self.routes.get(index.parse::<usize>().ok()?)?.as_deref()
    }
}

pub(super) fn child<'a>(value: &'a Value, key: &str) -> Option<&'a Value> {
    match &value.kind {
        ValueKind::Table(table) => table.get(key),
        _ => None,
    }
}

fn text(value: Option<&Value>) -> Option<String> {
    match &value?.kind {
        ValueKind::String(text) => Some(text.clone()),
        _ => None,
    }
}

pub(super) fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

/// A value as a message shows it: on one line, not too long, without credentials in addresses.
pub(super) fn shorten(value: &str) -> String {
    let line: String = value.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let line = without_credentials(&line);
    match line.char_indices().nth(VALUE_CHARS) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

fn without_credentials(text: &str) -> String {
    let Some((scheme, rest)) = text.split_once("://") else { return text.to_owned() };
    match rest.rfind('@') {
        Some(at) => format!("{scheme}://{HIDDEN}{}", &rest[at..]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_in_an_address_are_not_shown() {
        assert_eq!(shorten("\"nats://me:pa/ss@host:4222\""), "\"nats://***@host:4222\"");
    }

    #[test]
    fn a_long_value_is_cut() {
        assert_eq!(shorten(&"é".repeat(200)).chars().count(), VALUE_CHARS + 1);
    }
}
