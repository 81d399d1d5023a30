//! Filters: the filterable fields, and the conditions of each in a query string and in a body.
//!
//! Fields of one type share one schema for each form. In a query string a field is one parameter of the style
//! `deepObject`: `population[gte]=10` is the member `gte`, and a plain value means equality. A list inside it is text
//! with commas, because OpenAPI leaves arrays inside `deepObject` undefined, and TypeScript clients refuse to serialize
//! them.

use resourceful_contract::{Field, FieldType};
use serde_json::{Map, Value as Json, json};

use super::catalog_view::CatalogView;
use super::components::{Components, reference};
use super::names::pascal;
use super::schemas::definition_name;
use crate::catalog::Entry;
use crate::query::MAX_URL_VALUES;

/// The maximum number of values in a list in a body.
const MAX_BODY_VALUES: usize = 1_000;

/// A field that a list can be filtered by.
pub(super) struct Filterable<'a> {
    /// Its name in requests: a field's own name, or `relation.field`.
    pub(super) path: String,
    /// The resource that has the field.
    owner: &'a Entry,
    field: &'a Field,
}

/// The fields that a list can be filtered by: a resource's own, and those of its relations with a dotted name.
pub(super) fn of<'a>(view: &'a CatalogView<'a>, entry: &'a Entry) -> impl Iterator<Item = Filterable<'a>> {
    let own = |entry: &'a Entry| {
        let fields = entry.schema.fields.iter().enumerate();
        let can_reveal =
            |position: usize| entry.definition.filterable[position] && view.can_reveal(entry, position);
        fields.filter(move |(position, _)| can_reveal(*position)).map(|(_, field)| field)
    };
    let relations = entry.links.iter().map(|relation| (relation, view.catalog.entry(relation.target)));
    let related = relations
        .filter(move |(relation, _)| view.is_filterable_relation(entry, relation))
        .flat_map(move |(relation, owner)| {
            own(owner).map(move |field| {
                let path = format!("{}.{}", relation.link.name, field.name);
                Filterable { path, owner, field }
            })
        });
    own(entry).map(move |field| Filterable { path: field.name.clone(), owner: entry, field }).chain(related)
}

impl Filterable<'_> {
    /// The schema of the field's query parameter.
    pub(super) fn parameter(&self, components: &mut Components, titles: &[String]) -> Json {
        let value = self.value(components, titles);
        components.add_shared(&format!("{}Parameter", self.name_prefix(titles)), self.query_schema(&value))
    }

    /// The schema of the field's condition in a filter tree.
    pub(super) fn condition(&self, components: &mut Components, titles: &[String]) -> Json {
        let value = self.value(components, titles);
        components.add_shared(&format!("{}Condition", self.name_prefix(titles)), self.body_schema(&value))
    }

    /// The prefix of the names of the field's schemas: its type, or the field itself if its values are listed. No title
    /// contains an underscore.
    fn name_prefix(&self, titles: &[String]) -> String {
        if self.field.enum_values().is_some() {
            return format!("{}_{}", titles[self.owner.position], pascal(&self.field.name));
        }
        match self.field.field_type {
            FieldType::Array(element) => format!("{}Array_", type_name(element.into())),
            other => format!("{}_", type_name(other)),
        }
    }

    /// The schema of one value. Listed values are a component, so that generators make one type of them: the model's
    /// own, if it has a name there.
    fn value(&self, components: &mut Components, titles: &[String]) -> Json {
        let Some(values) = self.field.enum_values() else { return value(self.field) };
        let property = &self.owner.definition.bodies.response["properties"][&self.field.name];
        let named = property.get("$ref").or_else(|| property.get("anyOf")?.get(0)?.get("$ref"));
        if let Some(definition) = named.and_then(Json::as_str).and_then(|to| to.strip_prefix("#/$defs/")) {
            return reference(&definition_name(&titles[self.owner.position], definition));
        }
        let texts: Vec<_> = values.iter().filter(|value| value.is_string()).collect();
        components.add_shared(
            &format!("{}Value", self.name_prefix(titles)),
            json!({"type": "string", "enum": texts}),
        )
    }

    fn query_schema(&self, value: &Json) -> Json {
        let schema = |operator: &str| match operator {
            "in" | "nin" | "overlaps" => list(self.field, 0, MAX_URL_VALUES - 1),
            "between" => list(self.field, 1, 1),
            "is_null" => json!({"type": "boolean"}),
            "contains" | "starts" | "ends" => any_text(),
            _ => value.clone(),
        };
        let object = self.operators(&schema);
        if self.has_equality() { json!({"anyOf": [value, object]}) } else { object }
    }

    fn body_schema(&self, value: &Json) -> Json {
        let list = |min: usize, max: usize| json!({"type": "array", "items": value, "minItems": min, "maxItems": max});
        let schema = |operator: &str| match operator {
            "in" | "nin" | "overlaps" => list(0, MAX_BODY_VALUES),
            "between" => list(2, 2),
            "is_null" => json!({"type": "boolean"}),
            "contains" | "starts" | "ends" => any_text(),
            _ => value.clone(),
        };
        let mut object = self.operators(&schema);
        object["minProperties"] = json!(1);
        if self.has_equality() { json!({"anyOf": [value, object]}) } else { object }
    }

    fn operators(&self, schema: &dyn Fn(&str) -> Json) -> Json {
        let members = self.field.field_type.operators().iter().map(|operator| {
            let mut schema = schema(operator);
            schema["description"] = json!(operator_description(operator));
            ((*operator).to_owned(), schema)
        });
        json!({
            "type": "object",
            "properties": members.collect::<Map<_, _>>(),
            "additionalProperties": false,
        })
    }

    fn has_equality(&self) -> bool {
        self.field.field_type.operators().contains(&"eq")
    }
}

