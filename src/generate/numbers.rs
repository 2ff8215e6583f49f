//! The arithmetic behind generated values. Integers only, and only operations that ClickHouse has
//! too, so that one SQL expression (see `check.rs`) gives every value again from its `_seq`.

use std::fmt;
use std::io::Write as _;

use jiff::Timestamp;

use crate::record::UnixMs;

/// 2024-01-01T00:00:00Z, a Monday: weekly bars start where weeks do.
pub(super) const START_MS: UnixMs = 1_704_067_200_000;

/// A number that looks random, below 2^32. The multiplication wraps at 2^64, as ClickHouse's does.
pub(super) fn mix(seed: u64, n: u64) -> u64 {
    n.wrapping_add(seed.wrapping_mul(1_000_003)).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32
}

/// A slow swing and a quick one: prices that wander and come back, 0 to 2,153.
pub(super) fn wave(n: u64) -> i64 {
    (signed(n % 4_001) - 2_000).abs() + (signed(n % 307) - 153).abs()
}

/// For numbers that are small by their making.
pub(super) fn signed(n: u64) -> i64 {
    i64::try_from(n).expect("counts and remainders are far below 2^63")
}

/// Picks one of a list by a number.
pub(super) fn pick<T: Copy>(list: &[T], n: u64) -> T {
    let len = u64::try_from(list.len()).expect("a list fits");
    list[usize::try_from(n % len).expect("an index fits")]
}

/// Appends text; memory takes everything.
pub(super) fn put(out: &mut Vec<u8>, text: fmt::Arguments<'_>) {
    out.write_fmt(text).expect("a Vec takes every write");
}

/// A decimal number with five digits after the point, held in units of 0.00001.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Points(pub(super) i64);

impl fmt::Display for Points {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.0 < 0 { "-" } else { "" };
        let digits = self.0.unsigned_abs();
        write!(f, "{sign}{}.{:05}", digits / 100_000, digits % 100_000)
    }
}

/// The same number as a Python program prints the sum of floats: off by less than the last digit
/// in either direction, so that rounding to five digits gives the exact number again.
#[derive(Debug, Clone, Copy)]
pub(super) struct Noisy(pub(super) Points, pub(super) u64);

impl fmt::Display for Noisy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(exact, n) = *self;
        match n % 32 {
            5 if exact.0 > 0 => write!(f, "{}99999999999", Points(exact.0 - 1)),
            18 if exact.0 > 0 => write!(f, "{exact}00000000002"),
            _ => write!(f, "{exact}"),
        }
    }
}

/// `YYYY-MM-DD HH:MM:SS[.ffffff]`, naive, as Python's `str(datetime)` has it.
pub(super) fn python_time(ms: UnixMs) -> String {
    let whole = time(ms, "%Y-%m-%d %H:%M:%S");
    match ms.rem_euclid(1_000) {
        0 => whole,
        fraction => format!("{whole}.{fraction:03}000"),
    }
}

/// ISO 8601 with a `Z`.
pub(super) fn iso_time(ms: UnixMs) -> String {
    time(ms, "%Y-%m-%dT%H:%M:%SZ")
}

pub(super) fn time(ms: UnixMs, format: &str) -> String {
    let at = Timestamp::from_millisecond(ms).expect("generated times are within jiff's range");
    at.strftime(format).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_print_five_digits() {
        assert_eq!(Points(108_543).to_string(), "1.08543");
        assert_eq!(Points(-7).to_string(), "-0.00007");
        assert_eq!(Points(14_800_000).to_string(), "148.00000");
    }

    #[test]
    fn noise_rounds_back_to_the_exact_number() {
        for n in 0..64 {
            let printed: f64 = Noisy(Points(108_543), n).to_string().parse().unwrap();
            assert_eq!(format!("{printed:.5}"), "1.08543");
        }
        assert_eq!(Noisy(Points(108_543), 5).to_string(), "1.0854299999999999");
    }

    #[test]
    fn a_whole_second_has_no_fraction() {
        assert_eq!(python_time(START_MS), "2024-01-01 00:00:00");
        assert_eq!(python_time(START_MS + 34), "2024-01-01 00:00:00.034000");
        assert_eq!(iso_time(START_MS), "2024-01-01T00:00:00Z");
    }
}
