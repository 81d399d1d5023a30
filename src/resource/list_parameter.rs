//! Query parameters of lists that a declaration names: filters that clients choose by name.

use serde_json::Value as Json;

/// A query parameter of lists, each of whose values stands for a filter.
///
/// It narrows lists, in `GET`, `QUERY` and streams, within the rows that the caller may see; it admits nothing, so what a
/// caller may not see is the business of permissions and policies. A member of the same name is part of a query's body.
/// Other values are refused (400), as unknown parameters are.
///
/// ```
/// use resourceful::prelude::*;
/// use resourceful::resource::ListParameter;
///
/// #[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, Validate)]
/// struct Task { id: Uuid, text: String, done_at: Option<DateTime<Utc>> }
///
/// // GET /tasks shows what is to be done, GET /tasks?done=include everything.
/// let tasks = define_resource::<Task>("tasks")
///     .adapter(Memory::new().table("tasks"))
///     .permissions(Permissions::all(signed_in()))
///     .list_parameter(
///         ListParameter::new("done")
///             .by_default(serde_json::json!({"done_at": {"is_null": true}}))
///             .value("include", serde_json::json!({}))
///             .value("only", serde_json::json!({"done_at": {"is_null": false}})),
///     )
///     .build()?;
/// # let _ = tasks; Ok::<(), DefinitionErrors>(())
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct ListParameter {
    pub(crate) name: String,
    pub(crate) description: Option<String>,
    pub(crate) default: Option<Json>,
    pub(crate) values: Vec<(String, Json)>,
}

impl ListParameter {
    /// A parameter of this name: lower case letters, digits and underscores, and no name that queries use already.
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), description: None, default: None, values: Vec::new() }
    }

    /// What it selects, for the OpenAPI document.
    pub fn description(mut self, text: impl Into<String>) -> Self {
        self.description = Some(text.into());
        self
    }

    /// The filter of a request without the parameter; by default all rows are listed. The filter is in the body form, over
    /// the fields of the stored row.
    pub fn by_default(mut self, filter: Json) -> Self {
        self.default = Some(filter);
        self
    }

    /// A value, and the filter that it stands for; `{}` stands for all rows.
    pub fn value(mut self, value: impl Into<String>, filter: Json) -> Self {
        self.values.push((value.into(), filter));
        self
    }
}
