//! Create: a new item.

use resourceful_contract::{Value, Write};
use serde_json::{Value as Json, json};
use uuid::Uuid;

use super::commit::PreparedWrite;
use super::contention::ConflictRetry;
use super::input;
use super::input::Fields;
use crate::access::Operation;
use crate::authz::decision;
use crate::engine::{Call, Item};
use crate::error::{Error, Fault, escape_pointer};
use crate::resource::{Fill, Id};

impl Call<'_> {
    /// Creates an item from a body; returns it with its id.
    pub(crate) async fn create(&self, body: Json) -> Result<(Item, Value), Error> {
        self.insert(self.new_item(body)?).await
    }

    /// A complete new item from a body, validated.
    pub(in crate::engine) fn new_item(&self, body: Json) -> Result<Fields, Error> {
        let faults = self.body_faults(&self.definition().bodies.create_validator, &body);
        let fields = self.members(body)?;
        self.refuse_forbidden(None, &fields)?;
        let assembled = self.assemble_new(fields)?;
        let item = self.check(assembled, faults)?;
        self.reject_reserved_id(&item)?;
        Ok(item)
    }

    /// Stores a checked, assembled item.
    pub(in crate::engine) async fn insert(&self, assembled: Fields) -> Result<(Item, Value), Error> {
        // Boxed, here and below, so that a resource without hooks does not pay for the size of their futures.
        if self.has_hooks(Operation::Create) {
            return Box::pin(self.run_around_hooks(Operation::Create, self.insert_inner(assembled))).await;
        }
        self.insert_inner(assembled).await
    }

    async fn insert_inner(&self, assembled: Fields) -> Result<(Item, Value), Error> {
        let is_hooked = self.has_hooks(Operation::Create);
        let mut assembled = assembled;
        let mut attempts = ConflictRetry::default();
        loop {
            // Only changes that hooks enlist can cause a retry.
            let item = if is_hooked { assembled.clone() } else { std::mem::take(&mut assembled) };
            let prepared = self.prepare_insert(item).await?;
            match self.commit_one(prepared).await {
                Ok(written) => return self.response_item(written),
                Err(failure) if failure.is_retryable(true) => {
                    attempts.wait(self.engine, vec![self.resource_queue()]).await?;
                }
                Err(failure) => return Err(self.commit_error(failure)),
            }
        }
    }

    /// The prepared write of a new item, after hooks ran and the caller's permission was checked.
    pub(in crate::engine) async fn prepare_insert(&self, item: Fields) -> Result<PreparedWrite, Error> {
        if self.has_hooks(Operation::Create) {
            // What hooks return must not depend on a row that the caller does not see.
            let values = self.new_row(&item, false)?;
            self.check_references(values.iter().enumerate()).await?;
        }
        let version = self.item_version(&item).cloned();
        let (mut item, enlisted) = self.run_before_hooks(Operation::Create, None, item).await?;
        self.set_version(&mut item, version);
        let values = self.new_row(&item, false)?;
        self.check_create(&values).await?;
        let enlisted = self.prepare_enlisted(enlisted).await?;
        let after = self.should_record(Operation::Create).then_some(item);
        let main =
            self.pending_change(&self.allowed, Operation::Create, Write::Insert { values }, None, after);
        Ok(PreparedWrite { main, enlisted })
    }

    /// The values of a new row. The id is null where the database generates it and no given id is kept.
    pub(in crate::engine) fn new_row(&self, item: &Fields, has_given_id: bool) -> Result<Vec<Value>, Error> {
        let schema = &self.entry.schema;
        // Hooks may have set another id.
        self.reject_reserved_id(item)?;
        let mut values = self.values(item, 0..schema.fields.len())?;
        self.check_lengths(values.iter().enumerate())?;
        if self.definition().id == Id::Integer && !has_given_id {
            values[schema.id] = Value::Null;
        }
        if let Some(version) = schema.version.filter(|version| values[*version].is_null()) {
            values[version] = Value::Integer(first_version(self.has_generated_ids() && !has_given_id));
        }
        Ok(values)
    }

    /// Whether ids are generated for new items.
    fn has_generated_ids(&self) -> bool {
        self.definition().id != Id::Client
    }

    /// The value of an item's version field; `None` if it has none.
    pub(in crate::engine) fn item_version<'i>(&self, item: &'i Fields) -> Option<&'i Json> {
        let schema = &self.entry.schema;
        item.get(&schema.fields[schema.version?].name)
    }

    /// Restores the item's version, which hooks may not set.
    pub(in crate::engine) fn set_version(&self, item: &mut Fields, version: Option<Json>) {
        let schema = &self.entry.schema;
        if let (Some(field), Some(version)) = (schema.version, version) {
            item.insert(schema.fields[field].name.clone(), version);
        }
    }

    /// Refuses an id under which the item could not be reached: a path of the collection has the same name, or no path
    /// leads to it.
    pub(in crate::engine) fn reject_reserved_id(&self, assembled: &Fields) -> Result<(), Error> {
        let name = &self.entry.schema.id_field().name;
        let id = assembled.get(name).and_then(Json::as_str);
        let detail = match id {
            // With an empty segment or one of dots, a path is a different one (RFC 3986, 5.2.4).
            Some(id) if id.bytes().all(|byte| byte == b'.') => {
                "An id is part of a path: it must not be empty, nor hold nothing but dots."
            }
            Some(id) if self.definition().is_reserved(id) => {
                "This id is the name of a path of the collection: choose another."
            }
            _ => return Ok(()),
        };
        let pointer = format!("/{}", escape_pointer(name));
        Err(Error::validation(vec![Fault::pointer(pointer, "reserved", detail)]))
    }

    /// A complete item: the body, the declared defaults, and the fields that the server sets.
    ///
    /// # Errors
    /// Where a field is set from the caller, and the caller has no value for it.
    pub(in crate::engine) fn assemble_new(&self, fields: Fields) -> Result<Fields, Error> {
        let mut fields = self.assemble_defaults(fields);
        for (position, fill) in &self.definition().fills {
            let Some(value) = self.fill_value(*position, *fill)? else {
                return Err(decision::denied(self.entry, self.actor, Operation::Create));
            };
            fields.insert(self.entry.schema.fields[*position].name.clone(), value);
        }
        Ok(fields)
    }

    /// The value that a field takes from the caller, where the caller has one.
    pub(in crate::engine) fn fill_value(&self, position: usize, fill: Fill) -> Result<Option<Json>, Error> {
        let with = match fill {
            Fill::Actor => self.actor.id(),
            Fill::Tenant => self.actor.tenant(),
        };
        let field_type = self.entry.schema.fields[position].field_type;
        with.and_then(|with| field_type.parse(with).ok()).map(|value| input::value_json(&value)).transpose()
    }

    /// A complete item without the fields that are set from the caller.
    pub(in crate::engine) fn assemble_defaults(&self, mut fields: Fields) -> Fields {
        let definition = self.definition();
        let now = crate::clock::now();
        let is_generated =
            self.has_generated_ids() && !fields.contains_key(&self.entry.schema.id_field().name);
        for (position, field) in self.entry.schema.fields.iter().enumerate() {
            if crate::resource::is_internal(field) {
                continue;
            }
            let set = if position == self.entry.schema.id {
                generate_id(definition.id)
            } else if definition.created_at == Some(position) || definition.updated_at == Some(position) {
                Some(input::time_json(now))
            } else if self.entry.schema.version == Some(position) {
                Some(json!(first_version(is_generated)))
            } else if field.read_only || !fields.contains_key(&field.name) {
                field.default().cloned()
            } else {
                None
            };
            if let Some(value) = set {
                fields.insert(field.name.clone(), value);
            }
        }
        fields
    }
}

/// The first version of an item. An id that was not generated for the item may have had another item before, whose entity
/// tags must not be reused (RFC 9110, 8.8.1), so the version starts at a random number, within 30 bits so that a 32-bit
/// column has room to count on.
pub(in crate::engine) fn first_version(is_generated: bool) -> i64 {
    if is_generated {
        return 1;
    }
    let [.., one, two, three, four] = Uuid::new_v4().into_bytes();
    i64::from(u32::from_be_bytes([one, two, three, four]) >> 2) + 1
}

/// The id of a new item, or a placeholder until the database has generated it.
fn generate_id(id: Id) -> Option<Json> {
    match id {
        Id::UuidV7 => Some(Json::String(Uuid::now_v7().to_string())),
        Id::Text => Some(Json::String(Uuid::now_v7().simple().to_string())),
        Id::Integer => Some(json!(0)),
        Id::Client => None,
    }
}
