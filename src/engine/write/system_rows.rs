//! Rows of resources that the library itself keeps, as typed values, bypassing permissions.

use resourceful_contract::{
    Change, ErrorKind as StorageKind, Filter, Guard, Query, Sort, Value, Version, Write,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use serde_json::{Map, Value as Json};

use super::commit::{Output, PendingChange, PreparedWrite};
use super::contention::ConflictRetry;
use super::context::WriteContext;
use crate::catalog::Entry;
use crate::engine::{Call, Engine};
use crate::error::Error;
use crate::query::trusted_filter;
use crate::resource::{Enlisted, EnlistedWrite};

/// A row and its version.
#[derive(Debug)]
pub(crate) struct SystemRow<M> {
    pub(crate) row: M,
    pub(crate) version: Version,
}

impl Engine {
    /// Rows of a resource, ordered by a field; rows that cannot be deserialized are skipped.
    pub(crate) async fn own_rows<M: DeserializeOwned>(
        &self,
        resource: &str,
        filter: &Json,
        by: &str,
        limit: u32,
    ) -> Result<Vec<SystemRow<M>>, Error> {
        let entry = self.catalog.find(resource)?;
        let by = entry.schema.position(by).ok_or_else(|| Error::internal("there is no such field"))?;
        let query = Query {
            filter: self.own_filter(entry, filter)?,
            sort: vec![Sort::ascending(by), Sort::ascending(entry.schema.id)],
            fields: entry.definition.stored.clone(),
            versions: true,
            limit,
            ..Query::all(entry.schema.clone())
        };
        let mut json = vec![b'['];
        let call = Call::by_the_application(self, entry);
        let rows = entry.storage.fetch(&call.allowed.query(query), &mut json).await?;
        json.push(b']');
        let found: Vec<&RawValue> = serde_json::from_slice(&json).map_err(Error::internal)?;
        let mut own = Vec::with_capacity(found.len());
        for (row, version) in found.into_iter().zip(rows.versions) {
            // Another version of the application may have written it. It must not block other rows.
            match serde_json::from_str(row.get()) {
                Ok(row) => own.push(SystemRow { row, version }),
                Err(error) => tracing::warn!(resource, error = format!("{error:#}"), "a row cannot be read"),
            }
        }
        Ok(own)
    }

    fn own_filter(&self, entry: &Entry, filter: &Json) -> Result<Filter, Error> {
        trusted_filter(&self.catalog, entry, filter).map_err(Error::internal)
    }

    /// Inserts rows, all or none; `false` where one of them already existed.
    pub(crate) async fn add_own<M: Serialize>(&self, resource: &str, rows: &[M]) -> Result<bool, Error> {
        let entry = self.catalog.find(resource)?;
        let call = Call::by_the_application(self, entry);
        let changes = rows.iter().map(|row| Ok(call.allowed.change(call.row(row)?)));
        let changes = changes.collect::<Result<Vec<_>, Error>>()?;
        match entry.storage.commit(changes, None, false).await {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == StorageKind::UniqueViolation => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Sets fields of a row that still has this version; `false` where it does not.
    pub(crate) async fn set_own(
        &self,
        resource: &str,
        id: &str,
        version: Version,
        fields: &Map<String, Json>,
    ) -> Result<bool, Error> {
        let entry = self.catalog.find(resource)?;
        let call = Call::by_the_application(self, entry);
        let set = values(entry, fields)?;
        let write = Write::Update { id: call.id(id)?, set, guard: Guard::version(version) };
        self.keep_own(&call, write).await
    }

    /// Sets fields of all rows that match a filter. Their versions stay.
    pub(crate) async fn set_all_own(
        &self,
        resource: &str,
        filter: &Json,
        fields: &Map<String, Json>,
    ) -> Result<(), Error> {
        let entry = self.catalog.find(resource)?;
        let call = Call::by_the_application(self, entry);
        let write = Write::UpdateAll { filter: self.own_filter(entry, filter)?, set: values(entry, fields)? };
        self.keep_own(&call, write).await.map(drop)
    }

    /// Removes a row that still has this version; `false` where it does not.
    pub(crate) async fn drop_own(&self, resource: &str, id: &str, version: Version) -> Result<bool, Error> {
        let call = Call::by_the_application(self, self.catalog.find(resource)?);
        let write = Write::Delete { id: call.id(id)?, guard: Guard::version(version) };
        self.keep_own(&call, write).await
    }

    /// Removes all rows that match a filter.
    pub(crate) async fn drop_all_own(&self, resource: &str, filter: &Json) -> Result<(), Error> {
        let entry = self.catalog.find(resource)?;
        let call = Call::by_the_application(self, entry);
        let filter = self.own_filter(entry, filter)?;
        self.keep_own(&call, Write::DeleteAll { filter }).await.map(drop)
    }

    async fn keep_own(&self, call: &Call<'_>, write: Write) -> Result<bool, Error> {
        let change = Change { schema: call.entry.schema.clone(), write, answer: None };
        match call.entry.storage.commit(vec![call.allowed.change(change)], None, false).await {
            Ok(_) => Ok(true),
            Err(error) if matches!(error.kind(), StorageKind::VersionMismatch | StorageKind::NotFound) => {
                Ok(false)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Changes an item as the application, with the event and audit entry of such a change.
    pub(crate) async fn change_as_application(
        &self,
        resource: &str,
        write: EnlistedWrite,
    ) -> Result<(), Error> {
        let terms = WriteContext::default();
        let call = Call::by_the_application(self, self.catalog.find(resource)?).on(&terms);
        let enlisted = Enlisted { resource: resource.to_owned(), write };
        let mut attempts = ConflictRetry::default();
        loop {
            let made = call.enlisted(vec![enlisted.clone()]).await?;
            let alone = |main: PendingChange| PreparedWrite { main, beside: Vec::new() };
            match call.commit(made.into_iter().map(alone).collect(), &Output::Json(&Json::Null)).await {
                Ok(_) => return Ok(()),
                Err(failure) if failure.is_contended(false) => {
                    attempts.lost(self, vec![call.contended_resource()]).await?;
                }
                Err(failure) => return Err(call.explained(failure)),
            }
        }
    }
}

/// The new values of fields, by position.
fn values(entry: &Entry, fields: &Map<String, Json>) -> Result<Vec<(usize, Value)>, Error> {
    let value = |(name, json): (&String, &Json)| {
        let position = entry.schema.position(name).ok_or_else(|| Error::internal("no such field"))?;
        let read = entry.schema.fields[position].field_type.read_json(json);
        Ok((position, read.map_err(|error| Error::internal(format!("{name}: {error:?}")))?))
    };
    fields.iter().map(value).collect()
}
