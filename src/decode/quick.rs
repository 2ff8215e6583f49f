//! The conversions that nearly every value needs, from where the first pass found it.
//!
//! Owns no rule: what it puts, `Convert` would put with the same bytes, which the tests hold it to.
//! Whatever is unusual (a value to be rounded, refused or unescaped) it leaves to `Convert`.

use super::column::Data;
use super::json::{Kind, Span};
use super::number::{POW10, Plain, WIDE_POW10};
use super::time::TimeFormat;
use super::types::Type;

/// What is usual for a column.
#[derive(Debug, Clone, Copy)]
pub(super) struct Quick {
    nullable: bool,
    to: To,
}

#[derive(Debug, Clone, Copy)]
enum To {
    Text,
    /// Whole numbers up to this one, in so many bytes.
    Whole {
        most: u64,
        signed: bool,
        bytes: u8,
    },
    /// Numbers below `limit`, after so many digits were moved before the point.
    Decimal {
        scale: u8,
        limit: u64,
        bytes: u8,
    },
    Float,
    /// Whole numbers, in the unit that they are written in if that is given.
    Time {
        precision: u8,
        unit: Option<u8>,
    },
    /// Nothing is usual.
    Convert,
}

/// The last second of DateTime64: the end of 2299.
const LAST_SECOND: u64 = 120_530 * 86_400 - 1;

impl Quick {
    pub(super) fn new(ty: &Type, format: Option<&TimeFormat>) -> Self {
        if let Type::Nullable(inner) = ty {
            return Self { nullable: true, ..Self::new(inner, format) };
        }
        let to = match *ty {
            Type::String | Type::Dictionary { .. } => To::Text,
            Type::Int { bytes: bytes @ (1 | 2 | 4 | 8), signed } => {
                let most = u64::MAX >> (64 - 8 * u32::from(bytes) + u32::from(signed));
                To::Whole { most, signed, bytes }
            }
            Type::Decimal { precision: precision @ ..=38, scale } => {
                // Beyond 64 bits every plain number is below the limit.
                let limit = WIDE_POW10[usize::from(precision)].try_into().unwrap_or(u64::MAX);
                let bytes = ty.width().and_then(|width| width.try_into().ok()).unwrap_or(16);
                To::Decimal { scale, limit, bytes }
            }
            Type::Float64 => To::Float,
            Type::DateTime64(precision @ ..=9, _) => match format {
                None => To::Time { precision, unit: None },
                Some(TimeFormat::UnixS) => To::Time { precision, unit: Some(0) },
                Some(TimeFormat::UnixMs) => To::Time { precision, unit: Some(3) },
                Some(TimeFormat::UnixUs) => To::Time { precision, unit: Some(6) },
                Some(TimeFormat::UnixNs) => To::Time { precision, unit: Some(9) },
                Some(_) => To::Convert,
            },
            _ => To::Convert,
        };
        Self { nullable: false, to }
    }

    /// Puts the value if it is a usual one; false: nothing was put.
    #[inline]
    pub(super) fn put(self, json: &[u8], span: Span, data: &mut Data) -> bool {
        match (self.to, span.kind) {
            (To::Text, Kind::Text) => {
                self.values(data).push_text(span.of(json));
                true
            }
            (_, Kind::Number(plain)) => self.number(plain, data),
            _ => false,
        }
    }

    /// Puts the numbers of an array up to the first that is no usual one; says how many.
    pub(super) fn put_numbers(self, parts: impl Iterator<Item = Span>, data: &mut Data) -> usize {
        match self.to {
            _ if self.nullable => 0,
            To::Whole { most, signed, bytes } => {
                numbers(parts, data, bytes, |plain| whole(plain, most, signed))
            }
            To::Decimal { scale, limit, bytes: bytes @ ..=8 } => {
                numbers(parts, data, bytes, |plain| decimal(plain, scale, limit))
            }
            To::Float => numbers(parts, data, 8, |plain| float(plain).map(f64::to_bits)),
            _ => 0,
        }
    }

