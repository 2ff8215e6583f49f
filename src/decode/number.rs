//! JSON numbers: how they are spelled, and a number's text as an exact whole number at a decimal
//! scale.
//!
//! Owns the rounding rule (half-even) and the meaning of exponents. Never goes through a float. Its
//! cost is bounded by the text's length, whatever the exponent says.

use ethnum::U256;

/// `text × 10^scale`, rounded half-even to a whole number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Scaled {
    pub(super) negative: bool,
    pub(super) magnitude: Magnitude,
    /// Nothing was rounded away.
    pub(super) exact: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Magnitude {
    Narrow(u128),
    /// More digits than fit in 128 bits for certain; the value may still be small enough.
    Wide(U256),
}

impl Magnitude {
    pub(super) fn narrow(self) -> Option<u128> {
        match self {
            Self::Narrow(value) => Some(value),
            Self::Wide(value) => value.try_into().ok(),
        }
    }

    pub(super) fn wide(self) -> U256 {
        match self {
            Self::Narrow(value) => U256::from(value),
            Self::Wide(value) => value,
        }
    }
}

/// A number as it was read while its grammar was checked, so that no digit is looked at twice:
/// `digits / 10^fraction`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Plain {
    pub(super) negative: bool,
    /// How many of the digits stand behind the point.
    pub(super) fraction: u8,
    pub(super) digits: u64,
}

impl Plain {
    /// So many digits fit in 64 bits, whatever they are.
    const MAX_DIGITS: usize = 19;
}

/// A number that was read.
pub(super) struct Number {
    pub(super) end: usize,
    /// None: read it from its text.
    pub(super) plain: Option<Plain>,
}

/// Reads the number that starts at `at`; Err says where it stops being one.
#[inline]
pub(super) fn read(bytes: &[u8], at: usize) -> Result<Number, usize> {
    let mut digits: u64 = 0;
    let mut run = |mut at: usize| -> Result<usize, usize> {
        let start = at;
        while let Some(digit) =
            bytes.get(at).map(|byte| byte.wrapping_sub(b'0')).filter(|d| *d < 10)
        {
            digits = digits.wrapping_mul(10).wrapping_add(u64::from(digit));
            at += 1;
        }
        if at == start { Err(at) } else { Ok(at) }
    };
    let negative = bytes.get(at) == Some(&b'-');
    let first = at + usize::from(negative);
    // A zero ends the integer part: what follows another digit is refused by the next token.
    let mut end = if bytes.get(first) == Some(&b'0') { first + 1 } else { run(first)? };
    let mut count = end - first;
    let mut fraction = 0;
    if bytes.get(end) == Some(&b'.') {
        let point = end;
        end = run(point + 1)?;
        fraction = end - point - 1;
        count += fraction;
    }
    if let Some(b'e' | b'E') = bytes.get(end) {
        let signed = matches!(bytes.get(end + 1), Some(b'+' | b'-'));
        end = run(end + 1 + usize::from(signed))?;
        return Ok(Number { end, plain: None });
    }
    let fraction = u8::try_from(fraction).ok().filter(|_| count <= Plain::MAX_DIGITS);
    let plain = fraction.map(|fraction| Plain { negative, fraction, digits });
    Ok(Number { end, plain })
}

/// Whether the whole text is a number as JSON spells them: for numbers in strings.
pub(super) fn is_number(text: &[u8]) -> bool {
    read(text, 0).is_ok_and(|number| number.end == text.len())
}

pub(super) const POW10: [u64; 20] = {
    let mut powers = [1; 20];
    let mut exponent = 1;
    while exponent < 20 {
        powers[exponent] = powers[exponent - 1] * 10;
        exponent += 1;
    }
    powers
};

/// Every power of ten that 128 bits hold: raising one anew for each value costs more than the rest.
pub(super) const WIDE_POW10: [u128; 39] = {
    let mut powers = [1; 39];
    let mut exponent = 1;
    while exponent < 39 {
        powers[exponent] = powers[exponent - 1] * 10;
        exponent += 1;
    }
    powers
};

/// None: it does not fit in 256 bits. `text` is a valid JSON number.
#[inline]
pub(super) fn scaled(text: &[u8], scale: i32) -> Option<Scaled> {
    short(text, scale).or_else(|| long(text, scale))
}

/// Up to 19 characters without an exponent: the digits fit in 64 bits. None: use [`long`].
#[inline]
fn short(text: &[u8], scale: i32) -> Option<Scaled> {
    if text.len() > 19 {
        return None;
    }
    let negative = text.first() == Some(&b'-');
    let mut digits: u64 = 0;
    let mut fraction: Option<i32> = None;
    for &byte in &text[usize::from(negative)..] {
        match byte {
            b'0'..=b'9' => {
                digits = digits * 10 + u64::from(byte - b'0');
                fraction = fraction.map(|count| count + 1);
            }
            b'.' => fraction = Some(0),
            _ => return None,
        }
    }
    let shift = scale - fraction.unwrap_or(0);
    let power = *POW10.get(shift.unsigned_abs() as usize)?;
    if shift >= 0 {
        let magnitude = Magnitude::Narrow(u128::from(digits) * u128::from(power));
        return Some(Scaled { negative, magnitude, exact: true });
    }
    let (kept, dropped) = (digits / power, digits % power);
    let up = match dropped.cmp(&(power / 2)) {
        std::cmp::Ordering::Less => false,
        std::cmp::Ordering::Equal => kept % 2 == 1,
        std::cmp::Ordering::Greater => true,
    };
    let magnitude = Magnitude::Narrow(u128::from(kept) + u128::from(up));
    Some(Scaled { negative, magnitude, exact: dropped == 0 })
}

