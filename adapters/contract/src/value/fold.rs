//! Case folding for search: Unicode simple case folding, the same on every storage.
//!
//! Each database folds case by a rule of its own: PostgreSQL by the locale of the database, SQLite in ASCII only. Search
//! therefore does not rely on any of them. A storage that can run Rust compares folded text ([`contains`]); any other turns
//! the word into a pattern in which each letter is listed with its [`variants`].
//!
//! The folding maps one character to one character (Unicode's `CaseFolding.txt`, statuses C and S), so that a pattern can
//! express it. Mappings to several characters are not applied: `ß` and `ss`, `İ` and `i`, `ﬁ` and `fi` differ, and so do the
//! composed and the decomposed form of `é`.

use std::borrow::Cow;
use std::sync::OnceLock;

/// Upper bound (exclusive) of the characters that have a case.
const CASED_END: char = '\u{20000}';

/// The folded form of a character.
///
/// ```
/// use resourceful_contract::fold::character;
///
/// assert_eq!(character('É'), 'é');
/// assert_eq!(character('Σ'), character('ς'));
/// assert_ne!(character('İ'), character('i'));
/// ```
#[must_use]
pub fn character(character: char) -> char {
    match character {
        _ if character.is_ascii() => character.to_ascii_lowercase(),
        // Its upper case is I, whose lower case is i; Unicode folds it in Turkic languages only.
        'ı' => 'ı',
        // Equal by Unicode, though their upper cases are several characters.
        '\u{1fd3}' => '\u{390}',
        '\u{1fe3}' => '\u{3b0}',
        '\u{fb05}' => '\u{fb06}',
        // SQLite reads these two noncharacters as the third.
        '\u{fffe}' | '\u{ffff}' => '\u{fffd}',
        _ => {
            let upper = single_char(character.to_uppercase()).unwrap_or(character);
            single_char(upper.to_lowercase()).unwrap_or(upper)
        }
    }
}

/// The character of a one-to-one mapping.
fn single_char(mut mapped: impl Iterator<Item = char>) -> Option<char> {
    mapped.next().filter(|_| mapped.next().is_none())
}

/// The folded form of a text.
#[must_use]
pub fn text(text: &str) -> Cow<'_, str> {
    if !text.is_ascii() {
        return Cow::Owned(text.chars().map(character).collect());
    }
    if text.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return Cow::Owned(text.to_ascii_lowercase());
    }
    Cow::Borrowed(text)
}

/// Whether a text contains a word, ignoring case.
///
/// ```
/// use resourceful_contract::fold::contains;
///
/// assert!(contains("Große Straße", "STRAẞE"));
/// assert!(contains("ΟΔΥΣΣΕΥΣ", "Οδυσσευς"));
/// ```
#[must_use]
pub fn contains(text: &str, word: &str) -> bool {
    self::text(text).contains(self::text(word).as_ref())
}

/// The other characters with the same folded form.
pub fn variants(character: char) -> impl Iterator<Item = char> {
    let folded = self::character(character);
    let pairs = folding_pairs();
    let from = pairs.partition_point(|(one, _)| *one < folded);
    let same = pairs[from..].iter().take_while(move |(one, _)| *one == folded);
    same.map(|(_, variant)| *variant).filter(move |variant| *variant != character)
}

/// All characters that share a folded form with another one, as pairs of folded form and character.
fn folding_pairs() -> &'static [(char, char)] {
    static PAIRS: OnceLock<Vec<(char, char)>> = OnceLock::new();
    PAIRS.get_or_init(|| {
        let folded = ('\0'..CASED_END).map(|character| (self::character(character), character));
        let mut pairs: Vec<_> = folded
            .filter(|(folded, one)| folded != one)
            .flat_map(|(folded, one)| [(folded, folded), (folded, one)])
            .collect();
        pairs.sort_unstable();
        pairs.dedup();
        pairs
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use regex_syntax::hir::{ClassUnicode, ClassUnicodeRange};

    use super::*;

    #[test]
    fn folding_matches_unicode_simple_folding() {
        for one in '\0'..=char::MAX {
            let mut class = ClassUnicode::new([ClassUnicodeRange::new(one, one)]);
            class.case_fold_simple();
            for other in class.iter().flat_map(|range| range.start()..=range.end()) {
                assert_eq!(character(one), character(other), "{one:?} {other:?}");
            }
            if one >= CASED_END {
                assert_eq!(character(one), one, "beyond those that are gathered");
            }
        }
    }

    #[test]
    fn unicode_distinct_characters_fold_differently() {
        for (one, others) in
            [('i', "ıİíïI\u{307}"), ('ß', "sS"), ('é', "eÈ"), ('ﬁ', "fi"), ('ა', "აბ"), ('и', "йі")]
        {
            for other in others
                .chars()
                .filter(|other| !one.to_uppercase().any(|upper| upper == *other) && one != *other)
            {
                assert_ne!(character(one), character(other), "{one:?} {other:?}");
            }
        }
    }

    #[test]
    fn variants_share_one_folded_form() {
        let of = |character| variants(character).collect::<String>();
        assert_eq!(of('k'), "K\u{212a}");
        assert_eq!(of('Σ'), "ςσ");
        assert_eq!(of('ß'), "ẞ");
        assert_eq!(of('İ'), "");
        assert_eq!(of('中'), "");
    }

    proptest! {
        #[test]
        fn text_contains_its_substrings_in_any_case(before in ".*", word in ".*", after in ".*") {
            let text = format!("{before}{word}{after}");
            prop_assert!(contains(&text, &word));
            let other: String = word.chars().map(|one| variants(one).last().unwrap_or(one)).collect();
            prop_assert!(contains(&text, &other));
        }
    }
}
