//! One value into one column: the conversions, and no others.
//!
//! Owns what each ClickHouse type takes. Never rounds without counting, never turns what it does
//! not understand into a zero, and nothing exact passes through a float.

use std::fmt::Display;
use std::net::{Ipv4Addr, Ipv6Addr};

use ethnum::U256;

use super::column::Data;
use super::json::{self, Kind, Span};
use super::nested::Forms;
use super::notes::Document;
use super::number::{self, Digits, Scaled};
use super::reject::{Reason, Reject, shortened};
use super::time::{self, Moment, NoTime, TimeFormat};
use super::types::Type;
use crate::record::Record;

/// What is to be put into a column.
#[derive(Debug, Clone, Copy)]
pub(super) enum Value<'a> {
    Null,
    Bool(bool),
    /// Spelled as in JSON.
    Number(&'a [u8]),
    /// A JSON string without escapes, or bytes of metadata.
    Text(&'a [u8]),
    /// A JSON string that has to be unescaped.
    Escaped(&'a [u8]),
    /// An array or an object: what it lies in, and where.
    Nested(Document<'a>, Span),
    /// A time of the record: no guess is needed about its unit.
    UnixMs(i64),
    /// All headers of the record.
    Headers(Record<'a>),
}

impl<'a> Value<'a> {
    pub(super) fn of(document: Document<'a>, span: Span) -> Self {
        let text = span.of(document.json);
        match span.kind {
            Kind::Absent | Kind::Null => Self::Null,
            Kind::True => Self::Bool(true),
            Kind::False => Self::Bool(false),
            Kind::Number(_) | Kind::LongNumber => Self::Number(text),
            Kind::Text => Self::Text(text),
            Kind::EscapedText => Self::Escaped(text),
            Kind::Array(_) | Kind::Object(_) => Self::Nested(document, span),
        }
    }

    fn shown(self) -> String {
        match self {
            Self::Null => "null".to_owned(),
            Self::Bool(value) => value.to_string(),
            Self::Number(text) => shortened(text),
            Self::Text(text) | Self::Escaped(text) => format!("\"{}\"", shortened(text)),
            Self::Nested(document, span) => shortened(span.of(document.json)),
            Self::UnixMs(ms) => format!("{ms} (Unix ms)"),
            Self::Headers(_) => "the record's headers".to_owned(),
        }
    }
}

/// Boxed, so that the path that succeeds carries no refusal around.
pub(super) type Put = Result<(), Box<Reject>>;

#[cold]
pub(super) fn refuse(reason: Reason, expected: impl Display, found: Value<'_>) -> Box<Reject> {
    let expected = shortened(expected.to_string().as_bytes());
    Box::new(Reject::new(reason, format!("expected {expected}")).found(&found.shown()))
}

/// What conversions need besides the value: counters and buffers that outlive a record.
#[derive(Debug, Clone, Default)]
pub(super) struct Convert {
    /// Values of this record that lost digits.
    pub(super) rounded: u32,
    text: Vec<u8>,
    pub(super) forms: Forms,
}

/// The first day and the last day of Date32 and DateTime64, counted from 1970: 1900 to 2299.
const WIDE_DAYS: std::ops::RangeInclusive<i64> = -25_567..=120_529;

impl Convert {
    pub(super) fn put(
        &mut self,
        ty: &Type,
        data: &mut Data,
        value: Value<'_>,
        format: Option<&TimeFormat>,
    ) -> Put {
        match (ty, value) {
            (Type::Nullable(inner), Value::Null) => {
                data.nullable(true).push_default(inner);
                Ok(())
            }
            (Type::Dictionary { nullable: true }, Value::Null) => {
                data.dictionary().push_null();
                Ok(())
            }
            (Type::Nullable(inner), _) => self.put(inner, data.nullable(false), value, format),
            (_, Value::Null) => Err(refuse(Reason::MissingValue, ty, value)),
            (_, Value::Escaped(escaped)) => {
                let mut text = std::mem::take(&mut self.text);
                text.clear();
                json::unescape(escaped, &mut text);
                let done = self.put(ty, data, Value::Text(&text), format);
                self.text = text;
                done
            }
            (Type::Array(_) | Type::Map(..) | Type::Tuple(_), _) => {
                self.composed(ty, data, value, format)
            }
            (Type::Date | Type::Date32 | Type::DateTime(_) | Type::DateTime64(..), _) => {
                self.time(ty, data, value, format)
            }
            (_, Value::UnixMs(ms)) => {
                let digits = Digits::new(ms);
                self.put(ty, data, Value::Number(digits.as_bytes()), format)
            }
            _ => self.scalar(ty, data, value),
        }
    }

    fn scalar(&mut self, ty: &Type, data: &mut Data, value: Value<'_>) -> Put {
        match *ty {
            Type::Int { bytes, signed } => integer(ty, data, value, bytes, signed),
            Type::Decimal { precision, scale } => self.decimal(ty, data, value, precision, scale),
            Type::Float32 => {
                let float: f32 = float(ty, value, f32::is_finite)?;
                data.push(float.to_le_bytes());
                Ok(())
            }
            Type::Float64 => {
                let float: f64 = float(ty, value, f64::is_finite)?;
                data.push(float.to_le_bytes());
                Ok(())
            }
            Type::Bool => {
                data.push([u8::from(boolean(ty, value)?)]);
                Ok(())
            }
            Type::String | Type::Dictionary { .. } => {
                match value {
                    Value::Headers(record) => data.push_text(&super::letter::headers_json(record)),
                    _ => data.push_text(text(ty, value)?),
                }
                Ok(())
            }
            Type::FixedString(width) => {
                let bytes = text(ty, value)?;
                if bytes.len() > width {
                    return Err(refuse(Reason::OutOfRange, ty, value));
                }
                data.push_padded(bytes, width);
                Ok(())
            }
            Type::Enum { wide, ref names } => {
                let number = enumerated(ty, value, names)?.to_le_bytes();
                if wide {
                    data.push(number)
                } else {
                    data.push([number[0]])
                }
                Ok(())
            }
            _ => address(ty, data, value),
        }
    }

    fn decimal(
        &mut self,
        ty: &Type,
        data: &mut Data,
        value: Value<'_>,
        precision: u8,
        scale: u8,
    ) -> Put {
        let digits = numeric(ty, value)?;
        let too_large = || refuse(Reason::OutOfRange, ty, value);
        let number = number::scaled(digits, i32::from(scale)).ok_or_else(too_large)?;
        if let Some(&limit) = number::WIDE_POW10.get(usize::from(precision)) {
            let magnitude = number.magnitude.narrow().ok_or_else(too_large)?;
            if magnitude >= limit {
                return Err(too_large());
            }
        } else if number.magnitude.wide() >= U256::from(10_u8).pow(u32::from(precision)) {
            return Err(too_large());
        }
        self.rounded += u32::from(!number.exact);
        whole(data, number, ty.width().unwrap_or(32));
        Ok(())
    }

    fn time(
        &mut self,
        ty: &Type,
        data: &mut Data,
        value: Value<'_>,
        format: Option<&TimeFormat>,
    ) -> Put {
        let moment = moment(value, format).map_err(|why| match (why, value) {
            (None, _) => refuse(Reason::WrongType, ty, value),
            (Some(NoTime::OutOfRange), _) => refuse(Reason::OutOfRange, ty, value),
            (Some(NoTime::Invalid), _) => match format {
                Some(format) => {
                    refuse(Reason::InvalidTime, format_args!("a time as {format}"), value)
                }
                None => refuse(Reason::InvalidTime, format_args!("a time for {ty}"), value),
            },
        })?;
        let too_far = || refuse(Reason::OutOfRange, ty, value);
        let days = moment.days();
        match ty {
            Type::Date => {
                let days = u16::try_from(days).map_err(|_| too_far())?;
                data.push(days.to_le_bytes());
            }
            Type::Date32 => {
                let days = i32::try_from(days).map_err(|_| too_far())?;
                if !WIDE_DAYS.contains(&i64::from(days)) {
                    return Err(too_far());
                }
                data.push(days.to_le_bytes());
            }
            Type::DateTime64(precision, _) => {
                if !WIDE_DAYS.contains(&days) {
                    return Err(too_far());
                }
                let (ticks, exact) = moment.ticks(*precision).ok_or_else(too_far)?;
                self.rounded += u32::from(!exact);
                data.push(ticks.to_le_bytes());
            }
            _ => {
                let (secs, exact) = moment.ticks(0).ok_or_else(too_far)?;
                let secs = u32::try_from(secs).map_err(|_| too_far())?;
                self.rounded += u32::from(!exact);
                data.push(secs.to_le_bytes());
            }
        }
        Ok(())
    }
}

/// None: this value is of no kind that a time can have.
fn moment(value: Value<'_>, format: Option<&TimeFormat>) -> Result<Moment, Option<NoTime>> {
    match value {
        Value::Number(text) => time::from_number(text, format).map_err(Some),
        Value::Text(text) => time::from_text(text, format).map_err(Some),
        Value::UnixMs(ms) => Ok(Moment::from_unix_ms(ms)),
        _ => Err(None),
    }
}

/// The text of a number, from a number or from a string that holds one.
fn numeric<'a>(ty: &Type, value: Value<'a>) -> Result<&'a [u8], Box<Reject>> {
    match value {
        Value::Number(text) => Ok(text),
        Value::Text(text) if number::is_number(text) => Ok(text),
        _ => Err(refuse(Reason::WrongType, ty, value)),
    }
}

/// The bytes of a String: a string's, or the literal text of a number.
fn text<'a>(ty: &Type, value: Value<'a>) -> Result<&'a [u8], Box<Reject>> {
    match value {
        Value::Number(text) | Value::Text(text) => Ok(text),
        _ => Err(refuse(Reason::WrongType, ty, value)),
    }
}

