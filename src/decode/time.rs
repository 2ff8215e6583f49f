//! Points in time as producers write them.
//!
//! Owns the accepted spellings and their rounding. A time without a zone is UTC, whatever zone the
//! column shows. Never guesses a date: what is not a time is refused.

use std::fmt;
use std::str::FromStr;

use jiff::fmt::strtime::{self, BrokenDownTime};
use jiff::tz::TimeZone;

use super::number::{self, Magnitude, POW10};

/// How a column's times are written.
///
/// Without one, these are accepted: integers, and digits in strings, whose unit follows from their
/// magnitude (below 10^11 seconds, below 10^14 milliseconds, below 10^17 microseconds, else
/// nanoseconds: so each unit covers 1973 to 5138, and no time in that span can be mistaken);
/// RFC 3339; and `YYYY-MM-DD`, alone or with `T` or a space, `HH:MM:SS` and a fraction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TimeFormat {
    /// A number, also in a string, also with a fraction: seconds since 1970.
    UnixS,
    UnixMs,
    UnixUs,
    UnixNs,
    /// Date, time and zone; all three are required.
    Rfc3339,
    /// A pattern of strftime, as jiff reads them.
    Strftime(String),
}

impl FromStr for TimeFormat {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Ok(match text {
            "unix_s" => Self::UnixS,
            "unix_ms" => Self::UnixMs,
            "unix_us" => Self::UnixUs,
            "unix_ns" => Self::UnixNs,
            "rfc3339" => Self::Rfc3339,
            _ => {
                check_pattern(text).map_err(|why| {
                    format!(
                        "{text:?} is no time format ({why}); use unix_s, unix_ms, unix_us, \
                         unix_ns, rfc3339, or a strftime pattern such as \"%d.%m.%Y %H:%M:%S\""
                    )
                })?;
                Self::Strftime(text.to_owned())
            }
        })
    }
}

/// As it is written in the configuration.
impl fmt::Display for TimeFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::UnixS => "unix_s",
            Self::UnixMs => "unix_ms",
            Self::UnixUs => "unix_us",
            Self::UnixNs => "unix_ns",
            Self::Rfc3339 => "rfc3339",
            Self::Strftime(pattern) => pattern,
        })
    }
}

/// jiff has no parser of patterns apart from their use: what a pattern prints it must read back.
fn check_pattern(pattern: &str) -> Result<(), String> {
    if !pattern.contains('%') {
        return Err("it has no % directive".to_owned());
    }
    let sample = jiff::civil::date(2001, 2, 3).at(4, 5, 6, 0).to_zoned(TimeZone::UTC);
    let sample = sample.map_err(|error| error.to_string())?;
    let text = strtime::format(pattern, &sample).map_err(|error| error.to_string())?;
    match patterned(pattern, text.as_bytes()) {
        Some(_) => Ok(()),
        None => Err("it does not give a whole date".to_owned()),
    }
}

/// A point in time, exact to 18 fraction digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Moment {
    /// Seconds since 1970, towards the past.
    secs: i64,
    /// Of the second, from 0.
    attos: u64,
    /// There were further digits, not all zero.
    more: bool,
}

const ATTO_DIGITS: u8 = 18;

impl Moment {
    pub(super) fn from_unix_ms(ms: i64) -> Self {
        Self::from_unix(ms, 3)
    }

    /// `value` counts units of 10^-`digits` seconds.
    fn from_unix(value: i64, digits: u8) -> Self {
        let units = POW10[usize::from(digits)].cast_signed();
        let attos = value.rem_euclid(units).cast_unsigned();
        let attos = attos * POW10[usize::from(ATTO_DIGITS - digits)];
        Self { secs: value.div_euclid(units), attos, more: false }
    }

    /// The calendar day in UTC, counted from 1970-01-01.
    pub(super) fn days(self) -> i64 {
        self.secs.div_euclid(86_400)
    }

    /// The count of 10^-`precision` seconds, rounded half-even, and whether it is exact. None: it
    /// does not fit. `precision` is at most 9.
    pub(super) fn ticks(self, precision: u8) -> Option<(i64, bool)> {
        let units = POW10[usize::from(precision)].cast_signed();
        let ticks = self.secs.checked_mul(units)?;
        if self.attos == 0 && !self.more {
            return Some((ticks, true));
        }
        let unit = POW10[usize::from(ATTO_DIGITS - precision)];
        let ticks = ticks.checked_add((self.attos / unit).cast_signed())?;
        let rest = self.attos % unit;
        let above = rest > unit / 2 || (rest == unit / 2 && (self.more || ticks % 2 != 0));
        Some((ticks.checked_add(i64::from(above))?, rest == 0 && !self.more))
    }
}

