//! Arrays and objects into Array, Map and Tuple columns.
//!
//! Owns how members find their elements, and which keys objects had before. The text was validated
//! by the first pass; walking it again only finds where its parts lie.

use std::collections::HashSet;

use xxhash_rust::xxh3::xxh3_64;

use super::column::Data;
use super::convert::{Convert, Put, Value, refuse};
use super::json::{self, JsonError, Key, Kind, Reader, Span};
use super::quick::Quick;
use super::reject::{Reason, Reject};
use super::time::TimeFormat;
use super::types::{Element, Type};
use crate::record::Record;

/// Forms of objects that are remembered: of a few Map columns, or of one whose keys take turns.
const MAX_FORMS: usize = 4;
/// Objects with more keys are not remembered.
const MAX_KEYS: usize = 1_024;

/// The keys of objects that came, in their order, each list without equal ones: an object with the
/// same keys needs no search for them.
#[derive(Debug, Clone, Default)]
pub(super) struct Forms {
    known: Vec<Vec<Key>>,
    /// Which is forgotten next.
    oldest: usize,
}

impl Forms {
    /// The form that begins with the key that stands here.
    fn of(&self, reader: &Reader<'_>) -> Option<usize> {
        self.known.iter().position(|keys| keys.first().is_some_and(|key| reader.is_at(key)))
    }

    /// Remembers a form in place of the one that was expected.
    fn remember(&mut self, expected: Option<usize>, keys: Vec<Key>) {
        if let Some(expected) = expected {
            self.known[expected] = keys;
        } else if self.known.len() < MAX_FORMS {
            self.known.push(keys);
        } else {
            self.known[self.oldest] = keys;
            self.oldest = (self.oldest + 1) % MAX_FORMS;
        }
    }
}

impl Convert {
    pub(super) fn composed(
        &mut self,
        ty: &Type,
        data: &mut Data,
        value: Value<'_>,
        format: Option<&TimeFormat>,
    ) -> Put {
        match (ty, value) {
            (Type::Array(element), Value::Nested(json, span)) if span.kind == Kind::Array => {
                let mut count = 0;
                let mut reader = Reader::new(json, span.start());
                reader.open_array(0).map_err(broken)?;
                let quick = Quick::new(element, format);
                while reader.next_element(count == 0).map_err(broken)? {
                    let value = reader.value(0).map_err(broken)?;
                    self.element(quick, element, &mut data.parts()[0], (json, value), format)?;
                    count += 1;
                }
                data.end_row(count);
                Ok(())
            }
            (Type::Map(key, element), Value::Nested(json, span)) if span.kind == Kind::Object => {
                self.map(key, element, data, (json, span), format)
            }
            (Type::Map(key, element), Value::Headers(record)) => {
                self.headers(key, element, data, record)
            }
            (Type::Tuple(elements), Value::Nested(json, span)) => {
                let named = elements.iter().all(|element| element.name.is_some());
                match span.kind {
                    Kind::Object if named => self.by_name(elements, data, (json, span), format),
                    Kind::Array => self.by_position(ty, elements, data, (json, span), format),
                    _ => Err(refuse(Reason::WrongType, ty, value)),
                }
            }
            _ => Err(refuse(Reason::WrongType, ty, value)),
        }
    }

    fn map(
        &mut self,
        key_type: &Type,
        value_type: &Type,
        data: &mut Data,
        (json, span): (&[u8], Span),
        format: Option<&TimeFormat>,
    ) -> Put {
        let base = self.members.len();
        let overridden = self.open(json, span)?;
        let (key_quick, value_quick) = (Quick::new(key_type, None), Quick::new(value_type, format));
        let mut count = 0;
        for index in base..self.members.len() {
            if overridden.get(index - base) == Some(&true) {
                continue;
            }
            let (key, value) = self.members[index];
            let parts = data.parts();
            self.element(key_quick, key_type, &mut parts[0], (json, key), None)?;
            self.element(value_quick, value_type, &mut parts[1], (json, value), format)?;
            count += 1;
        }
        self.members.truncate(base);
        data.end_row(count);
        Ok(())
    }

    #[inline]
    fn element(
        &mut self,
        quick: Quick,
        ty: &Type,
        data: &mut Data,
        (json, span): (&[u8], Span),
        format: Option<&TimeFormat>,
    ) -> Put {
        if quick.put(json, span, data) {
            return Ok(());
        }
        self.put(ty, data, Value::of(json, span), format)
    }

