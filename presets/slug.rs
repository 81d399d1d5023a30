//! The slug preset: names for paths, derived from titles.

use futures::future::BoxFuture;
use serde_json::{Map, Value as Json, json};
use uuid::Uuid;

use crate::{Change, Error, ErrorKind, Fault, Hook, Operation, Preset, ResourceBuilder};

/// Maintains a slug in a field, such as `wide-open-spaces`: derived from another field if the body omits it or leaves
/// it empty, and normalized if a body provides it. Slugs are unique: a derived one gets a number if it is taken
/// (`wide-open-spaces-2`), or is random if the other field has neither letter nor digit; one from a body is refused if
/// it is taken (409 `unique`) or has neither (422 `slug`).
///
/// The field of the model needs a default (`#[serde(default)] slug: String`).
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
    /// The field that holds the slug; `slug` by default.
    #[must_use]
    pub fn field(mut self, field: impl Into<String>) -> Self {
        self.field = field.into();
        self
    }

    /// Scopes slugs to this field: items that differ in it, such as those of different authors, may have the same slug.
    /// With [`multi_tenant`](super::multi_tenant) items of different tenants always may.
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
        let unique = self.within.iter().cloned().chain([self.field.clone()]);
        resource
            .claim_field(self.field.clone())
            .unique(unique)
            .filterable([self.field.clone()])
            .hook(self.clone())
    }
}

/// The maximum number of numbered candidates before a random one.
const MAX_NUMBERED: usize = 100;

impl Hook for Slug {
    fn before<'a>(&'a self, change: &'a mut Change) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(async move {
            if change.operation() == Operation::Delete {
                return Ok(());
            }
            let text = |item: &Map<String, Json>, name: &str| {
                item.get(name).and_then(Json::as_str).unwrap_or_default().to_owned()
            };
            let Some(item) = change.item() else { return Ok(()) };
            let requested = text(item, &self.field);
            let candidate = match requested.trim() {
                "" => self.derive(change, &text(item, &self.from)).await?,
                _ => self.normalize(&requested)?,
            };
            if let Some(item) = change.item_mut() {
                item.insert(self.field.clone(), candidate.into());
            }
            Ok(())
        })
    }
}

impl Slug {
    /// Normalizes a slug from a body.
    fn normalize(&self, requested: &str) -> Result<String, Error> {
        let normalized = slug::slugify(requested);
        if !normalized.is_empty() {
            return Ok(normalized);
        }
        let detail = "Holds neither a letter nor a digit: give another one, or leave it out.";
        let pointer = format!("/{}", self.field.replace('~', "~0").replace('/', "~1"));
        let fault = Fault::pointer(pointer, "slug", detail);
        Err(Error::new(ErrorKind::Validation, "validation", detail).with_faults(vec![fault]))
    }

    /// Derives a slug from another text, which no item has yet.
    async fn derive(&self, change: &Change, from: &str) -> Result<String, Error> {
        let base = slug::slugify(from);
        if base.is_empty() {
            return Ok(random());
        }
        // Of two items that are created from one text concurrently, the second must see the first.
        change.lock(&format!("slug {base} of {}", change.resource())).await?;
        for number in 1..=MAX_NUMBERED {
            let candidate = if number == 1 { base.clone() } else { format!("{base}-{number}") };
            if !change.exists(change.resource(), self.conflict_filter(change, &candidate)).await? {
                return Ok(candidate);
            }
        }
        Ok(format!("{base}-{}", random()))
    }

    /// The filter of the items that conflict with this slug.
    fn conflict_filter(&self, change: &Change, slug: &str) -> Json {
        let mut filter = Map::new();
        filter.insert(self.field.clone(), slug.into());
        let within = self.within.iter().map(String::as_str).chain(change.unique_within());
        for name in within {
            let value = change.item().and_then(|item| item.get(name)).cloned().unwrap_or(Json::Null);
            let test = if value.is_null() { json!({"is_null": true}) } else { value };
            filter.insert(name.to_owned(), test);
        }
        // An item does not conflict with its own slug.
        if let Some(id) = change.current().and_then(|current| current.get(change.id_field())) {
            filter.insert(change.id_field().to_owned(), json!({"ne": id}));
        }
        Json::Object(filter)
    }
}

fn random() -> String {
    Uuid::new_v4().simple().to_string()[..8].to_owned()
}