/// Why a value is no moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoTime {
    Invalid,
    OutOfRange,
}

/// A number as a time.
pub(super) fn from_number(text: &[u8], format: Option<&TimeFormat>) -> Result<Moment, NoTime> {
    let digits = match format {
        None => return by_magnitude(text),
        Some(TimeFormat::UnixS) => 0,
        Some(TimeFormat::UnixMs) => 3,
        Some(TimeFormat::UnixUs) => 6,
        Some(TimeFormat::UnixNs) => 9,
        // A pattern such as %Y%m%d reads numbers too.
        Some(TimeFormat::Strftime(pattern)) => {
            return patterned(pattern, text).ok_or(NoTime::Invalid);
        }
        Some(TimeFormat::Rfc3339) => return Err(NoTime::Invalid),
    };
    if let Some(value) = plain_integer(text) {
        return Ok(Moment::from_unix(value, digits));
    }
    let scale = ATTO_DIGITS - digits;
    let number = number::scaled(text, i32::from(scale)).ok_or(NoTime::OutOfRange)?;
    if !number.exact {
        return Err(NoTime::Invalid);
    }
    let Magnitude::Narrow(magnitude) = number.magnitude else { return Err(NoTime::OutOfRange) };
    let attos = i128::try_from(magnitude).map_err(|_| NoTime::OutOfRange)?;
    let attos = if number.negative { -attos } else { attos };
    from_attos(attos).ok_or(NoTime::OutOfRange)
}

fn from_attos(attos: i128) -> Option<Moment> {
    let second = i128::from(POW10[usize::from(ATTO_DIGITS)]);
    let secs = i64::try_from(attos.div_euclid(second)).ok()?;
    let attos = u64::try_from(attos.rem_euclid(second)).ok()?;
    Some(Moment { secs, attos, more: false })
}

fn by_magnitude(text: &[u8]) -> Result<Moment, NoTime> {
    let Some(value) = plain_integer(text) else {
        // 5e9 and 1.0 are integers too, but nobody writes times like that.
        let whole = !text.iter().any(|byte| matches!(byte, b'.' | b'e' | b'E'));
        return Err(if whole { NoTime::OutOfRange } else { NoTime::Invalid });
    };
    Ok(Moment::from_unix(value, unit(value.unsigned_abs())))
}

/// The unit that a magnitude is in, as the power of ten that it has in a second.
#[inline]
pub(super) fn unit(magnitude: u64) -> u8 {
    match magnitude {
        ..100_000_000_000 => 0,
        100_000_000_000..100_000_000_000_000 => 3,
        100_000_000_000_000..100_000_000_000_000_000 => 6,
        _ => 9,
    }
}

/// Digits with or without a minus, within 64 bits.
fn plain_integer(text: &[u8]) -> Option<i64> {
    let negative = text.first() == Some(&b'-');
    let digits = &text[usize::from(negative)..];
    if digits.is_empty() || digits.len() > 19 {
        return None;
    }
    let mut value: i64 = 0;
    for &byte in digits {
        if !byte.is_ascii_digit() {
            return None;
        }
        value = value.checked_mul(10)?.checked_add(i64::from(byte - b'0'))?;
    }
    Some(if negative { -value } else { value })
}

/// A string as a time.
pub(super) fn from_text(text: &[u8], format: Option<&TimeFormat>) -> Result<Moment, NoTime> {
    match format {
        Some(TimeFormat::Strftime(pattern)) => patterned(pattern, text).ok_or(NoTime::Invalid),
        Some(TimeFormat::Rfc3339) => match written(text) {
            Some((moment, true)) => Ok(moment),
            _ => Err(NoTime::Invalid),
        },
        Some(_) if number::is_number(text) => from_number(text, format),
        Some(_) => Err(NoTime::Invalid),
        None => match written(text) {
            Some((moment, _)) => Ok(moment),
            // Leading zeros would be no number, but they are digits.
            None if text.iter().any(u8::is_ascii_digit) && plain(text) => by_magnitude(text),
            None => Err(NoTime::Invalid),
        },
    }
}

fn plain(text: &[u8]) -> bool {
    text.strip_prefix(b"-").unwrap_or(text).iter().all(u8::is_ascii_digit)
}

