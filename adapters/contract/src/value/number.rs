//! Exact comparison of number literals, to decide whether a type can hold a number as written.

use rust_decimal::Decimal;
use serde_json::{Number, Value as Json};

/// The maximum number of decimal places.
const MAX_SCALE: i64 = 28;

/// The value of a number literal: these digits times a power of ten. Leading and trailing zeros are removed, so that two
/// literals of one number are equal.
#[derive(Debug)]
struct Literal<'a> {
    negative: bool,
    /// The digits before and after the decimal point.
    digits: (&'a str, &'a str),
    exponent: i64,
}

impl<'a> Literal<'a> {
    /// Parses a number as JSON defines it (RFC 8259, 6): not `1_000`, `.5`, `1.`, `0x1`, `inf` or `NaN`, all of which some
    /// parsers accept. Leading zeros are accepted, as people write them.
    fn parse(text: &'a str) -> Option<Self> {
        let is_digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let unsigned = text.strip_prefix('-').unwrap_or(text);
        let (mantissa, exponent) = unsigned.split_once(['e', 'E']).unwrap_or((unsigned, "0"));
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, "0"));
        if !is_digits(whole)
            || !is_digits(fraction)
            || !is_digits(exponent.strip_prefix(['+', '-']).unwrap_or(exponent))
        {
            return None;
        }
        // Beyond this exponent no type can hold the number, so larger ones are clamped.
        let far = if exponent.starts_with('-') { -1_000_000_000_000 } else { 1_000_000_000_000 };
        let exponent = exponent.parse().unwrap_or(far).clamp(-1_000_000_000_000, 1_000_000_000_000);
        Some(Self::normalized(text.starts_with('-'), whole, fraction, exponent))
    }

    fn normalized(negative: bool, whole: &'a str, fraction: &'a str, exponent: i64) -> Self {
        let length = |text: &str| i64::try_from(text.len()).unwrap_or(i64::MAX);
        let (mut whole, mut fraction) = (whole.trim_start_matches('0'), fraction.trim_end_matches('0'));
        let mut exponent = exponent - length(fraction);
        if whole.is_empty() {
            fraction = fraction.trim_start_matches('0');
        }
        if fraction.is_empty() {
            let kept = whole.trim_end_matches('0');
            exponent += length(whole) - length(kept);
            whole = kept;
        }
        if whole.is_empty() && fraction.is_empty() {
            // Positive and negative zero are equal.
            return Self { negative: false, digits: ("", ""), exponent: 0 };
        }
        Self { negative, digits: (whole, fraction), exponent }
    }

    fn is_same(&self, other: &Self) -> bool {
        let digits = |literal: &Self| literal.digits.0.len() + literal.digits.1.len();
        let each =
            |literal: &Self| literal.digits.0.bytes().chain(literal.digits.1.bytes()).collect::<Vec<_>>();
        self.negative == other.negative
            && self.exponent == other.exponent
            && digits(self) == digits(other)
            && each(self) == each(other)
    }

    /// The digits as a whole number, if there are at most this many.
    fn mantissa(&self, most: usize) -> Option<u128> {
        let (whole, fraction) = self.digits;
        if whole.len() + fraction.len() > most {
            return None;
        }
        let digits = whole.bytes().chain(fraction.bytes());
        Some(digits.fold(0, |number, digit| number * 10 + u128::from(digit - b'0')))
    }

    /// The number as an integer, if it is one.
    fn to_integer(&self) -> Option<i128> {
        let power = u32::try_from(self.exponent).ok().filter(|power| *power <= 20)?;
        let number = i128::try_from(self.mantissa(20)? * 10_u128.pow(power)).ok()?;
        Some(if self.negative { -number } else { number })
    }

    fn decimal(&self) -> Option<Decimal> {
        let (power, scale) = (self.exponent.max(0), (-self.exponent).max(0));
        if power > MAX_SCALE || scale > MAX_SCALE {
            return None;
        }
        let number = self.mantissa(29)?.checked_mul(10_u128.pow(u32::try_from(power).ok()?))?;
        let number = i128::try_from(number).ok()?;
        let number = if self.negative { -number } else { number };
        Decimal::try_from_i128_with_scale(number, u32::try_from(scale).ok()?).ok()
    }
}

/// Whether two literals denote the same number.
fn is_same_number(one: &str, other: &str) -> bool {
    matches!((Literal::parse(one), Literal::parse(other)), (Some(one), Some(other)) if one.is_same(&other))
}

/// Whether a text is a number as JSON defines it; leading zeros are accepted.
#[must_use]
pub fn is_number(text: &str) -> bool {
    Literal::parse(text).is_some()
}

/// The double of a literal, if the shortest form of the double denotes the same number.
pub(super) fn float(text: &str) -> Option<f64> {
    let number = is_number(text).then(|| text.parse::<f64>().ok())?.filter(|number| number.is_finite())?;
    is_same_number(text, ryu::Buffer::new().format_finite(number)).then_some(number + 0.0)
}

/// The same in single precision; a double that is exactly the number is accepted as well.
pub(super) fn float32(text: &str) -> Option<f32> {
    let number = is_number(text).then(|| text.parse::<f32>().ok())?.filter(|number| number.is_finite())?;
    let kept = is_same_number(text, ryu::Buffer::new().format_finite(number))
        || float(text) == Some(f64::from(number));
    kept.then_some(number + 0.0)
}

/// The decimal of a literal, if all its digits are kept.
pub(super) fn decimal(text: &str) -> Option<Decimal> {
    Literal::parse(text)?.decimal()
}