    #[inline]
    fn number(self, plain: Plain, data: &mut Data) -> bool {
        let (value, bytes) = match self.to {
            To::Whole { most, signed, bytes } => (whole(plain, most, signed), bytes),
            To::Decimal { scale, limit, bytes } => (decimal(plain, scale, limit), bytes),
            To::Time { precision, unit } => (time(plain, precision, unit), 8),
            To::Float => (float(plain).map(f64::to_bits), 8),
            To::Text | To::Convert => return false,
        };
        let Some(value) = value else { return false };
        let data = self.values(data);
        data.push_low(value, bytes);
        if bytes > 8 {
            let negative = plain.negative && value > 0;
            data.push([if negative { 0xff } else { 0 }; 8]);
        }
        true
    }

    #[inline]
    fn values(self, data: &mut Data) -> &mut Data {
        if self.nullable { data.nullable(false) } else { data }
    }
}

/// Each in so many bytes.
#[inline]
fn numbers(
    parts: impl Iterator<Item = Span>,
    data: &mut Data,
    bytes: u8,
    value: impl Fn(Plain) -> Option<u64>,
) -> usize {
    let usual = parts.map_while(|part| match part.kind {
        Kind::Number(plain) => value(plain),
        _ => None,
    });
    usual.map(|value| data.push_low(value, bytes)).count()
}

/// Two's complement.
#[inline]
fn signed(magnitude: u64, plain: Plain) -> u64 {
    if plain.negative { magnitude.wrapping_neg() } else { magnitude }
}

/// A whole number up to `most`.
#[inline]
fn whole(plain: Plain, most: u64, is_signed: bool) -> Option<u64> {
    let usual = plain.fraction == 0 && plain.digits <= most && (is_signed || !plain.negative);
    usual.then_some(signed(plain.digits, plain))
}

/// The number times ten to `scale`, if that is exact and below `limit`.
#[inline]
fn decimal(plain: Plain, scale: u8, limit: u64) -> Option<u64> {
    let power = POW10.get(usize::from(scale.checked_sub(plain.fraction)?))?;
    let value = plain.digits.checked_mul(*power).filter(|value| *value < limit)?;
    Some(signed(value, plain))
}

/// The ticks of 10^-`precision` seconds from a whole number of units of 10^-`unit` seconds, the
/// unit guessed from the magnitude where it is not given (`time.rs` has the rule).
#[inline]
fn time(plain: Plain, precision: u8, unit: Option<u8>) -> Option<u64> {
    let Plain { negative: false, fraction: 0, digits } = plain else { return None };
    let unit = unit.unwrap_or_else(|| super::time::unit(digits));
    if digits / POW10[usize::from(unit)] > LAST_SECOND {
        return None;
    }
    let ticks = match precision.checked_sub(unit) {
        Some(more) => digits.checked_mul(POW10[usize::from(more)])?,
        None => {
            let less = POW10[usize::from(unit - precision)];
            (digits % less == 0).then_some(digits / less)?
        }
    };
    i64::try_from(ticks).is_ok().then_some(ticks)
}

/// The number as a float, where one division rounds as the whole number would: digits and power
/// are exact floats (W. Clinger, How to read floating point numbers accurately, 1990).
#[inline]
fn float(plain: Plain) -> Option<f64> {
    const POWERS: [f64; 23] = [
        1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16,
        1e17, 1e18, 1e19, 1e20, 1e21, 1e22,
    ];
    let power = POWERS.get(usize::from(plain.fraction))?;
    if plain.digits >> f64::MANTISSA_DIGITS != 0 {
        return None;
    }
    #[expect(clippy::cast_precision_loss, reason = "no more bits than a float's mantissa")]
    let float = plain.digits as f64 / power;
    Some(if plain.negative { -float } else { float })
}