fn integer(ty: &Type, data: &mut Data, value: Value<'_>, bytes: u8, signed: bool) -> Put {
    let digits = numeric(ty, value)?;
    let too_large = || refuse(Reason::OutOfRange, ty, value);
    let number = number::scaled(digits, 0).ok_or_else(too_large)?;
    if !number.exact {
        return Err(refuse(Reason::WrongType, ty, value));
    }
    let bits = u32::from(bytes) * 8 - u32::from(signed);
    let fits = if let (Some(magnitude), true) = (number.magnitude.narrow(), bits < 128) {
        let limit = 1_u128 << bits;
        magnitude < limit || (number.negative && signed && magnitude == limit)
    } else {
        let magnitude = number.magnitude.wide();
        let rest = if bits == 256 { U256::ZERO } else { magnitude >> bits };
        let least = || number.negative && signed && magnitude == U256::ONE << bits;
        rest == U256::ZERO || least()
    };
    if !fits || (number.negative && !signed && number.magnitude.wide() != U256::ZERO) {
        return Err(too_large());
    }
    whole(data, number, usize::from(bytes));
    Ok(())
}

/// Two's complement, little end first; the caller has checked that it fits.
#[inline]
fn whole(data: &mut Data, number: Scaled, width: usize) {
    if width == 32 {
        let value = number.magnitude.wide();
        let value = if number.negative { value.wrapping_neg() } else { value };
        return data.push(value.to_le_bytes());
    }
    let value = number.magnitude.narrow().expect("checked to fit in 128 bits");
    let value = if number.negative { value.wrapping_neg() } else { value };
    let bytes = value.to_le_bytes();
    match (width, bytes) {
        (1, [a, ..]) => data.push([a]),
        (2, [a, b, ..]) => data.push([a, b]),
        (4, [a, b, c, d, ..]) => data.push([a, b, c, d]),
        (8, [a, b, c, d, e, f, g, h, ..]) => data.push([a, b, c, d, e, f, g, h]),
        _ => data.push(bytes),
    }
}

