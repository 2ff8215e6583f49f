//! Arrays and objects into Array, Map and Tuple columns.
//!
//! Owns how members find their elements, and which keys objects had before. Where all parts lie was
//! noted by the first pass: nothing is read again.

use std::collections::HashSet;

use xxhash_rust::xxh3::xxh3_64;

use super::column::Data;
use super::convert::{Convert, Put, Value, refuse};
use super::json::{self, Key, Kind, Span};
use super::notes::{Document, Parts};
use super::quick::Quick;
use super::reject::Reason;
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
    /// Which members a later one with an equal key overrides. Empty: none.
    fn overridden(&mut self, document: Document<'_>, of: Parts) -> Vec<bool> {
        let (json, members) = (document.json, document.members(of));
        let Some((first, _)) = members.clone().next() else { return Vec::new() };
        let begins = |form: &Vec<Key>| form.first().is_some_and(|key| key.is(json, first));
        let expected = self.known.iter().position(begins);
        if let Some(expected) = expected {
            let mut form = self.known[expected].iter();
            if members.clone().all(|(key, _)| form.next().is_some_and(|known| known.is(json, key)))
            {
                return Vec::new();
            }
        }
        let members: Vec<Span> = members.map(|(key, _)| key).collect();
        let overridden = overridden(json, &members);
        let plain = members.iter().all(|key| key.kind == Kind::Text);
        if overridden.is_empty() && plain && members.len() <= MAX_KEYS {
            let keys = members.iter().map(|key| Key::new(key.of(json))).collect();
            self.remember(expected, keys);
        }
        overridden
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
        let (document, span) = match (ty, value) {
            (_, Value::Nested(document, span)) => (document, span),
            (Type::Map(key, element), Value::Headers(record)) => {
                return self.headers(key, element, data, record);
            }
            _ => return Err(refuse(Reason::WrongType, ty, value)),
        };
        match (ty, span.kind) {
            (Type::Array(element), Kind::Array(parts)) => {
                let quick = Quick::new(element, format);
                let elements = &mut data.parts()[0];
                let mut count = quick.put_numbers(document.parts(parts), elements);
                for part in document.parts(parts).skip(count) {
                    self.element(quick, element, elements, (document, part), format)?;
                    count += 1;
                }
                data.end_row(count);
                Ok(())
            }
            (Type::Map(key, element), Kind::Object(parts)) => {
                self.map(key, element, data, (document, parts), format)
            }
            (Type::Tuple(elements), Kind::Object(parts))
                if elements.iter().all(|element| element.name.is_some()) =>
            {
                self.by_name(elements, data, (document, parts), format)
            }
            (Type::Tuple(elements), Kind::Array(parts)) => {
                let wrong = || refuse(Reason::WrongType, ty, value);
                let mut parts = document.parts(parts);
                for (index, element) in elements.iter().enumerate() {
                    let part = Value::of(document, parts.next().ok_or_else(wrong)?);
                    self.put(&element.ty, &mut data.parts()[index], part, format)?;
                }
                if parts.next().is_some() { Err(wrong()) } else { Ok(()) }
            }
            _ => Err(refuse(Reason::WrongType, ty, value)),
        }
    }

    fn map(
        &mut self,
        key_type: &Type,
        value_type: &Type,
        data: &mut Data,
        (document, of): (Document<'_>, Parts),
        format: Option<&TimeFormat>,
    ) -> Put {
        let overridden = self.forms.overridden(document, of);
        let (key_quick, value_quick) = (Quick::new(key_type, None), Quick::new(value_type, format));
        let mut count = 0;
        for (index, (key, value)) in document.members(of).enumerate() {
            if overridden.get(index) == Some(&true) {
                continue;
            }
            let parts = data.parts();
            self.element(key_quick, key_type, &mut parts[0], (document, key), None)?;
            self.element(value_quick, value_type, &mut parts[1], (document, value), format)?;
            count += 1;
        }
        data.end_row(count);
        Ok(())
    }

    #[inline]
    fn element(
        &mut self,
        quick: Quick,
        ty: &Type,
        data: &mut Data,
        (document, part): (Document<'_>, Span),
        format: Option<&TimeFormat>,
    ) -> Put {
        if quick.put(document.json, part, data) {
            return Ok(());
        }
        self.put(ty, data, Value::of(document, part), format)
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
        (document, of): (Document<'_>, Parts),
        format: Option<&TimeFormat>,
    ) -> Put {
        for (index, element) in elements.iter().enumerate() {
            let name = element.name.as_deref().unwrap_or_default();
            // The last of several equal keys wins.
            let found = document.members(of).filter(|(key, _)| is_key(document.json, *key, name));
            let value = found.last().map_or(Value::Null, |(_, value)| Value::of(document, value));
            self.put(&element.ty, &mut data.parts()[index], value, format).map_err(
                |mut reject| {
                    reject.error = format!("element {name}: {}", reject.error);
                    reject
                },
            )?;
        }
        Ok(())
    }
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

/// Which of the keys a later one equals; empty if there are none.
fn overridden(json: &[u8], keys: &[Span]) -> Vec<bool> {
    let keys = || keys.iter().map(|&key| unescaped(json, key));
    let mut hashes: Vec<u64> = keys().map(|key| xxh3_64(&key)).collect();
    hashes.sort_unstable();
    if hashes.windows(2).all(|pair| pair[0] != pair[1]) {
        return Vec::new();
    }
    let mut seen = HashSet::with_capacity(hashes.len());
    let mut overridden: Vec<bool> = keys().rev().map(|key| !seen.insert(key)).collect();
    overridden.reverse();
    overridden
}
