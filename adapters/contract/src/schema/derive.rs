//! A JSON Schema object to fields: what schemars makes of a model, or what a user wrote by hand.

use std::fmt;

use serde_json::{Map, Value as Json, json};

use super::{Field, FieldType, Schema};

/// Why a JSON Schema cannot be a resource's shape: the place and the mend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unsupported {
    /// The field, or empty for the schema as a whole.
    pub field: String,
    /// What is wrong and what would be right.
    pub message: String,
}

impl fmt::Display for Unsupported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.field.is_empty() {
            f.write_str(&self.message)
        } else {
            write!(f, "{}: {}", self.field, self.message)
        }
    }
}

impl Schema {
    /// The fields of a JSON Schema object (2020-12), in the order of its `properties`.
    ///
    /// A property's type follows from `type` and `format`, through `$ref`, `allOf` of one and `anyOf` with
    /// `null`; an object, a union or an array of objects becomes [`FieldType::Json`]. `readOnly` and
    /// `writeOnly` are taken over.
    ///
    /// # Errors
    /// Every property that cannot be a field, at once; or the schema as a whole where it is no object.
    ///
    /// ```
    /// use resourceful_contract::{FieldType, Schema};
    ///
    /// let fields = Schema::fields_from_json_schema(&serde_json::json!({
    ///     "type": "object",
    ///     "properties": {"id": {"type": "string", "format": "uuid"}, "note": {"type": ["string", "null"]}},
    /// })).unwrap();
    /// assert_eq!(fields[0].field_type, FieldType::Uuid);
    /// assert!(fields[1].nullable);
    /// ```
    pub fn fields_from_json_schema(schema: &Json) -> Result<Vec<Field>, Vec<Unsupported>> {
        let root = resolve(schema, schema);
        let Some(properties) = root.get("properties").and_then(Json::as_object) else {
            return Err(vec![Unsupported {
                field: String::new(),
                message: "a resource's schema must be an object with `properties`: use a struct \
                          with named fields"
                    .to_owned(),
            }]);
        };
        let mut fields = Vec::with_capacity(properties.len());
        let mut faults = Vec::new();
        for (name, property) in properties {
            match field(name, property, schema) {
                Ok(field) => fields.push(field),
                Err(message) => faults.push(Unsupported { field: name.clone(), message }),
            }
        }
        if faults.is_empty() { Ok(fields) } else { Err(faults) }
    }
}

impl Schema {
    /// Whether a JSON Schema describes a decimal: `format: decimal`, or the pattern by which schemars describes
    /// `rust_decimal::Decimal`.
    #[must_use]
    pub fn describes_decimal(map: &Map<String, Json>) -> bool {
        map.get("format").and_then(Json::as_str) == Some("decimal")
            || map.get("pattern").and_then(Json::as_str).is_some_and(|pattern| {
                pattern.starts_with(r"^-?\d+(\.\d+)?") || pattern.starts_with(r"^-?[0-9]+(\.[0-9]+)?")
            })
    }
}

fn field(name: &str, property: &Json, root: &Json) -> Result<Field, String> {
    if name.is_empty() || name.contains(['[', ']', '.', ',', '\0']) {
        return Err("a field's name must not be empty or hold any of `[ ] . ,`: rename it \
                    with #[serde(rename = \"…\")]"
            .to_owned());
    }
    let Shape { field_type, nullable } = shape(property, root)?;
    let flag = |key: &str| property.get(key).and_then(Json::as_bool) == Some(true);
    let mut json_schema = match property {
        Json::Object(map) => Json::Object(map.clone()),
        // `true` admits anything (2020-12, 4.3.2); an object says the same and is easier to carry.
        _ => json!({}),
    };
    if let (Some(definitions), Json::Object(map)) = (root.get("$defs"), &mut json_schema)
        && holds_reference(map)
    {
        map.insert("$defs".to_owned(), definitions.clone());
    }
    let mut field = Field::new(name, field_type);
    field.nullable = nullable;
    field.read_only = flag("readOnly");
    field.write_only = flag("writeOnly");
    field.hidden = field.write_only;
    field.json_schema = json_schema;
    Ok(field)
}

fn holds_reference(map: &Map<String, Json>) -> bool {
    map.iter().any(|(key, value)| {
        key == "$ref"
            || match value {
                Json::Object(inner) => holds_reference(inner),
                Json::Array(items) => items.iter().filter_map(Json::as_object).any(holds_reference),
                _ => false,
            }
    })
}

struct Shape {
    field_type: FieldType,
    nullable: bool,
}