fn operator_description(operator: &str) -> &'static str {
    match operator {
        "eq" => "Equal to this.",
        "ne" => "Not equal to this.",
        "gt" => "Greater than this.",
        "gte" => "Greater than or equal to this.",
        "lt" => "Less than this.",
        "lte" => "Less than or equal to this.",
        "in" => "Equal to one of these.",
        "nin" => "Equal to none of these.",
        "between" => "From the first to the second, both included.",
        "contains" => "Contains this text.",
        "starts" => "Starts with this text.",
        "ends" => "Ends with this text.",
        "has" => "Contains this element.",
        "overlaps" => "Contains one of these elements.",
        _ => "Whether the value is null.",
    }
}

fn type_name(field_type: FieldType) -> &'static str {
    match field_type {
        FieldType::Boolean => "Boolean",
        FieldType::Integer => "Integer",
        FieldType::Float => "Double",
        FieldType::Float32 => "Float",
        FieldType::Decimal => "Decimal",
        FieldType::Uuid => "Uuid",
        FieldType::DateTime => "DateTime",
        FieldType::Date => "Date",
        FieldType::Json => "Json",
        FieldType::Array(_) => "Array",
        _ => "Text",
    }
}

/// The type of a field's values, or of its elements where it is an array.
fn element(field: &Field) -> FieldType {
    match field.field_type {
        FieldType::Array(element) => FieldType::from(element),
        other => other,
    }
}

/// One value of a field without listed values, or one element where it is an array.
pub(super) fn value(field: &Field) -> Json {
    match element(field) {
        FieldType::Text => any_text(),
        FieldType::Decimal => super::decimals::value(),
        other => other.json_schema(),
    }
}

/// Text without U+0000.
pub(super) fn any_text() -> Json {
    json!({"type": "string", "pattern": "^[^\\x00]*$"})
}

/// Several values in a query string, with commas between them. A list of `least` 0 may be empty.
fn list(field: &Field, min: usize, max: usize) -> Json {
    let item = match field.enum_values() {
        Some(values) => one_of(values),
        None => pattern(element(field)),
    };
    let list = format!("{item}(,{item}){{{min},{max}}}");
    let pattern = if min == 0 { format!("^({list})?$") } else { format!("^{list}$") };
    json!({"type": "string", "pattern": pattern})
}

fn one_of(values: &[Json]) -> String {
    let escaped = |text: &str| {
        let mut escaped = String::with_capacity(text.len());
        for character in text.replace('%', "%25").replace(',', "%2C").chars() {
            if "^$\\.*+?()[]{}|/".contains(character) {
                escaped.push('\\');
            }
            escaped.push(character);
        }
        escaped
    };
    let texts: Vec<_> = values.iter().filter_map(Json::as_str).map(escaped).collect();
    format!("({})", texts.join("|"))
}

/// Pattern of a calendar date, without the rule for leap years.
const DATE: &str = "[0-9]{4}-((0[13578]|1[02])-(0[1-9]|[12][0-9]|3[01])|(0[469]|11)-(0[1-9]|[12][0-9]|30)|02-(0[1-9]|[12][0-9]))";

/// The pattern of one value in a list with commas.
fn pattern(field_type: FieldType) -> String {
    let pattern = match field_type {
        FieldType::Boolean => "(true|false)",
        FieldType::Integer => "-?[0-9]{1,18}",
        FieldType::Float | FieldType::Float32 => "-?[0-9]{1,15}(\\.[0-9]{1,15})?",
        FieldType::Decimal => "-?[0-9]{1,14}(\\.[0-9]{1,14})?",
        FieldType::Uuid => "[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}",
        FieldType::Date => DATE,
        FieldType::DateTime => {
            let time = "([01][0-9]|2[0-3])(:[0-5][0-9]){2}(\\.[0-9]{1,6})?";
            return format!("{DATE}T{time}(Z|[-+]([01][0-9]|2[0-3]):[0-5][0-9])");
        }
        _ => "[^\\x00,]*",
    };
    pattern.to_owned()
}