fn float<F: std::str::FromStr + Copy>(
    ty: &Type,
    value: Value<'_>,
    is_finite: fn(F) -> bool,
) -> Result<F, Box<Reject>> {
    let digits = numeric(ty, value)?;
    let parsed = str::from_utf8(digits).ok().and_then(|digits| digits.parse::<F>().ok());
    match parsed {
        Some(float) if is_finite(float) => Ok(float),
        Some(_) => Err(refuse(Reason::OutOfRange, ty, value)),
        None => Err(refuse(Reason::WrongType, ty, value)),
    }
}

fn boolean(ty: &Type, value: Value<'_>) -> Result<bool, Box<Reject>> {
    match value {
        Value::Bool(value) => Ok(value),
        Value::Number(b"0") => Ok(false),
        Value::Number(b"1") => Ok(true),
        _ => Err(refuse(Reason::WrongType, ty, value)),
    }
}

/// By name, or by a number that is declared.
fn enumerated(ty: &Type, value: Value<'_>, names: &[(String, i16)]) -> Result<i16, Box<Reject>> {
    let found = match value {
        Value::Text(text) => names.iter().find(|(name, _)| name.as_bytes() == text),
        Value::Number(text) => {
            let number = str::from_utf8(text).ok().and_then(|text| text.parse::<i16>().ok());
            names.iter().find(|(_, value)| Some(*value) == number)
        }
        _ => return Err(refuse(Reason::WrongType, ty, value)),
    };
    found.map(|&(_, value)| value).ok_or_else(|| refuse(Reason::InvalidValue, ty, value))
}

/// UUID, IPv4 and IPv6: only from their texts.
fn address(ty: &Type, data: &mut Data, value: Value<'_>) -> Put {
    let Value::Text(text) = value else {
        return Err(refuse(Reason::WrongType, ty, value));
    };
    let invalid = || refuse(Reason::InvalidValue, ty, value);
    let written = str::from_utf8(text).map_err(|_| invalid())?;
    match ty {
        Type::Uuid => {
            // Braces and urn: are no spelling that ClickHouse knows.
            let plain = text.len() == 36 || text.len() == 32;
            let uuid = uuid::Uuid::try_parse(written).ok().filter(|_| plain).ok_or_else(invalid)?;
            // Two 64-bit halves, each with its little end first.
            let (high, low) = uuid.as_u64_pair();
            data.push(high.to_le_bytes());
            data.push(low.to_le_bytes());
        }
        Type::Ipv4 => {
            let address: Ipv4Addr = written.parse().map_err(|_| invalid())?;
            data.push(address.to_bits().to_le_bytes());
        }
        _ => {
            let address = written
                .parse::<Ipv6Addr>()
                .or_else(|_| written.parse::<Ipv4Addr>().map(|v4| v4.to_ipv6_mapped()))
                .map_err(|_| invalid())?;
            data.push(address.octets());
        }
    }
    Ok(())
}
