//! A resource's texts in the OpenAPI document.

use super::ResourceBuilder;

impl ResourceBuilder {
    /// The resource's description in the OpenAPI document; by default the model's doc comment.
    pub fn description(mut self, text: impl Into<String>) -> Self {
        self.description = Some(text.into());
        self
    }

    /// The singular noun for an item in the OpenAPI document, in `snake_case`: with `"country"`, `POST /countries` is
    /// the operation `create_country` with the summary "Create a country". By default it is the name of the model's
    /// type; for a dynamic resource the `title` of its JSON Schema, or else its own name without the plural ending.
    ///
    /// ```
    /// # use resourceful::prelude::*;
    /// # use serde_json::json;
    /// let people = define_dynamic_resource("people", json!({"type": "object", "properties": {"id": {"type": "integer"}}}))
    ///     .singular("person")
    ///     .adapter(Memory::new().table("people"))
    ///     .permissions(Permissions::all(anyone()))
    ///     .build()?;
    /// # let _ = people;
    /// # Ok::<(), DefinitionErrors>(())
    /// ```
    pub fn singular(mut self, name: impl Into<String>) -> Self {
        self.singular = Some(name.into());
        self
    }

    /// Adds keywords to the schema of a field in the bodies of the OpenAPI document, for constraints that a hook checks
    /// and the model does not state.
    #[cfg(feature = "webhooks")]
    pub(crate) fn with_keywords(mut self, field: &'static str, keywords: serde_json::Value) -> Self {
        self.extra_keywords.push((field, keywords));
        self
    }

    /// The singular noun for an item, declared or derived.
    pub(super) fn singular_name(&self) -> String {
        if let Some(name) = &self.singular {
            return name.clone();
        }
        let schema_title = || self.json_schema.get("title").and_then(serde_json::Value::as_str);
        match self.codec.title().or_else(schema_title) {
            Some(title) => snake(title),
            None => singular(&self.name),
        }
    }
}

/// `OrderLine` and `Order line` as `order_line`.
fn snake(title: &str) -> String {
    let mut name = String::with_capacity(title.len() + 4);
    let mut is_after_lowercase = false;
    for character in title.chars() {
        if !character.is_alphanumeric() {
            is_after_lowercase = false;
            if !name.is_empty() && !name.ends_with('_') {
                name.push('_');
            }
            continue;
        }
        if character.is_uppercase() && is_after_lowercase {
            name.push('_');
        }
        is_after_lowercase = !character.is_uppercase();
        name.extend(character.to_lowercase());
    }
    name.trim_end_matches('_').to_owned()
}

/// The singular of an English plural, as far as it follows from the spelling.
fn singular(name: &str) -> String {
    let ends = |ending: &str| name.strip_suffix(ending);
    if let Some(stem) = ends("ies") {
        return format!("{stem}y");
    }
    if ["sses", "xes", "ches", "shes", "zes"].iter().any(|ending| name.ends_with(ending)) {
        return name[..name.len() - 2].to_owned();
    }
    if ["ss", "us", "is", "news", "series", "species"].iter().any(|ending| name.ends_with(ending)) {
        return name.to_owned();
    }
    ends("s").unwrap_or(name).to_owned()
}

#[cfg(test)]
mod tests {
    use super::{singular, snake};

    #[test]
    fn singular_follows_the_plural_ending() {
        for (many, one) in [
            ("countries", "country"),
            ("boxes", "box"),
            ("addresses", "address"),
            ("houses", "house"),
            ("order-lines", "order-line"),
            ("news", "news"),
            ("data", "data"),
        ] {
            assert_eq!(singular(many), one);
        }
    }

    #[test]
    fn type_names_become_snake_case() {
        for (title, name) in [
            ("OrderLine", "order_line"),
            ("Order line", "order_line"),
            ("City", "city"),
            ("APIKey", "apikey"),
        ] {
            assert_eq!(snake(title), name);
        }
    }
}
