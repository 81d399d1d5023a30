//! Conformance cases of search: text is found in its own and in other letter case, in every script.

use std::sync::Arc;

use super::fixture::{Fixture, position, text};
use super::{Case, Failure, named};
use crate::{Field, FieldType, Filter, IdSource, Schema, Value, fold};

pub(super) const CASES: &[Case] = named![
    search_covers_each_listed_field,
    search_matches_punctuation_literally,
    empty_search_matches_every_non_null_text,
    search_finds_text_in_every_script,
    search_ignores_case_in_every_script,
    search_applies_only_simple_folding,
    search_folds_every_cased_character,
    search_finds_end_of_long_text,
    search_accepts_long_terms,
];

async fn expect_found(fixture: &Fixture, schema: &Arc<Schema>, word: &str, ids: &str) -> Result<(), Failure> {
    let filter = Filter::Search(vec![position(schema, "text")], word.to_owned());
    fixture
        .expect_ids(schema, filter, ids)
        .await
        .map_err(|failure| Failure::new(format!("{word:?}: {failure}")))
}

/// A table with these texts in rows `a`, `b` …, and null in `n`.
async fn texts_table(fixture: &Fixture, name: &str, texts: &[&str]) -> Result<Arc<Schema>, Failure> {
    let fields = vec![Field::new("id", FieldType::Text), Field::new("text", FieldType::Text).nullable()];
    let schema = fixture.create_table(name, fields, IdSource::Client, |_| {}).await?;
    let ids: Vec<_> = ('a'..='m').map(String::from).collect();
    for (id, content) in ids.iter().zip(texts) {
        fixture.insert(&schema, &[text(id), text(content)]).await?;
    }
    fixture.insert(&schema, &[text("n"), Value::Null]).await?;
    Ok(schema)
}

async fn default_texts_table(fixture: &Fixture, texts: &[&str]) -> Result<Arc<Schema>, Failure> {
    texts_table(fixture, "texts", texts).await
}

async fn search_covers_each_listed_field(fixture: Fixture) -> Result<(), Failure> {
    let schema = default_texts_table(&fixture, &["Great", "abba"]).await?;
    let fields = vec![position(&schema, "id"), position(&schema, "text")];
    fixture.expect_ids(&schema, Filter::Search(fields.clone(), "A".to_owned()), "a b").await?;
    fixture.expect_ids(&schema, Filter::Search(fields, "N".to_owned()), "n").await?;
    fixture.expect_ids(&schema, Filter::Search(Vec::new(), "a".to_owned()), "").await
}

async fn search_matches_punctuation_literally(fixture: Fixture) -> Result<(), Failure> {
    let signs = r##"!"#$%&'()*+,-./:;<=>?@[\]^_`{|}~"##;
    let all = format!("x{signs}y");
    let schema = default_texts_table(&fixture, &[&all, "plain", "é"]).await?;
    expect_found(&fixture, &schema, signs, "a").await?;
    for sign in signs.chars() {
        expect_found(&fixture, &schema, &sign.to_string(), "a").await?;
        expect_found(&fixture, &schema, &format!("{sign}{sign}"), "").await?;
    }
    for pattern in [".*", "***:p", "(?i)p", "[a-z]", "[^z]", "pl?", "\\w", "p%", "p_", "x|p", "*"] {
        expect_found(&fixture, &schema, pattern, if pattern == "*" { "a" } else { "" }).await?;
    }
    Ok(())
}

async fn empty_search_matches_every_non_null_text(fixture: Fixture) -> Result<(), Failure> {
    let schema = default_texts_table(&fixture, &["", "a", "é"]).await?;
    expect_found(&fixture, &schema, "", "a b c").await
}

/// A text of each script, the same in another letter case, and the same with an upper case of more characters.
const SCRIPTS: &[(&str, &str)] = &[
    ("Straße", "STRAẞE"),
    ("ÉCLAIR à la carte", "éclair À LA CARTE"),
    ("e\u{301}cole", "E\u{301}COLE"),
    ("İstanbul", "İSTANBUL"),
    ("ısırgan", "ıSıRGAN"),
    ("ﬁnale ﬅ", "ﬁNALE ﬆ"),
    ("Ǆ ǈ", "ǆ ǉ"),
    ("ΟΔΥΣΣΕΥΣ", "Οδυσσευς"),
    ("ᾠδή", "ᾨΔΉ"),
    ("Санкт-Петербург", "сАНКТ-пЕТЕРБУРГ"),
    ("Երևան", "ԵՐևԱՆ"),
    ("თბილისი", "ᲗᲑᲘᲚᲘᲡᲘ"),
];

