//! Reads by hooks and actions beside the item that is changed.

use std::sync::{Arc, Weak};

use futures::future::BoxFuture;
use resourceful_contract::{Filter, Query, Test, Value};
use serde_json::Value as Json;

use super::commit_plan::{CommitPlan, LOCK_PREFIX, Lock, PlannedChange, PlannedState};
use super::input;
use super::input::Fields;
use crate::access::Actor;
use crate::access::Operation;
use crate::catalog::Entry;
use crate::catalog::RowFilter;
use crate::engine::{Call, Engine};
use crate::error::{Error, ErrorKind};
use crate::resource::id_text;
use crate::resource::{HookReader, Id};
use crate::tables::leases::LeaseRow;

/// The rows of an application, in the state that the commit being assembled will leave.
#[derive(Debug)]
pub(in crate::engine) struct HookReads {
    engine: Weak<Engine>,
    entry: Arc<Entry>,
    plan: Arc<CommitPlan>,
}

impl Call<'_> {
    pub(in crate::engine) fn hook_reads(&self) -> Arc<dyn HookReader> {
        let plan = self.context.plan().clone();
        Arc::new(HookReads { engine: self.engine.weak_self.clone(), entry: self.entry.clone(), plan })
    }
}

impl HookReads {
    fn engine(&self) -> Result<Arc<Engine>, Error> {
        self.engine.upgrade().ok_or_else(|| Error::internal("the application has ended"))
    }
}

impl HookReader for HookReads {
    fn id_field(&self) -> &str {
        &self.entry.schema.id_field().name
    }

    fn id_in(&self, item: &Fields, field: &str) -> Option<String> {
        let id = self.entry.schema.id_field().field_type.read_json(item.get(field)?).ok()?;
        let is_generated = self.entry.definition.id == Id::Integer && id == Value::Integer(0);
        (!is_generated && !id.is_null()).then(|| id_text(&id))
    }

    fn row<'a>(&'a self, resource: &'a str, id: &'a str) -> BoxFuture<'a, Result<Option<Fields>, Error>> {
        Box::pin(async move {
            let engine = self.engine()?;
            let call = application_call(&engine, resource)?;
            let Ok(id) = call.parse_id(id) else { return Ok(None) };
            let planned: Vec<_> =
                self.plan.planned_rows(call.entry.position).into_iter().filter(|row| row.id == id).collect();
            call.planned_row(&id, &planned).await
        })
    }

    fn rows<'a>(
        &'a self,
        resource: &'a str,
        filter: Json,
        limit: u32,
        with_deleted: bool,
    ) -> BoxFuture<'a, Result<Vec<Fields>, Error>> {
        Box::pin(async move {
            let engine = self.engine()?;
            let call = application_call(&engine, resource)?;
            let planned = self.plan.planned_rows(call.entry.position);
            let mut filter = call.parse_filter(&filter)?;
            if let Some(field) = call.definition().deleted_at.filter(|_| !with_deleted) {
                filter = filter.and(Filter::Compare(field, Test::IsNull(true)));
            }
            call.matching_planned(filter, limit, &planned).await
        })
    }

    fn lists<'a>(
        &'a self,
        actor: &'a Actor,
        resource: &'a str,
        filter: Json,
    ) -> BoxFuture<'a, Result<bool, Error>> {
        Box::pin(async move {
            let engine = self.engine()?;
            let own = application_call(&engine, resource)?;
            let filter = own.parse_filter(&filter)?;
            let call = match engine.call(own.entry, actor, Operation::List, false).await {
                Ok(call) => call,
                Err(error) if matches!(error.kind(), ErrorKind::Forbidden | ErrorKind::Unauthenticated) => {
                    return Ok(false);
                }
                Err(error) => return Err(error),
            };
            let Some(listed) = call.visibility().listed.as_ref() else { return Ok(false) };
            let schema = call.entry.schema.clone();
            let query = Query { filter, fields: vec![schema.id], limit: 1, ..Query::all(schema) };
            let mut query = listed.guard_query(query);
            query.resolve(call.entry, &engine.catalog).await?;
            Ok(call.entry.storage.fetch(&query, &mut Vec::new()).await?.len > 0)
        })
    }

    fn unique_within(&self) -> Option<&str> {
        let field = self.entry.definition.unique_within?;
        Some(&self.entry.schema.fields[field].name)
    }

    fn lock<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(async move {
            let name = format!("{LOCK_PREFIX}{name}");
            if self.plan.has_lock(&name) {
                return Ok(());
            }
            let engine = self.engine()?;
            if !engine.outbox.storages().iter().any(|storage| storage.is_same(&self.entry.storage)) {
                let message = format!(
                    "`{}` is kept where the library has no tables, so there are no locks: the resource leaves no events, and has no hook or action of its own",
                    self.entry.name
                );
                return Err(Error::internal(message));
            }
            let mut query = Query::all(engine.tables.leases.clone());
            query.filter = Filter::Compare(0, Test::Eq(Value::Text(name.clone())));
            let lease = self.entry.storage.read_internal(query).await?.pop().map(LeaseRow::from_values);
            self.plan.add_lock(Lock { name, version: lease.map(|lease| lease.version) });
            Ok(())
        })
    }
}

