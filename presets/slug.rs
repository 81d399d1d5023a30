//! Names for paths, made of titles.

use serde_json::{Map, Value as Json};

use crate::{Operation, Preset, ResourceBuilder};

/// Keeps a name for paths in a field, such as `wide-open-spaces`: made of another field where the body leaves it out or
/// empty, and put into that form where a body gives it. No two items have the same. The field of the model needs a default
/// (`#[serde(default)] slug: String`).
///
/// ```
/// use resourceful::prelude::*;
///
/// #[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, Validate)]
/// struct Article {
///     id: Uuid,
///     title: String,
///     #[serde(default)]
///     slug: String,
/// }
///
/// // GET /articles?slug=wide-open-spaces
/// let articles = define_resource::<Article>("articles")
///     .adapter(Memory::new().table("articles"))
///     .permissions(Permissions::all(signed_in()))
///     .preset(slug("title"))
///     .build()?;
/// # let _ = articles;
/// # Ok::<(), DefinitionErrors>(())
/// ```
#[must_use]
pub fn slug(from: impl Into<String>) -> Slug {
    Slug { from: from.into(), field: "slug".to_owned(), within: Vec::new() }
}

/// The preset of [`slug()`].
#[derive(Clone, Debug)]
pub struct Slug {
    from: String,
    field: String,
    within: Vec<String>,
}

impl Slug {
    /// The field that holds it, where it is not `slug`.
    #[must_use]
    pub fn field(mut self, field: impl Into<String>) -> Self {
        self.field = field.into();
        self
    }

    /// Lets items that differ in this field have the same slug, such as those of another tenant.
    #[must_use]
    pub fn within(mut self, field: impl Into<String>) -> Self {
        self.within.push(field.into());
        self
    }
}

impl Preset for Slug {
    fn name(&self) -> &'static str {
        "slug"
    }

    fn apply(&self, resource: ResourceBuilder) -> ResourceBuilder {
        let (from, field) = (self.from.clone(), self.field.clone());
        let made = move |item: &mut Map<String, Json>, _: &mut crate::Change| {
            let text = |name: &str| item.get(name).and_then(Json::as_str).unwrap_or_default();
            let given = slug::slugify(text(&field));
            let made = if given.is_empty() { slug::slugify(text(&from)) } else { given };
            item.insert(field.clone(), made.into());
            Ok(())
        };
        let unique = self.within.iter().cloned().chain([self.field.clone()]);
        resource
            .claim_field(self.field.clone())
            .unique(unique)
            .filterable([self.field.clone()])
            .before([Operation::Create, Operation::Update], made)
    }
}