/// Digits that 256 bits can hold: 2^256 has 78.
const MAX_DIGITS: i64 = 78;
/// Digits that 128 bits can always hold.
const NARROW_DIGITS: i64 = 38;
/// Far beyond any number of digits that a payload can have, and far from overflow in an i64.
const MAX_EXPONENT: i64 = 1 << 50;

fn long(text: &[u8], scale: i32) -> Option<Scaled> {
    let (negative, whole, fraction, exponent) = parts(text);
    let digits = || whole.iter().chain(fraction).skip_while(|&&digit| digit == b'0');
    let count = i64::try_from(digits().count()).ok()?;
    let fraction_len = i64::try_from(fraction.len()).ok()?;
    // The value is these digits times ten to this power.
    let power = exponent - fraction_len + i64::from(scale);
    if count == 0 {
        return Some(Scaled { negative, magnitude: Magnitude::Narrow(0), exact: true });
    }
    let kept = count + power.min(0);
    if kept + power.max(0) > MAX_DIGITS {
        return None;
    }
    // A negative count keeps nothing: the value is below a tenth of the last place.
    let kept_len = usize::try_from(kept.max(0)).ok()?;
    let mut dropped = digits().skip(kept_len);
    let (half, exact) = match dropped.next() {
        None => (std::cmp::Ordering::Less, true),
        Some(&first) => {
            let tail = dropped.any(|&digit| digit != b'0');
            let half =
                if kept < 0 { std::cmp::Ordering::Less } else { (first, tail).cmp(&(b'5', false)) };
            (half, first == b'0' && !tail)
        }
    };
    let zeros = u32::try_from(power.max(0)).ok()?;
    let magnitude = if kept + power.max(0) <= NARROW_DIGITS {
        let value = digits()
            .take(kept_len)
            .fold(0_u128, |value, &digit| value * 10 + u128::from(digit - b'0'));
        let up = half.is_gt() || (half.is_eq() && value % 2 == 1);
        Magnitude::Narrow(value * 10_u128.pow(zeros) + u128::from(up))
    } else {
        let ten = U256::from(10_u8);
        let value = digits().take(kept_len).try_fold(U256::ZERO, |value, &digit| {
            value.checked_mul(ten)?.checked_add(U256::from(digit - b'0'))
        })?;
        let up = half.is_gt() || (half.is_eq() && value % 2 == U256::ONE);
        let value = value.checked_mul(ten.pow(zeros))?;
        Magnitude::Wide(value.checked_add(U256::from(up))?)
    };
    Some(Scaled { negative, magnitude, exact })
}

/// Sign, digits before and after the point, and the exponent (clamped).
fn parts(text: &[u8]) -> (bool, &[u8], &[u8], i64) {
    let negative = text.first() == Some(&b'-');
    let text = &text[usize::from(negative)..];
    let (mantissa, exponent) = match memchr::memchr2(b'e', b'E', text) {
        Some(at) => (&text[..at], clamped(&text[at + 1..])),
        None => (text, 0),
    };
    let (whole, fraction) = match memchr::memchr(b'.', mantissa) {
        Some(at) => (&mantissa[..at], &mantissa[at + 1..]),
        None => (mantissa, &[][..]),
    };
    (negative, whole, fraction, exponent)
}

fn clamped(exponent: &[u8]) -> i64 {
    let negative = exponent.first() == Some(&b'-');
    let magnitude = exponent
        .iter()
        .filter(|byte| byte.is_ascii_digit())
        .fold(0_i64, |value, &digit| (value * 10 + i64::from(digit - b'0')).min(MAX_EXPONENT));
    if negative { -magnitude } else { magnitude }
}

/// An integer's digits, without an allocation: for metadata that goes the way of numbers.
#[derive(Debug)]
pub(super) struct Digits {
    bytes: [u8; 20],
    start: usize,
}

impl Digits {
    pub(super) fn new(value: i64) -> Self {
        let mut digits = Self { bytes: [0; 20], start: 20 };
        let mut rest = value.unsigned_abs();
        loop {
            let digit = u8::try_from(rest % 10).expect("a remainder of ten");
            digits.push(b'0' + digit);
            rest /= 10;
            if rest == 0 {
                break;
            }
        }
        if value < 0 {
            digits.push(b'-');
        }
        digits
    }

    fn push(&mut self, byte: u8) {
        self.start -= 1;
        self.bytes[self.start] = byte;
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.bytes[self.start..]
    }
}
