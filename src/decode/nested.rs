//! Arrays and objects into Array, Map and Tuple columns.
//!
//! Owns how members find their elements. The text was validated by the first pass; walking it again
//! only finds where its parts lie.

use super::column::Data;
use super::convert::{Convert, Put, Value, refuse};
use super::json::{self, JsonError, Kind, Reader, Span};
use super::reject::{Reason, Reject};
use super::time::TimeFormat;
use super::types::{Element, Type};
use crate::record::Record;

/// Objects with more members than this are searched for duplicate keys by hashing.
const FEW_MEMBERS: usize = 16;

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
                let mut reader = Reader::new(json, span.start);
                reader.open_array(0).map_err(broken)?;
                while reader.next_element(count == 0).map_err(broken)? {
                    let value = Value::of(json, reader.value(0).map_err(broken)?);
                    self.put(element, &mut data.parts()[0], value, format)?;
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
        let base = self.open(json, span)?;
        let members = base..self.members.len();
        let overridden = Overridden::new(json, &self.members[base..]);
        let mut count = 0;
        for index in members {
            if overridden.contains(json, &self.members[base..], index - base) {
                continue;
            }
            let (key, value) = self.members[index];
            let parts = data.parts();
            self.put(key_type, &mut parts[0], Value::of(json, key), None)?;
            self.put(value_type, &mut parts[1], Value::of(json, value), format)?;
            count += 1;
        }
        self.members.truncate(base);
        data.end_row(count);
        Ok(())
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
        let base = self.open(json, span)?;
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
        let mut reader = Reader::new(json, span.start);
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

    /// Puts the object's members on the stack; returns where they begin.
    fn open(&mut self, json: &[u8], span: Span) -> Result<usize, Box<Reject>> {
        let base = self.members.len();
        let mut reader = Reader::new(json, span.start);
        reader.open_object(0).map_err(broken)?;
        while let Some(key) = reader.next_key(self.members.len() == base).map_err(broken)? {
            let value = reader.value(0).map_err(broken)?;
            self.members.push((key, value));
        }
        Ok(base)
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
    let text = &json[key.start..key.end];
    if key.kind == Kind::Text {
        return text.into();
    }
    let mut plain = Vec::with_capacity(text.len());
    json::unescape(text, &mut plain);
    plain.into()
}

/// Which members a later member with an equal key overrides.
enum Overridden {
    /// Few members: looking costs less than remembering.
    Look,
    Known(Vec<bool>),
}

impl Overridden {
    fn new(json: &[u8], members: &[(Span, Span)]) -> Self {
        if members.len() <= FEW_MEMBERS {
            return Self::Look;
        }
        let mut seen = std::collections::HashSet::with_capacity(members.len());
        let mut known: Vec<bool> =
            members.iter().rev().map(|&(key, _)| !seen.insert(unescaped(json, key))).collect();
        known.reverse();
        Self::Known(known)
    }

    fn contains(&self, json: &[u8], members: &[(Span, Span)], index: usize) -> bool {
        match self {
            Self::Known(known) => known[index],
            Self::Look => {
                let key = unescaped(json, members[index].0);
                members[index + 1..].iter().any(|&(later, _)| unescaped(json, later) == key)
            }
        }
    }
}