/// `YYYY-MM-DD`, alone or with a time, a fraction and a zone; and whether there was a zone.
fn written(text: &[u8]) -> Option<(Moment, bool)> {
    let (date, rest) = text.split_first_chunk::<10>()?;
    let [y0, y1, y2, y3, b'-', m0, m1, b'-', d0, d1] = *date else { return None };
    let year = two(y0, y1)? * 100 + two(y2, y3)?;
    let days = days_from_civil(year, two(m0, m1)?, two(d0, d1)?)?;
    let midnight = days * 86_400;
    if rest.is_empty() {
        return Some((Moment { secs: midnight, attos: 0, more: false }, false));
    }
    let (clock, rest) = rest.split_first_chunk::<9>()?;
    let [b'T' | b't' | b' ', h0, h1, b':', i0, i1, b':', s0, s1] = *clock else { return None };
    let (hour, minute, second) = (two(h0, h1)?, two(i0, i1)?, two(s0, s1)?);
    if hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let (attos, more, rest) = fraction(rest)?;
    let (offset, zoned) = zone(rest)?;
    let secs = midnight + hour * 3_600 + minute * 60 + second - offset;
    Some((Moment { secs, attos, more }, zoned))
}

fn two(tens: u8, ones: u8) -> Option<i64> {
    if !tens.is_ascii_digit() || !ones.is_ascii_digit() {
        return None;
    }
    Some(i64::from(tens - b'0') * 10 + i64::from(ones - b'0'))
}

/// The fraction of a second: its attoseconds, whether digits beyond them are not zero, the rest.
fn fraction(text: &[u8]) -> Option<(u64, bool, &[u8])> {
    let Some(digits) = text.strip_prefix(b".") else { return Some((0, false, text)) };
    let count = digits.iter().take_while(|byte| byte.is_ascii_digit()).count();
    if count == 0 {
        return None;
    }
    let (digits, rest) = digits.split_at(count);
    let (used, beyond) = digits.split_at(count.min(usize::from(ATTO_DIGITS)));
    let value = used.iter().fold(0, |value, &digit| value * 10 + u64::from(digit - b'0'));
    let attos = value * POW10[usize::from(ATTO_DIGITS) - used.len()];
    Some((attos, beyond.iter().any(|&digit| digit != b'0'), rest))
}

/// Seconds east of UTC, and whether a zone was given at all.
fn zone(text: &[u8]) -> Option<(i64, bool)> {
    match *text {
        [] => Some((0, false)),
        [b'Z' | b'z'] => Some((0, true)),
        [sign @ (b'+' | b'-'), h0, h1, b':', m0, m1] => {
            let (hours, minutes) = (two(h0, h1)?, two(m0, m1)?);
            if hours > 23 || minutes > 59 {
                return None;
            }
            let secs = hours * 3_600 + minutes * 60;
            Some((if sign == b'-' { -secs } else { secs }, true))
        }
        _ => None,
    }
}

/// Days since 1970-01-01 in the proleptic Gregorian calendar; None if there is no such day.
fn days_from_civil(year: i64, month: i64, day: i64) -> Option<i64> {
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let length = match month {
        1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
        4 | 6 | 9 | 11 => 30,
        2 => 28 + i64::from(leap),
        _ => return None,
    };
    if day < 1 || day > length {
        return None;
    }
    // Years that start in March have their leap day last (Howard Hinnant's days_from_civil).
    let shifted = year - i64::from(month <= 2);
    let era = shifted.div_euclid(400);
    let of_era = shifted.rem_euclid(400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    Some(era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468)
}

fn patterned(pattern: &str, text: &[u8]) -> Option<Moment> {
    let parsed = BrokenDownTime::parse(pattern, text).ok()?;
    let zoned = parsed.offset().is_some()
        || parsed.iana_time_zone().is_some()
        || parsed.timestamp().is_some();
    let stamp = if zoned {
        parsed.to_timestamp().ok().or_else(|| Some(parsed.to_zoned().ok()?.timestamp()))?
    } else {
        let civil = match parsed.to_datetime() {
            Ok(civil) => civil,
            Err(_) if parsed.hour().is_none() => {
                parsed.to_date().ok()?.to_datetime(jiff::civil::Time::midnight())
            }
            Err(_) => return None,
        };
        civil.to_zoned(TimeZone::UTC).ok()?.timestamp()
    };
    from_attos(stamp.as_nanosecond() * 1_000_000_000)
}
