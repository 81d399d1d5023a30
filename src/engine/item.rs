//! From a body to a row: checked, assembled, read by each field's type.

use chrono::{DateTime, SecondsFormat, SubsecRound as _, Utc};
use resourceful_contract::{Change, Value};
use serde_json::{Map, Value as Json};

use super::{Call, Item};
use crate::error::{Error, Fault, Place, escape_pointer};
use crate::resource::validate;

/// An item's fields by name, as JSON.
pub(super) type Fields = Map<String, Json>;

/// The present, as precise as rows keep it.
pub(super) fn now() -> DateTime<Utc> {
    Utc::now().trunc_subsecs(6)
}

pub(super) fn instant(at: DateTime<Utc>) -> Json {
    Json::String(at.to_rfc3339_opts(SecondsFormat::AutoSi, true))
}

/// The members of a body that must be an object.
pub(super) fn object(body: Json) -> Result<Fields, Error> {
    match body {
        Json::Object(fields) => Ok(fields),
        _ => Err(Error::validation(vec![Fault::pointer("", "type", "Must be an object.")])),
    }
}

impl Call<'_> {
    /// What the schema says of a body. A field that exists and is the server's to set is told apart from one
    /// that does not exist.
    pub(super) fn body_faults(&self, validator: &jsonschema::Validator, body: &Json) -> Vec<Fault> {
        let definition = self.definition();
        let known = definition.bodies.update["properties"].as_object();
        let names = known.into_iter().flat_map(Map::keys).map(String::as_str);
        let mut faults = validate::faults(validator, body, &names);
        for fault in &mut faults {
            if fault.code == "unknown"
                && let Place::Pointer(pointer) = &fault.at
                && self.is_visible(pointer)
            {
                *fault = read_only(pointer.clone());
            }
        }
        faults
    }

    fn is_visible(&self, pointer: &str) -> bool {
        let schema = &self.entry.schema;
        schema
            .visible()
            .any(|position| pointer == format!("/{}", escape_pointer(&schema.fields[position].name)))
    }

    /// Runs what the model's type says over an assembled item, after what its schema said.
    ///
    /// # Errors
    /// Every fault of either, at once.
    pub(super) fn check(&self, item: Fields, mut faults: Vec<Fault>) -> Result<Fields, Error> {
        let item = Json::Object(item);
        let checked = self.definition().codec.check(&item);
        // Where the schema has said what is wrong, that the type cannot be read follows.
        if checked.json.is_some() || faults.is_empty() {
            faults.extend(checked.faults);
        }
        if !faults.is_empty() {
            return Err(Error::validation(faults));
        }
        let (Json::Object(mut item), Some(Json::Object(written))) = (item, checked.json) else {
            return Err(Error::internal("the model does not serialize as an object"));
        };
        // What the type leaves out when it writes (a secret, say) is stored as it came.
        for (name, value) in written {
            item.insert(name, value);
        }
        Ok(item)
    }

    /// Reads the fields at these positions from an assembled item.
    ///
    /// # Errors
    /// Every field that its type cannot hold.
    pub(super) fn values(
        &self,
        item: &Fields,
        positions: impl Iterator<Item = usize>,
    ) -> Result<Vec<Value>, Error> {
        let mut values = Vec::new();
        let mut faults = Vec::new();
        for position in positions {
            let field = &self.entry.schema.fields[position];
            let pointer = || format!("/{}", escape_pointer(&field.name));
            match field.field_type.read_json(item.get(&field.name).unwrap_or(&Json::Null)) {
                Ok(Value::Null) if !field.nullable && self.is_models(position) => {
                    faults.push(Fault::pointer(pointer(), "required", "This field is required."));
                }
                Ok(value) => values.push(value),
                Err(malformed) => {
                    faults.push(Fault::pointer(
                        pointer(),
                        "range",
                        format!("Cannot be stored: {malformed}."),
                    ));
                }
            }
        }
        if faults.is_empty() { Ok(values) } else { Err(Error::validation(faults)) }
    }

    /// Whether a field is the model's to fill, rather than the storage's.
    fn is_models(&self, position: usize) -> bool {
        position != self.entry.schema.id && Some(position) != self.entry.schema.version
    }

    /// Commits one change and answers the item as it is then.
    pub(super) async fn commit_one(
        &self,
        write: resourceful_contract::Write,
    ) -> Result<(Item, Value), Error> {
        let change = Change {
            schema: self.entry.schema.clone(),
            write,
            answer: Some(self.definition().visible.clone()),
        };
        let committed = self.entry.storage.commit(resourceful_contract::ChangeSet::one(change)).await?;
        let written = committed
            .rows
            .into_iter()
            .next()
            .ok_or_else(|| Error::internal("the storage answered no row for a change"))?;
        let version =
            written.version.ok_or_else(|| Error::internal("the storage answered no version for a row"))?;
        Ok((Item { json: written.json, version, part: None }, written.id))
    }
}

pub(super) fn read_only(pointer: String) -> Fault {
    Fault::pointer(pointer, "read-only", "The server sets this field: leave it out.")
}