/// A call by the application; an unknown resource is an internal error, not the caller's fault.
fn application_call<'a>(engine: &'a Engine, resource: &str) -> Result<Call<'a>, Error> {
    Ok(Call::as_application(engine, engine.catalog.find(resource).map_err(Error::internal)?))
}

impl Call<'_> {
    /// A row in the state that these planned changes leave.
    async fn planned_row(&self, id: &Value, planned: &[PlannedChange]) -> Result<Option<Fields>, Error> {
        let schema = &self.entry.schema;
        let mut row = match self.current(id.clone()).await {
            Ok((row, _)) => Some(row),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        let put = |row: &mut Fields, field: usize, value: &Value| -> Result<(), Error> {
            row.insert(schema.fields[field].name.clone(), input::value_json(value)?);
            Ok(())
        };
        for one in planned {
            match (&one.state, &mut row) {
                (PlannedState::Deleted, row) => *row = None,
                (PlannedState::Created(values), row) => {
                    let mut created = Fields::new();
                    for field in &self.definition().model_fields {
                        put(&mut created, *field, &values[*field])?;
                    }
                    *row = Some(created);
                }
                (PlannedState::Updated(set), Some(row)) => {
                    for (field, value) in set {
                        put(row, *field, value)?;
                    }
                }
                (PlannedState::Updated(_), None) => {}
            }
        }
        Ok(row)
    }

    /// Parses the filter of a hook; a fault in it is an internal error.
    fn parse_filter(&self, filter: &Json) -> Result<Filter, Error> {
        let wrong = |error: Error| Error::internal(format!("a hook's filter: {error}: {:?}", error.faults()));
        self.reader().filter(filter).map_err(wrong)
    }

    /// Rows that match in the state that the planned changes leave.
    async fn matching_planned(
        &self,
        filter: Filter,
        limit: u32,
        planned: &[PlannedChange],
    ) -> Result<Vec<Fields>, Error> {
        let schema = &self.entry.schema;
        let more = u32::try_from(planned.len()).unwrap_or(u32::MAX);
        let query = Query {
            filter: filter.clone(),
            fields: self.definition().model_fields.clone(),
            keys: vec![schema.id],
            limit: limit.saturating_add(more).max(1),
            ..Query::all(schema.clone())
        };
        let mut query = RowFilter::unrestricted().guard_query(query);
        query.resolve(self.entry, &self.engine.catalog).await?;
        let mut json = vec![b'['];
        let rows = self.entry.storage.fetch(&query, &mut json).await?;
        json.push(b']');
        let items: Vec<Fields> = serde_json::from_slice(&json).map_err(Error::internal)?;
        let mut found: Vec<(Value, Fields)> = rows.keys.into_iter().flatten().zip(items).collect();
        let mut seen_ids: Vec<&Value> = Vec::new();
        for one in planned {
            if seen_ids.contains(&&one.id) {
                continue;
            }
            seen_ids.push(&one.id);
            found.retain(|(id, _)| *id != one.id);
            let row_changes: Vec<_> = planned.iter().filter(|other| other.id == one.id).cloned().collect();
            if let Some(row) = self.planned_row(&one.id, &row_changes).await?
                && self.filter_matches(self.entry, &filter, &self.row_values(&row)?).await?
            {
                found.push((one.id.clone(), row));
            }
        }
        found.sort_by(|(one, _), (other, _)| one.compare(other));
        found.truncate(limit as usize);
        Ok(found.into_iter().map(|(_, row)| row).collect())
    }
}
