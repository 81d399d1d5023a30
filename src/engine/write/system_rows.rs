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
    pub(crate) async fn system_rows<M: DeserializeOwned>(
        &self,
        resource: &str,
        filter: &Json,
        by: &str,
        limit: u32,
    ) -> Result<Vec<SystemRow<M>>, Error> {
        let entry = self.catalog.find(resource)?;
        let by = entry.schema.position(by).ok_or_else(|| Error::internal("there is no such field"))?;
        let query = Query {
            filter: self.parse_filter(entry, filter)?,
            sort: vec![Sort::ascending(by), Sort::ascending(entry.schema.id)],
            fields: entry.definition.model_fields.clone(),
            versions: true,
            limit,
            ..Query::all(entry.schema.clone())
        };
        let mut json = vec![b'['];
        let call = Call::as_application(self, entry);
        let rows = entry.storage.fetch(&call.allowed.guard_query(query), &mut json).await?;
        json.push(b']');
        let found: Vec<&RawValue> = serde_json::from_slice(&json).map_err(Error::internal)?;
        let mut parsed = Vec::with_capacity(found.len());
        for (row, version) in found.into_iter().zip(rows.versions) {
            // Another version of the application may have written it. It must not block other rows.
            match serde_json::from_str(row.get()) {
                Ok(row) => parsed.push(SystemRow { row, version }),
                Err(error) => tracing::warn!(resource, error = format!("{error:#}"), "a row cannot be read"),
            }
        }
        Ok(parsed)
    }

    fn parse_filter(&self, entry: &Entry, filter: &Json) -> Result<Filter, Error> {
        trusted_filter(&self.catalog, entry, filter).map_err(Error::internal)
    }

    /// Inserts rows, all or none; `false` where one of them already existed.
    pub(crate) async fn insert_system_rows<M: Serialize>(
        &self,
        resource: &str,
        rows: &[M],
    ) -> Result<bool, Error> {
        let entry = self.catalog.find(resource)?;
        let call = Call::as_application(self, entry);
        let changes = rows.iter().map(|row| Ok(call.allowed.guard_change(call.insert_change(row)?)));
        let changes = changes.collect::<Result<Vec<_>, Error>>()?;
        match entry.storage.commit(changes, None, false).await {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == StorageKind::UniqueViolation => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Sets fields of a row that still has this version; `false` where it does not.
    pub(crate) async fn update_system_row(
        &self,
        resource: &str,
        id: &str,
        version: Version,
        fields: &Map<String, Json>,
    ) -> Result<bool, Error> {
        let entry = self.catalog.find(resource)?;
        let call = Call::as_application(self, entry);
        let set = values(entry, fields)?;
        let write = Write::Update { id: call.parse_id(id)?, set, guard: Guard::version(version) };
        self.commit_system_write(&call, write).await
    }

    /// Sets fields of all rows that match a filter. Their versions stay.
    pub(crate) async fn update_system_rows(
        &self,
        resource: &str,
        filter: &Json,
        fields: &Map<String, Json>,
    ) -> Result<(), Error> {
        let entry = self.catalog.find(resource)?;
        let call = Call::as_application(self, entry);
        let write =
            Write::UpdateAll { filter: self.parse_filter(entry, filter)?, set: values(entry, fields)? };
        self.commit_system_write(&call, write).await.map(drop)
    }

    /// Removes a row that still has this version; `false` where it does not.
    pub(crate) async fn delete_system_row(
        &self,
        resource: &str,
        id: &str,
        version: Version,
    ) -> Result<bool, Error> {
        let call = Call::as_application(self, self.catalog.find(resource)?);
        let write = Write::Delete { id: call.parse_id(id)?, guard: Guard::version(version) };
        self.commit_system_write(&call, write).await
    }

    /// Removes all rows that match a filter.
    pub(crate) async fn delete_system_rows(&self, resource: &str, filter: &Json) -> Result<(), Error> {
        let entry = self.catalog.find(resource)?;
        let call = Call::as_application(self, entry);
        let filter = self.parse_filter(entry, filter)?;
        self.commit_system_write(&call, Write::DeleteAll { filter }).await.map(drop)
    }

    async fn commit_system_write(&self, call: &Call<'_>, write: Write) -> Result<bool, Error> {
        let change = Change { schema: call.entry.schema.clone(), write, answer: None };
        match call.entry.storage.commit(vec![call.allowed.guard_change(change)], None, false).await {
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
        let context = WriteContext::default();
        let call = Call::as_application(self, self.catalog.find(resource)?).with_context(&context);
        let enlisted = Enlisted { resource: resource.to_owned(), write };
        let mut attempts = ConflictRetry::default();
        loop {
            let pending = call.prepare_enlisted(vec![enlisted.clone()]).await?;
            let single_write = |main: PendingChange| PreparedWrite { main, enlisted: Vec::new() };
            match call
                .commit(pending.into_iter().map(single_write).collect(), &Output::Json(&Json::Null))
                .await
            {
                Ok(_) => return Ok(()),
                Err(failure) if failure.is_retryable(false) => {
                    attempts.wait(self, vec![call.resource_queue()]).await?;
                }
                Err(failure) => return Err(call.commit_error(failure)),
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
