//! Values that carry units, and values that nobody may see. Each knows how to read itself from
//! text, how to print itself back, and how an editor's schema describes it.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use bytesize::ByteSize;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use secrecy::SecretString;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// What stands in place of a secret wherever one would be printed.
pub(super) const HIDDEN: &str = "***";

/// The `format`s of the schema, by which a text is checked while its key is still known.
pub(super) const DURATION: &str = "duration";
pub(super) const SIZE: &str = "size";
pub(super) const SECRET: &str = "password";

/// Nobody means more, and a clock can still add it to now.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// A length of time: `"5s"`, `"1m 30s"`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Span(pub(super) Duration);

impl Span {
    pub(super) const fn seconds(seconds: u64) -> Self {
        Self(Duration::from_secs(seconds))
    }

    pub(super) const fn millis(millis: u64) -> Self {
        Self(Duration::from_millis(millis))
    }

    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let bare = text.trim();
        if bare.parse::<f64>().is_ok() {
            return Err(format!(
                "a duration needs a unit, for example \"{bare}s\" or \"{bare}ms\""
            ));
        }
        let span = humantime::parse_duration(bare).map_err(|error| {
            format!("not a duration ({error}); write for example \"500ms\", \"5s\", \"1m 30s\"")
        })?;
        if span > LONGEST {
            return Err("must be at most \"365days\"".to_owned());
        }
        Ok(Self(span))
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", humantime::format_duration(self.0))
    }
}

impl fmt::Debug for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::parse(&Cow::<str>::deserialize(deserializer)?).map_err(de::Error::custom)
    }
}

impl JsonSchema for Span {
    fn schema_name() -> Cow<'static, str> {
        "Duration".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "format": DURATION, "examples": ["500ms", "5s", "10m"] })
    }
}

/// A number of bytes: `"64MiB"`, `"1GB"`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Size(pub(super) usize);

impl Size {
    pub(super) const fn mib(mib: usize) -> Self {
        Self(mib * 1024 * 1024)
    }

    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let bare = text.trim();
        if bare.parse::<f64>().is_ok() {
            return Err(format!("a size needs a unit, for example \"{bare}MiB\" or \"{bare}B\""));
        }
        let size: ByteSize = bare.parse().map_err(|_| {
            "not a size; write for example \"512KiB\", \"64MiB\", \"1GiB\"".to_owned()
        })?;
        usize::try_from(size.as_u64())
            .map(Self)
            .map_err(|_| "more than this machine has".to_owned())
    }
}

impl fmt::Display for Size {
    /// The largest unit that says it exactly: what is printed reads back as the same number.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [(1usize << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
        match units.into_iter().find(|(unit, _)| self.0 >= *unit && self.0.is_multiple_of(*unit)) {
            Some((unit, name)) => write!(f, "{}{name}", self.0 / unit),
            None => write!(f, "{}B", self.0),
        }
    }
}

impl fmt::Debug for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Size {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::parse(&Cow::<str>::deserialize(deserializer)?).map_err(de::Error::custom)
    }
}

impl JsonSchema for Size {
    fn schema_name() -> Cow<'static, str> {
        "Size".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "format": SIZE, "examples": ["16MiB", "1GiB"] })
    }
}

/// A text that is never printed: it serializes as `***`.
#[derive(Debug, Clone)]
pub(super) struct Secret(pub(super) SecretString);

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(HIDDEN)
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self(String::deserialize(deserializer)?.into()))
    }
}

impl JsonSchema for Secret {
    fn schema_name() -> Cow<'static, str> {
        "Secret".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "format": SECRET, "writeOnly": true })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bare_number_is_told_its_unit() {
        assert!(Span::parse("5").unwrap_err().contains("\"5s\""));
        assert!(Size::parse("64").unwrap_err().contains("\"64MiB\""));
    }

    #[test]
    fn what_is_printed_reads_back_as_the_same() {
        for text in ["100ms", "5s", "1m 30s", "10m"] {
            let span = Span::parse(text).unwrap();
            assert_eq!(Span::parse(&span.to_string()), Ok(span));
        }
        for text in ["1B", "1500B", "64MiB", "1GiB", "1MB"] {
            let size = Size::parse(text).unwrap();
            assert_eq!(Size::parse(&size.to_string()), Ok(size), "{text}");
        }
    }
}
