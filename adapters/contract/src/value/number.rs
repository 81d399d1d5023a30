//! What a number's spelling says, exactly: the measure of whether a type keeps it as it is written.

use rust_decimal::Decimal;
use serde_json::{Number, Value as Json};

/// The most digits after the point that a decimal keeps.
const MAX_SCALE: i64 = 28;

/// The value of a spelling: these digits times ten to this power. No zero stands at either end, so that two spellings of one
/// number are equal.
#[derive(Debug)]
struct Literal<'a> {
    negative: bool,
    /// Those before the point and those after it.
    digits: (&'a str, &'a str),
    exponent: i64,
}

impl<'a> Literal<'a> {
    /// Reads a number as JSON spells it (RFC 8259, 6): not `1_000`, `.5`, `1.`, `0x1`, `inf` or `NaN`, all of which some
    /// readers take. Zeros in front are let pass, as people write them.
    fn read(text: &'a str) -> Option<Self> {
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
        // Beyond this no type keeps it, however far it is.
        let far = if exponent.starts_with('-') { -1_000_000_000_000 } else { 1_000_000_000_000 };
        let exponent = exponent.parse().unwrap_or(far).clamp(-1_000_000_000_000, 1_000_000_000_000);
        Some(Self::plain(text.starts_with('-'), whole, fraction, exponent))
    }

    fn plain(negative: bool, whole: &'a str, fraction: &'a str, exponent: i64) -> Self {
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
            // Zero has two signs and one meaning.
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

    /// The whole number that the digits are, where it has so many of them at most.
    fn mantissa(&self, most: usize) -> Option<u128> {
        let (whole, fraction) = self.digits;
        if whole.len() + fraction.len() > most {
            return None;
        }
        let digits = whole.bytes().chain(fraction.bytes());
        Some(digits.fold(0, |number, digit| number * 10 + u128::from(digit - b'0')))
    }

    /// The whole number that it is.
    fn whole(&self) -> Option<i128> {
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

/// Whether two spellings are of one number.
fn same(one: &str, other: &str) -> bool {
    matches!((Literal::read(one), Literal::read(other)), (Some(one), Some(other)) if one.is_same(&other))
}

/// Whether a text is a number as JSON spells it, zeros in front let pass.
#[must_use]
pub fn is_number(text: &str) -> bool {
    Literal::read(text).is_some()
}

/// The double that a text spells, where the shortest spelling of the double is of the same number.
pub(super) fn float(text: &str) -> Option<f64> {
    let number = is_number(text).then(|| text.parse::<f64>().ok())?.filter(|number| number.is_finite())?;
    same(text, ryu::Buffer::new().format_finite(number)).then_some(number + 0.0)
}

/// The same in single precision; the double that is exactly the number is taken as well.
pub(super) fn float32(text: &str) -> Option<f32> {
    let number = is_number(text).then(|| text.parse::<f32>().ok())?.filter(|number| number.is_finite())?;
    let kept = same(text, ryu::Buffer::new().format_finite(number)) || float(text) == Some(f64::from(number));
    kept.then_some(number + 0.0)
}

/// The decimal that a text spells, where all of its digits are kept.
pub(super) fn decimal(text: &str) -> Option<Decimal> {
    Literal::read(text)?.decimal()
}

/// How a number that a JSON text spells is kept, where that is another number: the spelling that would be right.
///
/// A number of JSON is an integer of 64 bits or a double (RFC 8259, 6, names both as what most readers keep); `None`
/// where it is kept as it is written. One beyond every double is kept as nothing.
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
    (!same(text, &kept)).then_some(kept)
}

/// Whether a number without an exponent has so few digits that a double keeps all of them: it keeps any 15 (IEEE 754), and
/// of 16 characters one is a sign or a point, or they are an integer of 64 bits.
fn is_short(text: &str) -> bool {
    text.len() <= 16 && !text.bytes().any(|byte| matches!(byte, b'e' | b'E'))
}

/// A double as a number of JSON: an integer where it is a whole one of 64 bits, since JSON knows one kind of number
/// and databases write `2.0` and `1e3` as they see fit; null where JSON cannot say it.
#[must_use]
pub fn from_float(number: f64) -> Json {
    /// From here on a double that is whole may have been spelled with fewer digits than it has.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    if number.fract() != 0.0 || number.abs() >= 18_446_744_073_709_551_616.0 {
        return Json::from(number);
    }
    #[expect(clippy::cast_possible_truncation, reason = "the range is checked before")]
    if number.abs() <= EXACT {
        return Json::from(number as i64);
    }
    let mut buffer = ryu::Buffer::new();
    let whole = Literal::read(buffer.format_finite(number)).and_then(|literal| literal.whole());
    whole.and_then(Number::from_i128).map_or_else(|| Json::from(number), Json::Number)
}

/// A document in which each number has its one spelling.
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
    fn a_spelling_is_what_it_says() {
        for (one, other) in [
            ("1", "1.0"),
            ("100", "1e2"),
            ("0.00120", "12E-4"),
            ("-0", "0e9"),
            ("007", "7"),
            ("1200.0", "0.12e+4"),
            ("10203", "1.0203e4"),
        ] {
            assert!(same(one, other), "{one} is {other}");
        }
        for (one, other) in
            [("1", "-1"), ("1", "10"), ("12", "1.2"), ("1e400", "1e401"), ("1.01", "1.1"), ("0.5", "5")]
        {
            assert!(!same(one, other), "{one} is not {other}");
        }
    }

    #[test]
    fn doubles_are_kept_as_written_or_not_at_all() {
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
    fn whole_doubles_are_integers_of_their_digits() {
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
        fn every_shortest_spelling_is_kept(double in any::<f64>(), single in any::<f32>(), integer in any::<i64>()) {
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

        /// A decimal that is read is written as the same number, and all of a decimal's numbers are read.
        #[test]
        fn decimals_are_read_exactly(digits in "-?[0-9]{1,32}(\\.[0-9]{1,32})?(e-?[0-9]{1,2})?", number in any::<i128>(), scale in 0..=28_u32) {
            if let Some(decimal) = decimal(&digits) {
                prop_assert!(same(&digits, &decimal.to_string()));
            }
            let whole = Decimal::from_i128_with_scale(number >> 32, scale);
            prop_assert_eq!(super::decimal(&whole.to_string()), Some(whole));
        }
    }
}