/// The stored form of a JSON number, if that is a different number from the literal: the literal that would be right.
///
/// A JSON number is a 64-bit integer or a double (RFC 8259, 6, names both as what most implementations support); `None` if
/// the number is stored exactly as written. The text is empty for a number beyond the range of doubles.
#[must_use]
pub fn respelled(text: &str) -> Option<String> {
    if is_short(text) || text.parse::<i64>().is_ok() || text.parse::<u64>().is_ok() || !is_number(text) {
        return None;
    }
    let number = text.parse::<f64>().ok()?;
    if !number.is_finite() {
        return Some(String::new());
    }
    let kept = from_float(number).to_string();
    (!is_same_number(text, &kept)).then_some(kept)
}

/// Whether a number without an exponent has so few digits that a double holds all of them: it holds any 15 (IEEE 754), and
/// of 16 characters one is a sign or a point, or they are a 64-bit integer.
fn is_short(text: &str) -> bool {
    text.len() <= 16 && !text.bytes().any(|byte| matches!(byte, b'e' | b'E'))
}

/// A double as a JSON number: an integer if it is a whole number of 64 bits, since JSON has one kind of number and databases
/// write `2.0` and `1e3` in different forms; null if JSON cannot express it.
#[must_use]
pub fn from_float(number: f64) -> Json {
    /// From here on, a whole double may have been written with fewer digits than it has.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    if number.fract() != 0.0 || number.abs() >= 18_446_744_073_709_551_616.0 {
        return Json::from(number);
    }
    #[expect(clippy::cast_possible_truncation, reason = "the range is checked before")]
    if number.abs() <= EXACT {
        return Json::from(number as i64);
    }
    let mut buffer = ryu::Buffer::new();
    let whole = Literal::parse(buffer.format_finite(number)).and_then(|literal| literal.to_integer());
    whole.and_then(Number::from_i128).map_or_else(|| Json::from(number), Json::Number)
}

/// A document in which each number has its canonical form.
pub(super) fn canonical(json: &Json) -> Json {
    match json {
        Json::Number(number) if number.is_f64() => number.as_f64().map_or(Json::Null, from_float),
        Json::Array(items) => items.iter().map(canonical).collect(),
        Json::Object(members) => {
            members.iter().map(|(name, value)| (name.clone(), canonical(value))).collect()
        }
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn literals_of_same_number_are_equal() {
        for (one, other) in [
            ("1", "1.0"),
            ("100", "1e2"),
            ("0.00120", "12E-4"),
            ("-0", "0e9"),
            ("007", "7"),
            ("1200.0", "0.12e+4"),
            ("10203", "1.0203e4"),
        ] {
            assert!(is_same_number(one, other), "{one} is {other}");
        }
        for (one, other) in
            [("1", "-1"), ("1", "10"), ("12", "1.2"), ("1e400", "1e401"), ("1.01", "1.1"), ("0.5", "5")]
        {
            assert!(!is_same_number(one, other), "{one} is not {other}");
        }
    }

    #[test]
    fn inexact_doubles_are_rejected() {
        for kept in ["0.1", "5e-324", "1.7976931348623157e308", "9007199254740992", "1e23", "0.10", "-2.50e1"]
        {
            assert!(float(kept).is_some(), "{kept}");
            assert_eq!(respelled(kept), None);
        }
        for (lost, kept) in [
            ("1234567890123456.789", "1234567890123456.8"),
            ("0.1000000000000000055", "0.1"),
            ("9007199254740993.0", "9007199254740992"),
            ("18446744073709551617", "1.8446744073709552e+19"),
            ("1e-400", "0"),
            ("2e-324", "0"),
            ("1e400", ""),
        ] {
            assert_eq!(float(lost), None, "{lost}");
            assert_eq!(respelled(lost).as_deref(), Some(kept), "{lost}");
        }
        assert_eq!(respelled("9007199254740993"), None);
        assert_eq!(respelled("18446744073709551615"), None);
        assert_eq!(float("9007199254740993"), None);
    }

    #[test]
    fn whole_doubles_become_json_integers() {
        for (double, integer) in [
            (2.0, json!(2)),
            (-0.0, json!(0)),
            (1e16, json!(10_000_000_000_000_000_i64)),
            (1_234_567_890_123_456_800.0, json!(1_234_567_890_123_456_800_i64)),
            (-9.223372036854776e18, json!(-9.223372036854776e18)),
            (1e19, json!(10_000_000_000_000_000_000_u64)),
            (1e20, json!(1e20)),
            (0.5, json!(0.5)),
        ] {
            assert_eq!(from_float(double), integer, "{double}");
        }
    }

    proptest! {
        #[test]
        fn shortest_form_round_trips(double in any::<f64>(), single in any::<f32>(), integer in any::<i64>()) {
            if double.is_finite() {
                let text = ryu::Buffer::new().format_finite(double).to_owned();
                prop_assert_eq!(float(&text), Some(double + 0.0));
                prop_assert_eq!(respelled(&text), None);
                prop_assert_eq!(from_float(double).as_f64(), Some(double + 0.0));
            }
            if single.is_finite() {
                let text = ryu::Buffer::new().format_finite(single).to_owned();
                prop_assert_eq!(float32(&text), Some(single + 0.0));
            }
            prop_assert_eq!(respelled(&integer.to_string()), None);
        }

        /// A parsed decimal is written as the same number, and every number that a decimal can hold is parsed.
        #[test]
        fn decimals_are_parsed_exactly(digits in "-?[0-9]{1,32}(\\.[0-9]{1,32})?(e-?[0-9]{1,2})?", number in any::<i128>(), scale in 0..=28_u32) {
            if let Some(decimal) = decimal(&digits) {
                prop_assert!(is_same_number(&digits, &decimal.to_string()));
            }
            let whole = Decimal::from_i128_with_scale(number >> 32, scale);
            prop_assert_eq!(super::decimal(&whole.to_string()), Some(whole));
        }
    }
}