/// Scripts with letter case that few databases support, and scripts without letter case.
const MORE_SCRIPTS: &[(&str, &str)] = &[
    ("ᏣᎳᎩ", "ꮳꮃꭹ"),
    ("Ᏸ", "ᏸ"),
    ("𐐔𐐯𐑅𐐨𐑉𐐯𐐻", "𐐼𐐇𐐝𐐀𐐡𐐇𐐓"),
    ("ⲁⲃⲅ", "ⲀⲂⲄ"),
    ("Ⓐⓑ", "ⓐⒷ"),
    ("K Å ſ", "k å S"),
    ("µ Ω ϐ", "μ ω Β"),
    ("東京都", "東京都"),
    ("القاهرة", "القاهرة"),
    ("दिल्ली", "दिल्ली"),
    ("กรุงเทพ", "กรุงเทพ"),
    ("👩‍👩‍👧 🇬🇪", "👩‍👩‍👧 🇬🇪"),
];

async fn search_finds_text_in_every_script(fixture: Fixture) -> Result<(), Failure> {
    expect_scripts_found(&fixture, |(own, _)| own).await
}

async fn search_ignores_case_in_every_script(fixture: Fixture) -> Result<(), Failure> {
    expect_scripts_found(&fixture, |(_, other)| other).await
}

async fn expect_scripts_found(
    fixture: &Fixture,
    spelling: fn((&'static str, &'static str)) -> &'static str,
) -> Result<(), Failure> {
    for (name, scripts) in [("scripts", SCRIPTS), ("more_scripts", MORE_SCRIPTS)] {
        let own: Vec<_> = scripts.iter().map(|(own, _)| *own).collect();
        let schema = texts_table(fixture, name, &own).await?;
        for (script, id) in scripts.iter().zip('a'..) {
            expect_found(fixture, &schema, spelling(*script), &id.to_string()).await?;
        }
    }
    Ok(())
}

async fn search_applies_only_simple_folding(fixture: Fixture) -> Result<(), Failure> {
    let schema =
        default_texts_table(&fixture, &["Straße", "İ", "ı", "ﬁ", "é", "e\u{301}x", "ss i fi"]).await?;
    for (word, ids) in [
        ("ss", "g"),
        ("SS", "g"),
        ("i", "g"),
        ("I", "g"),
        ("i\u{307}", ""),
        ("ı", "c"),
        ("FI", "g"),
        ("É", "e"),
        ("E\u{301}", "f"),
        ("E", "a f"),
    ] {
        expect_found(&fixture, &schema, word, ids).await?;
    }
    Ok(())
}

async fn search_folds_every_cased_character(fixture: Fixture) -> Result<(), Failure> {
    let cased: Vec<char> = ('\0'..='\u{1ffff}').filter(|one| fold::variants(*one).next().is_some()).collect();
    let last: String = cased.iter().map(|one| fold::variants(*one).last().unwrap_or(*one)).collect();
    let schema = default_texts_table(&fixture, &[&cased.iter().collect::<String>(), &last]).await?;
    for part in cased.chunks(40) {
        expect_found(&fixture, &schema, &part.iter().collect::<String>(), "a b").await?;
    }
    Ok(())
}

async fn search_finds_end_of_long_text(fixture: Fixture) -> Result<(), Failure> {
    let long = format!("{}Ω", "é-".repeat(20_000));
    let schema = default_texts_table(&fixture, &[&long, "ω"]).await?;
    expect_found(&fixture, &schema, "É-ω", "a").await?;
    expect_found(&fixture, &schema, "ÉÉ", "").await
}

async fn search_accepts_long_terms(fixture: Fixture) -> Result<(), Failure> {
    let word = "Kiſé".repeat(250);
    let text = format!("-{}-", word.to_lowercase());
    let schema = default_texts_table(&fixture, &[&text, "Kiſé"]).await?;
    expect_found(&fixture, &schema, &word, "a").await
}
