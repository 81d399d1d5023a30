//! Conformance cases of search: text is found in its own and in other letter case, in every script.

use std::sync::Arc;

use super::fixture::{Fixture, position, text};
use super::{Case, Failure, named};
use crate::{Field, FieldType, Filter, IdSource, Schema, Value, fold};

pub(super) const CASES: &[Case] = named![
    search_looks_into_each_of_its_fields,
    search_takes_every_sign_literally,
    search_of_nothing_finds_every_text_and_no_null,
    search_finds_every_script_by_its_own_spelling,
    search_ignores_case_in_every_script,
    search_tells_apart_what_simple_folding_tells_apart,
    search_finds_every_character_that_has_a_case,
    search_in_long_text_finds_its_end,
    search_takes_long_words,
];

async fn finds(fixture: &Fixture, schema: &Arc<Schema>, word: &str, ids: &str) -> Result<(), Failure> {
    let filter = Filter::Search(vec![position(schema, "text")], word.to_owned());
    fixture.selects(schema, filter, ids).await.map_err(|failure| Failure::new(format!("{word:?}: {failure}")))
}

/// A table with these texts in rows `a`, `b` …, and null in `n`.
async fn table(fixture: &Fixture, name: &str, texts: &[&str]) -> Result<Arc<Schema>, Failure> {
    let fields = vec![Field::new("id", FieldType::Text), Field::new("text", FieldType::Text).nullable()];
    let schema = fixture.table(name, fields, IdSource::Client, |_| {}).await?;
    let ids: Vec<_> = ('a'..='m').map(String::from).collect();
    for (id, content) in ids.iter().zip(texts) {
        fixture.insert(&schema, &[text(id), text(content)]).await?;
    }
    fixture.insert(&schema, &[text("n"), Value::Null]).await?;
    Ok(schema)
}

async fn texts(fixture: &Fixture, texts: &[&str]) -> Result<Arc<Schema>, Failure> {
    table(fixture, "texts", texts).await
}

async fn search_looks_into_each_of_its_fields(fixture: Fixture) -> Result<(), Failure> {
    let schema = texts(&fixture, &["Great", "abba"]).await?;
    let fields = vec![position(&schema, "id"), position(&schema, "text")];
    fixture.selects(&schema, Filter::Search(fields.clone(), "A".to_owned()), "a b").await?;
    fixture.selects(&schema, Filter::Search(fields, "N".to_owned()), "n").await?;
    fixture.selects(&schema, Filter::Search(Vec::new(), "a".to_owned()), "").await
}

async fn search_takes_every_sign_literally(fixture: Fixture) -> Result<(), Failure> {
    let signs = r##"!"#$%&'()*+,-./:;<=>?@[\]^_`{|}~"##;
    let all = format!("x{signs}y");
    let schema = texts(&fixture, &[&all, "plain", "é"]).await?;
    finds(&fixture, &schema, signs, "a").await?;
    for sign in signs.chars() {
        finds(&fixture, &schema, &sign.to_string(), "a").await?;
        finds(&fixture, &schema, &format!("{sign}{sign}"), "").await?;
    }
    for pattern in [".*", "***:p", "(?i)p", "[a-z]", "[^z]", "pl?", "\\w", "p%", "p_", "x|p", "*"] {
        finds(&fixture, &schema, pattern, if pattern == "*" { "a" } else { "" }).await?;
    }
    Ok(())
}

async fn search_of_nothing_finds_every_text_and_no_null(fixture: Fixture) -> Result<(), Failure> {
    let schema = texts(&fixture, &["", "a", "é"]).await?;
    finds(&fixture, &schema, "", "a b c").await
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

async fn search_finds_every_script_by_its_own_spelling(fixture: Fixture) -> Result<(), Failure> {
    by_spelling(&fixture, |(own, _)| own).await
}

async fn search_ignores_case_in_every_script(fixture: Fixture) -> Result<(), Failure> {
    by_spelling(&fixture, |(_, other)| other).await
}

async fn by_spelling(
    fixture: &Fixture,
    spelling: fn((&'static str, &'static str)) -> &'static str,
) -> Result<(), Failure> {
    for (name, scripts) in [("scripts", SCRIPTS), ("more_scripts", MORE_SCRIPTS)] {
        let own: Vec<_> = scripts.iter().map(|(own, _)| *own).collect();
        let schema = table(fixture, name, &own).await?;
        for (script, id) in scripts.iter().zip('a'..) {
            finds(fixture, &schema, spelling(*script), &id.to_string()).await?;
        }
    }
    Ok(())
}

async fn search_tells_apart_what_simple_folding_tells_apart(fixture: Fixture) -> Result<(), Failure> {
    let schema = texts(&fixture, &["Straße", "İ", "ı", "ﬁ", "é", "e\u{301}x", "ss i fi"]).await?;
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
        finds(&fixture, &schema, word, ids).await?;
    }
    Ok(())
}

async fn search_finds_every_character_that_has_a_case(fixture: Fixture) -> Result<(), Failure> {
    let cased: Vec<char> = ('\0'..='\u{1ffff}').filter(|one| fold::variants(*one).next().is_some()).collect();
    let last: String = cased.iter().map(|one| fold::variants(*one).last().unwrap_or(*one)).collect();
    let schema = texts(&fixture, &[&cased.iter().collect::<String>(), &last]).await?;
    for part in cased.chunks(40) {
        finds(&fixture, &schema, &part.iter().collect::<String>(), "a b").await?;
    }
    Ok(())
}

async fn search_in_long_text_finds_its_end(fixture: Fixture) -> Result<(), Failure> {
    let long = format!("{}Ω", "é-".repeat(20_000));
    let schema = texts(&fixture, &[&long, "ω"]).await?;
    finds(&fixture, &schema, "É-ω", "a").await?;
    finds(&fixture, &schema, "ÉÉ", "").await
}

async fn search_takes_long_words(fixture: Fixture) -> Result<(), Failure> {
    let word = "Kiſé".repeat(250);
    let text = format!("-{}-", word.to_lowercase());
    let schema = texts(&fixture, &[&text, "Kiſé"]).await?;
    finds(&fixture, &schema, &word, "a").await
}
