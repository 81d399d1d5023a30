//! Search terms as GLOB patterns in which each letter matches in every case.

use resourceful_contract::fold;

/// The pattern that matches texts that contain a word, ignoring case.
pub(super) fn search_glob(word: &str) -> String {
    let mut pattern = String::with_capacity(word.len() * 8 + 2);
    pattern.push('*');
    for character in word.chars() {
        let mut variants = fold::variants(character).peekable();
        if variants.peek().is_some() || matches!(character, '*' | '?' | '[') {
            pattern.push('[');
            pattern.push(character);
            pattern.extend(variants);
            pattern.push(']');
        } else {
            pattern.push(character);
        }
    }
    pattern.push('*');
    pattern
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pattern_matches_every_case_and_escapes_wildcards() {
        assert_eq!(search_glob("aé9"), "*[aA][éÉ]9*");
        assert_eq!(search_glob("[*?]^"), "*[[][*][?]]^*");
    }
}
