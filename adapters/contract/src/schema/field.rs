//! The fields of a schema, and their types.

/// One stored field.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Field {
    /// The name on the wire.
    pub name: String,
    /// The column name in the table; the same as `name` unless the declaration binds another one.
    pub column: String,
    /// The type of its values.
    pub field_type: FieldType,
    /// Whether null is allowed.
    pub nullable: bool,
    /// Whether only the server sets it: it is in responses and never in request bodies.
    pub read_only: bool,
    /// Whether it is accepted in requests and never returned.
    pub write_only: bool,
    /// Whether it is set when a row is created and never changed afterwards.
    pub immutable: bool,
    /// Whether it is stored but never part of a response or a request body, such as a version counter that the model does
    /// not have. `write_only` fields are hidden as well.
    pub hidden: bool,
    /// The JSON Schema of its values, with every `$ref` resolvable inside it: formats, constraints, enum
    /// values, nested objects, description and default.
    pub json_schema: serde_json::Value,
}

impl Field {
    /// A visible, writable, non-null field whose column has the same name.
    #[must_use]
    pub fn new(name: &str, field_type: FieldType) -> Self {
        Self {
            name: name.to_owned(),
            column: name.to_owned(),
            json_schema: field_type.json_schema(),
            field_type,
            nullable: false,
            read_only: false,
            write_only: false,
            immutable: false,
            hidden: false,
        }
    }

    /// Makes the field nullable.
    #[must_use]
    pub fn nullable(mut self) -> Self {
        self.nullable = true;
        self
    }

    /// The field's description, from the doc comment of the model.
    #[must_use]
    pub fn description(&self) -> Option<&str> {
        self.json_schema.get("description")?.as_str()
    }

    /// The value that a body without this field implies.
    #[must_use]
    pub fn default(&self) -> Option<&serde_json::Value> {
        self.json_schema.get("default")
    }

    /// The allowed values of a text field, if its schema lists them.
    #[must_use]
    pub fn enum_values(&self) -> Option<&Vec<serde_json::Value>> {
        self.non_null_schema()?.get("enum")?.as_array()
    }

    /// The `format` of its values, if its schema names one.
    #[must_use]
    pub fn format(&self) -> Option<&str> {
        self.non_null_schema()?.get("format")?.as_str()
    }

    /// The schema of its values other than null.
    fn non_null_schema(&self) -> Option<&serde_json::Value> {
        let root = &self.json_schema;
        let mut schema = root;
        // A named enum is behind a `$ref`; a nullable one is in an `anyOf` with null.
        for _ in 0..8 {
            let reference = schema.get("$ref").and_then(serde_json::Value::as_str);
            let union = schema.get("anyOf").and_then(serde_json::Value::as_array);
            schema = match (reference, union.map(Vec::as_slice)) {
                (Some(reference), _) => root.pointer(reference.strip_prefix('#')?)?,
                (None, Some([one, other])) if other.get("type").is_some_and(|name| name == "null") => one,
                _ => break,
            };
        }
        Some(schema)
    }
}

/// The type of a field's values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FieldType {
    /// `true` or `false`.
    Boolean,
    /// A signed 64-bit integer.
    Integer,
    /// A finite double.
    Float,
    /// A finite number of single precision (`format: float`).
    Float32,
    /// An exact decimal, a string on the wire (`format: decimal`).
    Decimal,
    /// Unicode text without U+0000.
    Text,
    /// A UUID (`format: uuid`).
    Uuid,
    /// An instant (`format: date-time`), stored in UTC to the microsecond.
    DateTime,
    /// A calendar date (`format: date`).
    Date,
    /// An object, or whatever else its JSON Schema allows; filters can test it for null only.
    Json,
    /// A list of scalars.
    Array(ScalarType),
}

/// The type of an array's elements; see [`FieldType`] for each.
#[expect(missing_docs, reason = "each means what the FieldType of the same name means")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ScalarType {
    Boolean,
    Integer,
    Float,
    Float32,
    Decimal,
    Text,
    Uuid,
    DateTime,
    Date,
}

impl From<ScalarType> for FieldType {
    fn from(scalar: ScalarType) -> Self {
        match scalar {
            ScalarType::Boolean => Self::Boolean,
            ScalarType::Integer => Self::Integer,
            ScalarType::Float => Self::Float,
            ScalarType::Float32 => Self::Float32,
            ScalarType::Decimal => Self::Decimal,
            ScalarType::Text => Self::Text,
            ScalarType::Uuid => Self::Uuid,
            ScalarType::DateTime => Self::DateTime,
            ScalarType::Date => Self::Date,
        }
    }
}

impl FieldType {
    /// The same type as an array's element; `None` for [`Json`](Self::Json) and arrays.
    #[must_use]
    pub const fn scalar(self) -> Option<ScalarType> {
        Some(match self {
            Self::Boolean => ScalarType::Boolean,
            Self::Integer => ScalarType::Integer,
            Self::Float => ScalarType::Float,
            Self::Float32 => ScalarType::Float32,
            Self::Decimal => ScalarType::Decimal,
            Self::Text => ScalarType::Text,
            Self::Uuid => ScalarType::Uuid,
            Self::DateTime => ScalarType::DateTime,
            Self::Date => ScalarType::Date,
            Self::Json | Self::Array(_) => return None,
        })
    }

    /// Whether rows can be sorted by a field of this type.
    #[must_use]
    pub const fn is_ordered(self) -> bool {
        self.scalar().is_some()
    }

    /// The operators that a filter may use on a field of this type, by their names in a query string.
    ///
    /// The operator that takes no value of the field's type is last: `is_null` takes `true` or `false`.
    #[must_use]
    pub const fn operators(self) -> &'static [&'static str] {
        match self {
            Self::Boolean => &["eq", "ne", "in", "nin", "is_null"],
            Self::Text => &[
                "eq", "ne", "gt", "gte", "lt", "lte", "in", "nin", "between", "contains", "starts", "ends",
                "is_null",
            ],
            Self::Integer
            | Self::Float
            | Self::Float32
            | Self::Decimal
            | Self::Uuid
            | Self::DateTime
            | Self::Date => &["eq", "ne", "gt", "gte", "lt", "lte", "in", "nin", "between", "is_null"],
            Self::Array(_) => &["has", "overlaps", "is_null"],
            Self::Json => &["is_null"],
        }
    }

    /// A JSON Schema for this type, without further constraints.
    #[must_use]
    pub fn json_schema(self) -> serde_json::Value {
        use serde_json::json;
        match self {
            Self::Boolean => json!({"type": "boolean"}),
            Self::Integer => json!({"type": "integer", "format": "int64"}),
            Self::Float => json!({"type": "number", "format": "double"}),
            Self::Float32 => {
                json!({"type": "number", "format": "float", "minimum": -3.402_823_5e38, "maximum": 3.402_823_5e38})
            }
            Self::Decimal => json!({"type": "string", "format": "decimal"}),
            Self::Text => json!({"type": "string"}),
            Self::Uuid => json!({"type": "string", "format": "uuid"}),
            Self::DateTime => json!({"type": "string", "format": "date-time"}),
            Self::Date => json!({"type": "string", "format": "date"}),
            Self::Json => json!({"type": "object"}),
            Self::Array(element) => {
                json!({"type": "array", "items": Self::from(element).json_schema()})
            }
        }
    }
}