fn shape(schema: &Json, root: &Json) -> Result<Shape, String> {
    let schema = resolve(schema, root);
    let Some(map) = schema.as_object() else {
        return match schema {
            Json::Bool(false) => Err("a schema of `false` admits no value: drop the field".to_owned()),
            _ => Ok(Shape { field_type: FieldType::Json, nullable: true }),
        };
    };
    for union in ["anyOf", "oneOf"] {
        if let Some(branches) = map.get(union).and_then(Json::as_array) {
            return union_shape(branches, root);
        }
    }
    if let Some(values) = map.get("enum").and_then(Json::as_array) {
        return Ok(enum_shape(values));
    }
    if let Some(value) = map.get("const") {
        return Ok(enum_shape(std::slice::from_ref(value)));
    }
    let (types, nullable) = types(map);
    let field_type = match types.as_slice() {
        ["boolean"] => FieldType::Boolean,
        ["integer"] => FieldType::Integer,
        ["number"] if map.get("format").and_then(Json::as_str) == Some("float") => FieldType::Float32,
        ["number"] => FieldType::Float,
        ["string"] => text_type(map),
        ["string", "number"] | ["number", "string"] if Schema::describes_decimal(map) => FieldType::Decimal,
        ["array"] => array_type(map, root)?,
        _ => FieldType::Json,
    };
    Ok(Shape {
        // A schema without `type` admits null too.
        nullable: nullable || types.is_empty(),
        field_type,
    })
}

fn types(map: &Map<String, Json>) -> (Vec<&str>, bool) {
    let all: Vec<&str> = match map.get("type") {
        Some(Json::String(one)) => vec![one],
        Some(Json::Array(several)) => several.iter().filter_map(Json::as_str).collect(),
        _ => Vec::new(),
    };
    let nullable = all.contains(&"null");
    (all.into_iter().filter(|name| *name != "null").collect(), nullable)
}

fn text_type(map: &Map<String, Json>) -> FieldType {
    match map.get("format").and_then(Json::as_str) {
        Some("uuid") => FieldType::Uuid,
        Some("date-time") => FieldType::DateTime,
        Some("date") => FieldType::Date,
        _ if Schema::describes_decimal(map) => FieldType::Decimal,
        _ => FieldType::Text,
    }
}

fn array_type(map: &Map<String, Json>, root: &Json) -> Result<FieldType, String> {
    let Some(items) = map.get("items") else {
        return Ok(FieldType::Json);
    };
    let element = shape(items, root)?;
    Ok(match element.field_type.scalar() {
        Some(scalar) if !element.nullable => FieldType::Array(scalar),
        _ => FieldType::Json,
    })
}

fn enum_shape(values: &[Json]) -> Shape {
    let nullable = values.iter().any(Json::is_null);
    let mut others = values.iter().filter(|value| !value.is_null()).peekable();
    let every = |test: fn(&Json) -> bool| values.iter().all(|value| value.is_null() || test(value));
    let field_type = if others.peek().is_none() {
        FieldType::Json
    } else if every(Json::is_string) {
        FieldType::Text
    } else if every(Json::is_i64) {
        FieldType::Integer
    } else if every(Json::is_boolean) {
        FieldType::Boolean
    } else {
        FieldType::Json
    };
    Shape { field_type, nullable }
}

/// A union of one type and null is that type, nullable; of literal values an enum; any other is JSON.
fn union_shape(branches: &[Json], root: &Json) -> Result<Shape, String> {
    let mut nullable = false;
    let mut shapes = Vec::new();
    for branch in branches {
        if resolve(branch, root).get("type").and_then(Json::as_str) == Some("null") {
            nullable = true;
        } else {
            shapes.push(shape(branch, root)?);
        }
    }
    nullable |= shapes.iter().any(|shape| shape.nullable);
    let first = shapes.first().map_or(FieldType::Json, |shape| shape.field_type);
    let field_type =
        if shapes.iter().all(|shape| shape.field_type == first) { first } else { FieldType::Json };
    Ok(Shape { field_type, nullable })
}

/// Follows `$ref` into `$defs`, and an `allOf` of one, as far as they go.
fn resolve<'a>(schema: &'a Json, root: &'a Json) -> &'a Json {
    let mut current = schema;
    // A chain longer than this is a cycle of references.
    for _ in 0..32 {
        let next = if let Some(reference) = current.get("$ref").and_then(Json::as_str) {
            reference.strip_prefix('#').and_then(|pointer| root.pointer(pointer))
        } else if let Some([only]) = current.get("allOf").and_then(Json::as_array).map(Vec::as_slice) {
            (current.get("type").is_none()).then_some(only)
        } else {
            None
        };
        match next {
            Some(next) => current = next,
            None => break,
        }
    }
    current
}