    fn headers(&mut self, key: &Type, value: &Type, data: &mut Data, record: Record<'_>) -> Put {
        let mut count = 0;
        for (name, bytes) in record.headers() {
            let parts = data.parts();
            self.put(key, &mut parts[0], Value::Text(name.as_bytes()), None)?;
            self.put(value, &mut parts[1], Value::Text(bytes), None)?;
            count += 1;
        }
        data.end_row(count);
        Ok(())
    }

    fn by_name(
        &mut self,
        elements: &[Element],
        data: &mut Data,
        (json, span): (&[u8], Span),
        format: Option<&TimeFormat>,
    ) -> Put {
        let base = self.members.len();
        self.open(json, span)?;
        for (index, element) in elements.iter().enumerate() {
            let name = element.name.as_deref().unwrap_or_default();
            // The last of several equal keys wins.
            let found = self.members[base..].iter().rfind(|(key, _)| is_key(json, *key, name));
            let value = found.map_or(Value::Null, |&(_, value)| Value::of(json, value));
            self.put(&element.ty, &mut data.parts()[index], value, format).map_err(
                |mut reject| {
                    reject.error = format!("element {name}: {}", reject.error);
                    reject
                },
            )?;
        }
        self.members.truncate(base);
        Ok(())
    }

    fn by_position(
        &mut self,
        ty: &Type,
        elements: &[Element],
        data: &mut Data,
        (json, span): (&[u8], Span),
        format: Option<&TimeFormat>,
    ) -> Put {
        let wrong = || refuse(Reason::WrongType, ty, Value::Nested(json, span));
        let mut reader = Reader::new(json, span.start());
        reader.open_array(0).map_err(broken)?;
        for (index, element) in elements.iter().enumerate() {
            if !reader.next_element(index == 0).map_err(broken)? {
                return Err(wrong());
            }
            let value = Value::of(json, reader.value(0).map_err(broken)?);
            self.put(&element.ty, &mut data.parts()[index], value, format)?;
        }
        if reader.next_element(false).map_err(broken)? { Err(wrong()) } else { Ok(()) }
    }

    /// Puts the object's members on the stack; says which of them a later one with an equal key
    /// overrides. Empty: none.
    fn open(&mut self, json: &[u8], span: Span) -> Result<Vec<bool>, Box<Reject>> {
        let base = self.members.len();
        let mut reader = Reader::new(json, span.start());
        reader.open_object(0).map_err(broken)?;
        let (mut first, mut expected, mut form) = (true, None, [].iter());
        let mut as_expected = true;
        while reader.seek_key(first).map_err(broken)? {
            if first {
                expected = self.forms.of(&reader);
                form = expected.map_or(&[][..], |form| &self.forms.known[form]).iter();
                first = false;
            }
            let known = form.next().filter(|_| as_expected).and_then(|key| reader.known_key(key));
            as_expected = known.is_some();
            let key = known.map_or_else(|| reader.any_key(), Ok).map_err(broken)?;
            let value = reader.value(0).map_err(broken)?;
            self.members.push((key, value));
        }
        let members = &self.members[base..];
        if as_expected {
            return Ok(Vec::new());
        }
        let overridden = overridden(json, members);
        let plain = members.iter().all(|(key, _)| key.kind == Kind::Text);
        if overridden.is_empty() && plain && members.len() <= MAX_KEYS {
            let keys = members.iter().map(|(key, _)| Key::new(key.of(json))).collect();
            self.forms.remember(expected, keys);
        }
        Ok(overridden)
    }
}

#[cold]
fn broken(_: JsonError) -> Box<Reject> {
    Box::new(Reject::new(Reason::InvalidJson, "a nested value does not end where it should"))
}

fn is_key(json: &[u8], key: Span, name: &str) -> bool {
    unescaped(json, key).as_ref() == name.as_bytes()
}

fn unescaped(json: &[u8], key: Span) -> std::borrow::Cow<'_, [u8]> {
    let text = key.of(json);
    if key.kind == Kind::Text {
        return text.into();
    }
    let mut plain = Vec::with_capacity(text.len());
    json::unescape(text, &mut plain);
    plain.into()
}

/// Which members a later member with an equal key overrides; empty if there are none.
fn overridden(json: &[u8], members: &[(Span, Span)]) -> Vec<bool> {
    let keys = || members.iter().map(|&(key, _)| unescaped(json, key));
    let mut hashes: Vec<u64> = keys().map(|key| xxh3_64(&key)).collect();
    hashes.sort_unstable();
    if hashes.windows(2).all(|pair| pair[0] != pair[1]) {
        return Vec::new();
    }
    let mut seen = HashSet::with_capacity(members.len());
    let mut overridden: Vec<bool> = keys().rev().map(|key| !seen.insert(key)).collect();
    overridden.reverse();
    overridden
}
