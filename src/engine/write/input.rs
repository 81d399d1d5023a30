//! From a request body to a row: validated, assembled, and converted to each field's type.

use resourceful_contract::Value;
use serde_json::{Map, Value as Json};

use crate::engine::Call;
use crate::error::{Error, ErrorKind, Fault, FaultLocation, escape_pointer};
use crate::resource::validate;

/// An item's fields by name, as JSON.
pub(crate) type Fields = Map<String, Json>;

/// A time as JSON.
pub(in crate::engine) fn time_json(at: chrono::DateTime<chrono::Utc>) -> Json {
    Json::String(crate::clock::rfc3339(at))
}

/// A value as JSON.
pub(in crate::engine) fn value_json(value: &Value) -> Result<Json, Error> {
    let mut json = Vec::new();
    resourceful_contract::json::value(&mut json, value);
    serde_json::from_slice(&json).map_err(Error::internal)
}

/// The members of a body that must be an object.
pub(in crate::engine) fn into_object(body: Json) -> Result<Fields, Error> {
    match body {
        Json::Object(fields) => Ok(fields),
        _ => Err(Error::validation(vec![Fault::pointer("", "type", "Must be an object.")])),
    }
}

impl Call<'_> {
    /// Faults of a body by the schema. A read-only field is distinguished from one that does not exist; a field that the
    /// caller may not see does not exist.
    pub(in crate::engine) fn body_faults(
        &self,
        validator: &jsonschema::Validator,
        body: &Json,
    ) -> Vec<Fault> {
        let known = self.definition().bodies.update["properties"].as_object();
        let names =
            known.into_iter().flat_map(Map::keys).map(String::as_str).filter(|name| self.can_set_name(name));
        let mut faults = validate::faults(validator, body, &names);
        for fault in &mut faults {
            if fault.code == "unknown"
                && let FaultLocation::Pointer(pointer) = &fault.at
                && self.is_visible(pointer)
            {
                *fault = read_only(pointer.clone());
            }
        }
        let absent = body.as_object().into_iter().flat_map(Map::keys).filter(|name| self.is_masked(name));
        for name in absent {
            let pointer = format!("/{}", escape_pointer(name));
            faults.retain(|fault| !is_at(fault, &pointer));
            faults.push(validate::unknown_field(&pointer, name, &names));
        }
        faults
    }

    /// Faults by the schema of a complete item, assembled from the stored item and the client's input.
    pub(in crate::engine) fn schema_faults(&self, item: &Json) -> Vec<Fault> {
        validate::faults(&self.definition().bodies.item_validator, item, &std::iter::empty())
    }

    /// Whether a name is that of a field that this caller may set.
    pub(in crate::engine) fn can_set_name(&self, name: &str) -> bool {
        self.entry.schema.position(name).is_some_and(|position| self.can_set(position))
    }

    pub(in crate::engine) fn can_set(&self, position: usize) -> bool {
        self.mask().can_write(position)
    }

    fn can_see(&self, position: usize) -> bool {
        self.mask().is_visible(position)
    }

    /// Whether a field exists for a client: it is not internal to the storage, and not hidden from all callers.
    pub(in crate::engine) fn is_known(&self, field: &resourceful_contract::Field) -> bool {
        let is_private = field.hidden && (field.read_only || crate::resource::is_internal(field));
        !is_private && !self.is_masked(&field.name)
    }

    /// The members of a body, without those that do not exist for this caller.
    ///
    /// # Errors
    /// Where the body is not an object.
    pub(in crate::engine) fn members(&self, body: Json) -> Result<Fields, Error> {
        let mut fields = into_object(body)?;
        fields.retain(|name, _| !self.is_masked(name));
        Ok(fields)
    }

    /// Whether a name is that of a field that does not exist for this caller.
    pub(in crate::engine) fn is_masked(&self, name: &str) -> bool {
        self.entry.schema.position(name).is_some_and(|position| !self.can_see(position))
    }

    /// Whether the caller is shown the field's value, so that a response may depend on it.
    pub(in crate::engine) fn is_readable(&self, position: usize) -> bool {
        !self.entry.schema.fields[position].hidden && self.mask().can_reveal(position)
    }

    /// Whether the caller is shown the values of all stored fields.
    pub(in crate::engine) fn reads_every_field(&self) -> bool {
        self.definition().model_fields.iter().all(|position| self.is_readable(*position))
    }

    /// The fields of a body that are set without the caller being shown their values. Setting one always counts as a
    /// change: otherwise the version, the events and the history would reveal whether a guess of its value was right.
    pub(in crate::engine) fn blind_fields(&self, body: &Fields) -> Vec<usize> {
        let positions = body.keys().filter_map(|name| self.entry.schema.position(name));
        positions.filter(|position| self.can_set(*position) && !self.is_readable(*position)).collect()
    }

    /// Whether any field is redacted for the caller.
    pub(in crate::engine) fn is_redacted(&self) -> bool {
        !self.mask().redacted().is_empty()
    }

    /// Removes the substitute values of redacted fields from a body, since each stands for the unchanged value: a client
    /// that reads an item and sends all of it back changes nothing that it was not shown.
    pub(in crate::engine) fn remove_placeholders(&self, body: &mut Json) -> Vec<String> {
        let schema = &self.entry.schema;
        let mut removed = Vec::new();
        let Json::Object(members) = body else { return removed };
        for (field, placeholder) in self.mask().redacted() {
            let name = schema.fields[*field].name.as_str();
            let is_placeholder = |value: &Json| {
                serde_json::from_str::<Json>(placeholder).is_ok_and(|placeholder| placeholder == *value)
            };
            if members.get(name).is_some_and(is_placeholder) {
                members.shift_remove(name);
                removed.push(name.to_owned());
            }
        }
        removed
    }

    /// Refuses a body with fields that the caller may not set.
    ///
    /// # Errors
    /// Every field of a body that the caller may see but not set, except for those that repeat the item's value.
    pub(in crate::engine) fn refuse_forbidden(
        &self,
        current: Option<&Fields>,
        body: &Fields,
    ) -> Result<(), Error> {
        let forbidden = body.iter().filter(|(name, given)| {
            self.entry.schema.position(name).is_some_and(|position| {
                let field = &self.entry.schema.fields[position];
                self.can_see(position)
                    && !self.can_set(position)
                    && !current.is_some_and(|current| self.is_unchanged(field, current, given))
            })
        });
        let faults: Vec<_> = forbidden
            .map(|(name, _)| {
                let pointer = format!("/{}", escape_pointer(name));
                Fault::pointer(pointer, "forbidden", "You may not set this field: leave it out.")
            })
            .collect();
        if faults.is_empty() {
            return Ok(());
        }
        let detail = "You may not set the fields listed in `errors`.";
        Err(Error::new(ErrorKind::Forbidden, "forbidden", detail).with_faults(faults))
    }

    /// The faults as this caller may see them: those of fields that the caller must not learn of are reported without a
    /// name.
    pub(in crate::engine) fn redact_faults(&self, faults: Vec<Fault>) -> Vec<Fault> {
        let fields = &self.entry.schema.fields;
        let is_nameable = |fault: &Fault| {
            fields.iter().enumerate().all(|(position, field)| {
                let hidden = (field.hidden && field.read_only) || !self.can_see(position);
                !hidden
                    || fault.code == "unknown"
                    || !is_at(fault, &format!("/{}", escape_pointer(&field.name)))
            })
        };
        let generic_fault = || {
            Fault::pointer("", "invalid", "The item would violate a rule of a field that you may not access.")
        };
        faults.into_iter().map(|fault| if is_nameable(&fault) { fault } else { generic_fault() }).collect()
    }

    fn is_visible(&self, pointer: &str) -> bool {
        let schema = &self.entry.schema;
        schema.visible().any(|position| {
            self.can_see(position) && pointer == format!("/{}", escape_pointer(&schema.fields[position].name))
        })
    }

    /// Runs the validation of the model's type over an assembled item, in addition to the faults that its schema found.
    ///
    /// # Errors
    /// Every fault of either, at once.
    pub(in crate::engine) fn check(&self, item: Fields, mut faults: Vec<Fault>) -> Result<Fields, Error> {
        let item = Json::Object(item);
        let checked = self.definition().codec.check(&item);
        // Where the schema has reported faults, the failure to deserialize the type is a consequence.
        if checked.json.is_some() || faults.is_empty() {
            faults.extend(checked.faults);
        }
        if !faults.is_empty() {
            return Err(Error::validation(self.redact_faults(faults)));
        }
        let (Json::Object(mut item), Some(Json::Object(written))) = (item, checked.json) else {
            return Err(Error::internal("the model does not serialize as an object"));
        };
        // Fields that the type does not serialize (a secret, say) are stored as they came.
        for (name, value) in written {
            item.insert(name, value);
        }
        Ok(item)
    }

    /// Validates a complete item that no client sent in this form.
    ///
    /// # Errors
    /// Every fault of its schema or its type, at once.
    pub(in crate::engine) fn revalidate(&self, item: Fields) -> Result<Fields, Error> {
        let json = Json::Object(item);
        let faults = self.schema_faults(&json);
        self.check(into_object(json)?, faults)
    }

    /// Reads the values at these positions from an assembled item.
    ///
    /// # Errors
    /// Every field with a value that its type cannot hold.
    pub(in crate::engine) fn values(
        &self,
        item: &Fields,
        positions: impl Iterator<Item = usize>,
    ) -> Result<Vec<Value>, Error> {
        self.read_values(item, positions, true)
    }

    /// The same from a stored item, where null may stand for an unreadable value.
    ///
    /// # Errors
    /// Every field with a value that its type cannot hold.
    pub(in crate::engine) fn stored_values(
        &self,
        item: &Fields,
        positions: impl Iterator<Item = usize>,
    ) -> Result<Vec<Value>, Error> {
        self.read_values(item, positions, false)
    }

    fn read_values(
        &self,
        item: &Fields,
        positions: impl Iterator<Item = usize>,
        is_strict: bool,
    ) -> Result<Vec<Value>, Error> {
        let mut values = Vec::new();
        let mut faults = Vec::new();
        for position in positions {
            let field = &self.entry.schema.fields[position];
            let pointer = || format!("/{}", escape_pointer(&field.name));
            match field.field_type.read_json(item.get(&field.name).unwrap_or(&Json::Null)) {
                Ok(Value::Null) if is_strict && !field.nullable && self.is_model_field(position) => {
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
        if faults.is_empty() { Ok(values) } else { Err(Error::validation(self.redact_faults(faults))) }
    }

    /// The unreadable fields of a stored item that a patch leaves unchanged: the model is invalid without them.
    pub(in crate::engine) fn unreadable_faults(&self, current: &Fields, patch: &Fields) -> Vec<Fault> {
        let stored =
            self.definition().model_fields.iter().copied().filter(|position| self.is_model_field(*position));
        let fields = stored.map(|position| &self.entry.schema.fields[position]);
        let unreadable = fields.filter(|field| {
            !field.nullable
                && current.get(&field.name).is_some_and(Json::is_null)
                && !patch.contains_key(&field.name)
        });
        let detail = "The stored value of this field cannot be read: set it as well.";
        unreadable
            .map(|field| Fault::pointer(format!("/{}", escape_pointer(&field.name)), "unreadable", detail))
            .collect()
    }

    /// Refuses values that are too long for an index.
    ///
    /// # Errors
    /// Every field that is too long.
    pub(in crate::engine) fn check_lengths<'v>(
        &self,
        values: impl IntoIterator<Item = (usize, &'v Value)>,
    ) -> Result<(), Error> {
        let mut faults = Vec::new();
        for (position, value) in values {
            if let Some(max_bytes) = self.definition().max_bytes[position]
                && value.indexed_bytes() > max_bytes
            {
                let pointer = format!("/{}", escape_pointer(&self.entry.schema.fields[position].name));
                let detail = format!("Must have at most {max_bytes} bytes of UTF-8: the field is indexed.");
                faults.push(Fault::pointer(pointer, "length", detail));
            }
        }
        if faults.is_empty() { Ok(()) } else { Err(Error::validation(self.redact_faults(faults))) }
    }

    /// Whether a field is set by the model rather than by the storage.
    fn is_model_field(&self, position: usize) -> bool {
        position != self.entry.schema.id && Some(position) != self.entry.schema.version
    }
}

/// Whether a fault is at a location in a body, or inside it.
fn is_at(fault: &Fault, pointer: &str) -> bool {
    let FaultLocation::Pointer(at) = &fault.at else {
        return false;
    };
    at.strip_prefix(pointer).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

pub(in crate::engine) fn read_only(pointer: String) -> Fault {
    Fault::pointer(pointer, "read-only", "The server sets this field: leave it out.")
}
