//! Search terms as regular expressions in which each letter matches in every case.

use std::fmt::Write as _;

use resourceful_contract::fold;

/// The regular expression (PostgreSQL's "advanced" flavor) that matches texts that contain a word, ignoring case.
///
/// A letter is written literally and its variants as escapes: a database whose encoding lacks a character refuses the
/// character itself but accepts the escape.
pub(super) fn search_regex(word: &str) -> String {
    let mut pattern = String::with_capacity(word.len() * 8);
    for character in word.chars() {
        let mut variants = fold::variants(character).peekable();
        if variants.peek().is_some() {
            pattern.push('[');
            pattern.push(character);
            for variant in variants {
                // Writing to a String cannot fail.
                let _ = write!(pattern, "\\U{:08x}", u32::from(variant));
            }
            pattern.push(']');
        } else {
            if character.is_ascii_punctuation() {
                pattern.push('\\');
            }
            pattern.push(character);
        }
    }
    pattern
}

/// The word with each letter as `lower` writes it in ASCII text; a character without an ASCII form stays.
pub(super) fn to_ascii_term(word: &str) -> String {
    let plain = |character| Some(fold::character(character)).filter(char::is_ascii).unwrap_or(character);
    word.chars().map(plain).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pattern_matches_every_case_and_escapes_punctuation() {
        assert_eq!(search_regex("a.9"), r"[a\U00000041]\.9");
        assert_eq!(search_regex("É-中"), r"[É\U000000e9]\-中");
        assert_eq!(to_ascii_term("\u{212a}İÉa"), "kİÉa");
    }
}
