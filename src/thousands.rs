//! Counts as people read them: `41,234`. For log lines and the command line; JSON and metrics
//! carry plain numbers.

/// The number with a comma between each three digits.
#[must_use]
pub fn thousands(number: impl ToString + Integer) -> String {
    let plain = number.to_string();
    let (sign, digits) = plain.split_at(usize::from(plain.starts_with('-')));
    let mut grouped = String::with_capacity(plain.len() + digits.len() / 3);
    grouped.push_str(sign);
    for (index, digit) in digits.char_indices() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// The number, and of what: `1 pause`, `1,204 dead letters`.
#[must_use]
pub fn counted(number: u64, one: &str) -> String {
    let several = if number == 1 { "" } else { "s" };
    format!("{} {one}{several}", thousands(number))
}

/// The types that [`thousands`] takes: those that print as digits only.
pub trait Integer {}
impl Integer for u32 {}
impl Integer for u64 {}
impl Integer for usize {}
impl Integer for i64 {}

#[cfg(test)]
mod tests {
    use super::{counted, thousands};

    #[test]
    fn a_comma_stands_between_each_three_digits() {
        let cases = [(0_i64, "0"), (999, "999"), (1_000, "1,000"), (41_234, "41,234")];
        for (number, text) in cases {
            assert_eq!(thousands(number), text);
        }
        assert_eq!(thousands(1_234_567_usize), "1,234,567");
        assert_eq!(thousands(-1_234_i64), "-1,234");
        assert_eq!(thousands(-123_i64), "-123");
        assert_eq!(thousands(u64::MAX), "18,446,744,073,709,551,615");
    }

    #[test]
    fn one_is_one() {
        let said = [0, 1, 2, 1_001].map(|number| counted(number, "row"));
        assert_eq!(said, ["0 rows", "1 row", "2 rows", "1,001 rows"]);
    }
}
