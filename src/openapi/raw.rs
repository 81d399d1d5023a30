//! JSON Schemas that must stand in the document exactly as they are.
//!
//! utoipa's schema types do not hold everything that JSON Schema can say, and drop in silence what they do not.
//! So the document is built with references to numbered places, and the schemas themselves are laid there after it
//! is serialized.

use serde_json::Value as Json;
use utoipa::openapi::schema::Schema;
use utoipa::openapi::{Ref, RefOr};

const PLACE: &str = "#/x-raw/";

/// Schemas that wait for their place.
#[derive(Debug, Default)]
pub(super) struct Raw {
    schemas: Vec<Json>,
}

impl Raw {
    /// A reference to where a schema will stand.
    pub(super) fn place(&mut self, schema: Json) -> RefOr<Schema> {
        self.schemas.push(schema);
        RefOr::Ref(Ref::new(format!("{PLACE}{}", self.schemas.len() - 1)))
    }

    /// Puts every schema in its place.
    pub(super) fn lay(&self, document: &mut Json) {
        match document {
            Json::Object(map) => {
                let number = map.get("$ref").and_then(Json::as_str).and_then(|to| to.strip_prefix(PLACE));
                if let Some(schema) =
                    number.and_then(|number| self.schemas.get(number.parse::<usize>().ok()?))
                {
                    *document = schema.clone();
                } else {
                    map.values_mut().for_each(|value| self.lay(value));
                }
            }
            Json::Array(items) => items.iter_mut().for_each(|item| self.lay(item)),
            _ => {}
        }
    }
}

/// A reference to a component.
pub(super) fn component(name: &str) -> RefOr<Schema> {
    RefOr::Ref(Ref::from_schema_name(name))
}
