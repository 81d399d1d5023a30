//! Loading of existing rows in one transaction.

use std::fmt;
use std::sync::Arc;

use futures::future::BoxFuture;
use resourceful_contract::{Change, ChangeSet, Count, Filter, Position, Query, Sort, Value, Write};
use serde::Serialize;
use serde_json::Value as Json;

use super::create::first_version;
use crate::access::Actor;
use crate::catalog::RowFilter;
use crate::catalog::{Entry, Visibilities};
use crate::engine::{Call, Engine};
use crate::error::{Error, ErrorKind};
use crate::resource::{to_json, validate};

/// Rows to load, of any number of resources of one storage. Every row is validated like a created one; permissions are
/// bypassed, and ids and timestamps are stored as given.
pub struct Loader<'a> {
    engine: &'a Engine,
    changes: Vec<Change>,
    storage: Option<&'a Arc<Entry>>,
    progress: Option<Arc<dyn Fn(usize) + Send + Sync>>,
}

impl fmt::Debug for Loader<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Loader").field("rows", &self.changes.len()).finish_non_exhaustive()
    }
}

impl<'a> Loader<'a> {
    pub(crate) const fn new(engine: &'a Engine) -> Self {
        Self { engine, changes: Vec::new(), storage: None, progress: None }
    }

    /// Adds rows of a resource, each a value that serializes as the resource's model does.
    ///
    /// # Errors
    /// Where there is no such resource, where it is in another storage than the previous rows, or where a row is invalid:
    /// the first such row, with its position.
    pub fn rows<R: Serialize>(
        mut self,
        resource: &str,
        rows: impl IntoIterator<Item = R>,
    ) -> Result<Self, Error> {
        let entry = self.engine.catalog.find(resource)?;
        let first = self.storage.get_or_insert(entry);
        if !first.storage.is_same(&entry.storage) {
            let message = format!("`{resource}` is kept elsewhere than the rows before: load it by itself");
            return Err(Error::new(ErrorKind::Validation, "load", message));
        }
        let call = Call::as_application(self.engine, entry);
        for (position, row) in rows.into_iter().enumerate() {
            let change = call.insert_change(&row).map_err(|error| row_error(resource, position, &error))?;
            self.changes.push(change);
        }
        Ok(self)
    }

    /// Calls this from time to time with the number of rows stored so far.
    #[must_use]
    pub fn progress(mut self, progress: impl Fn(usize) + Send + Sync + 'static) -> Self {
        self.progress = Some(Arc::new(progress));
        self
    }

    /// Stores every row, or none.
    ///
    /// # Errors
    /// Where the storage refuses a row, or fails.
    pub async fn commit(self) -> Result<usize, Error> {
        self.commit_boxed().await
    }

    #[inline(never)]
    fn commit_boxed(self) -> BoxFuture<'a, Result<usize, Error>> {
        Box::pin(self.store())
    }

    async fn store(self) -> Result<usize, Error> {
        let rows = self.changes.len();
        if let Some(entry) = self.storage {
            let changes = ChangeSet { progress: self.progress, ..ChangeSet::of(self.changes) };
            entry.storage.load(changes).await?;
        }
        Ok(rows)
    }
}

fn row_error(resource: &str, position: usize, error: &Error) -> Error {
    let message = format!("row {position} of `{resource}`: {error}");
    Error::new(error.kind(), "load", message).with_faults(error.faults().to_vec())
}

impl<'a> Call<'a> {
    /// A call by the application itself, without a request.
    pub(crate) fn as_application(engine: &'a Engine, entry: &'a Arc<Entry>) -> Self {
        static ANONYMOUS: Actor = Actor::anonymous();
        let visibilities = Visibilities::unrestricted(entry);
        let allowed = RowFilter::unrestricted();
        let (addressed, context) = (allowed.clone(), &super::context::DEFAULT);
        Self { engine, entry, actor: &ANONYMOUS, allowed, addressed, visibilities, context }
    }

    pub(in crate::engine) fn insert_change(&self, row: &impl Serialize) -> Result<Change, Error> {
        let json = to_json(row).map_err(Error::internal)?;
        let names = std::iter::empty();
        let faults = validate::faults(&self.entry.definition.bodies.item_validator, &json, &names);
        let Json::Object(fields) = json else {
            return Err(Error::internal("a row must serialize as an object"));
        };
        let fields = self.check(fields, faults)?;
        let schema = &self.entry.schema;
        self.reject_reserved_id(&fields)?;
        let mut values = self.values(&fields, 0..schema.fields.len())?;
        if let Some(version) = schema.version {
            values[version] = Value::Integer(first_version(values[schema.id].is_null()));
        }
        self.check_lengths(values.iter().enumerate())?;
        Ok(Change { schema: schema.clone(), write: Write::Insert { values }, answer: None })
    }
}

impl Engine {
    /// Every row of a resource as it is stored, for tests of what is shown of them.
    #[cfg(feature = "testing")]
    pub(crate) async fn rows(&self, entry: &Entry) -> Result<Vec<super::input::Fields>, Error> {
        let mut fields = entry.definition.model_fields.clone();
        fields.extend(entry.schema.version.filter(|version| !fields.contains(version)));
        let query = Query { fields, limit: 10_000, ..Query::all(entry.schema.clone()) };
        let mut json = vec![b'['];
        entry.storage.fetch(&RowFilter::unrestricted().guard_query(query), &mut json).await?;
        json.push(b']');
        serde_json::from_slice(&json).map_err(Error::internal)
    }

    /// The number of rows of a resource.
    pub(crate) async fn count(&self, resource: &str) -> Result<u64, Error> {
        let entry = self.catalog.find(resource)?;
        let query = Query {
            schema: entry.schema.clone(),
            filter: Filter::everything(),
            sort: vec![Sort::ascending(entry.schema.id)],
            fields: vec![entry.schema.id],
            includes: Vec::new(),
            keys: Vec::new(),
            versions: false,
            position: Position::Start,
            limit: 1,
            count: Some(Count::Exact),
        };
        let query = RowFilter::unrestricted().guard_query(query);
        let rows = entry.storage.fetch(&query, &mut Vec::new()).await?;
        Ok(rows.total.map_or(rows.len as u64, |total| total.rows))
    }
}
