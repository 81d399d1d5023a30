//! The expected access of a caller to a row, computed row by row from the declared rules.
//!
//! It shares only the parsing of filters and the tests of single values with the engine: it combines no filters, and
//! runs no queries.

use std::collections::HashMap;
use std::sync::Arc;

use resourceful_contract::{FieldType, Filter, Value, fold};
use serde_json::{Map, Value as Json};

use crate::access::Operation;
use crate::access::{Actor, CheckRequest, Declared, Permission};
use crate::catalog::{Catalog, Entry};
use crate::http::EXPLAIN_PATH;
use crate::query;
use crate::resource::{Fill, Right};

/// A row as it is stored, by field names.
pub(super) type Row = Map<String, Json>;

/// The access that a rule grants an actor, before any row is considered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    All,
    Some,
    None,
}

/// The position for permissions that belong to no resource.
const NO_RESOURCE: usize = usize::MAX;

/// Whether an item is soft-deleted.
pub(super) fn is_deleted(entry: &Entry, row: &Row) -> bool {
    let field = entry.definition.deleted_at.map(|position| &entry.schema.fields[position].name);
    field.is_some_and(|field| row.get(field).is_some_and(|at| !at.is_null()))
}

/// The rules for one actor, with all existing rows.
pub(super) struct Oracle<'a> {
    catalog: &'a Catalog,
    rows: &'a [Vec<Row>],
    actor: &'a Actor,
    /// The decisions of checks, by their names and what they were asked.
    checks: HashMap<(String, usize, Operation), crate::access::Decision>,
}

impl<'a> Oracle<'a> {
    pub(super) async fn of(
        catalog: &'a Catalog,
        rows: &'a [Vec<Row>],
        actor: &'a Actor,
        explained_to: Option<&Permission>,
    ) -> Self {
        let mut checks = HashMap::new();
        for check in explained_to.into_iter().flat_map(Permission::checks) {
            let request = CheckRequest {
                actor: actor.clone(),
                resource: EXPLAIN_PATH.into(),
                operation: Operation::Read,
            };
            if let Some(Ok(decision)) = check.try_run(request).await {
                checks.insert((check.name().to_owned(), NO_RESOURCE, Operation::Read), decision);
            }
        }
        for entry in catalog.entries() {
            for right in Right::all(&entry.definition) {
                let operation = right.base_operation();
                for check in entry.definition.effective_permission(right).checks() {
                    let request =
                        CheckRequest { actor: actor.clone(), resource: entry.name.clone(), operation };
                    let key = (check.name().to_owned(), entry.position, operation);
                    // A check without a decision denies.
                    if let Some(Ok(decision)) = check.try_run(request).await {
                        checks.insert(key, decision);
                    }
                }
            }
        }
        Self { catalog, rows, actor, checks }
    }

    pub(super) fn is_anonymous(&self) -> bool {
        self.actor.is_anonymous()
    }

    /// Whether the actor is a client that acts on behalf of a user within scopes.
    pub(super) fn is_limited(&self) -> bool {
        self.actor.is_limited()
    }

    /// Every row of a resource.
    pub(super) fn rows_of(&self, entry: &Entry) -> &'a [Row] {
        &self.rows[entry.position]
    }

    pub(super) fn access(&self, entry: &Entry, right: impl Into<Right>) -> Access {
        let right = right.into();
        if !self.covers(entry, right) {
            return Access::None;
        }
        self.rule_access(Some(entry), right.base_operation(), &entry.definition.effective_permission(right))
    }

    /// Whether the scopes of a client that acts on behalf of a user cover this right: `orders:read` covers reads,
    /// `orders:write` every change, `orders:create` and similar scopes one operation or action (docs/access.md).
    fn covers(&self, entry: &Entry, right: Right) -> bool {
        let Some(scopes) = self.actor.limits() else { return true };
        let reads = matches!(right.base_operation(), Operation::Read | Operation::List);
        let group = if reads { "read" } else { "write" };
        let one = right.name(&entry.definition);
        [group, one].iter().any(|word| scopes.contains(&format!("{}:{word}", entry.name).as_str()))
    }

    /// The access that a rule grants the actor where there are no rows.
    pub(super) fn caller_access(&self, permission: &Permission) -> Access {
        self.rule_access(None, Operation::Read, permission)
    }

    fn rule_access(&self, entry: Option<&Entry>, operation: Operation, permission: &Permission) -> Access {
        let so = |yes: bool| if yes { Access::All } else { Access::None };
        let fits = |field: &str, name: Option<&str>| {
            let parsed = name.and_then(|name| Some(self.path_end(entry?, field)?.1.parse(name)));
            if parsed.is_some_and(|parsed| parsed.is_ok()) { Access::Some } else { Access::None }
        };
        let of = |part: &Permission| self.rule_access(entry, operation, part);
        match permission.declared() {
            Declared::Anyone => Access::All,
            Declared::SignedIn => so(!self.actor.is_anonymous()),
            Declared::Role(role) => so(self.actor.has_role(role)),
            Declared::TenantMember => so(self.actor.tenant().is_some() && !self.actor.is_service()),
            Declared::TenantRole(role) => so(self.actor.has_tenant_role(role)),
            Declared::Scope(scope) => so(self.actor.has_scope(scope)),
            Declared::Elevated => so(self.actor.is_elevated()),
            Declared::Nobody => Access::None,
            Declared::Owner(field) => fits(field, self.actor.id()),
            Declared::SameTenant(_) if self.actor.tenant().is_none() && self.actor.is_elevated() => {
                Access::All
            }
            Declared::SameTenant(field) => fits(field, self.actor.tenant()),
            Declared::Rows(_) => Access::Some,
            Declared::Check(check) => match self.check_decision(entry, operation, check.name()) {
                Some(None) => Access::All,
                Some(Some(_)) => Access::Some,
                None => Access::None,
            },
            Declared::When(passes, inner) => {
                if passes.passes(self.actor) {
                    of(inner)
                } else {
                    Access::None
                }
            }
            Declared::AllOf(parts) => {
                let parts: Vec<_> = parts.iter().map(of).collect();
                if parts.is_empty() || parts.contains(&Access::None) {
                    Access::None
                } else {
                    if parts.contains(&Access::Some) { Access::Some } else { Access::All }
                }
            }
            Declared::AnyOf(parts) => {
                let parts: Vec<_> = parts.iter().map(of).collect();
                if parts.contains(&Access::All) {
                    Access::All
                } else {
                    if parts.contains(&Access::Some) { Access::Some } else { Access::None }
                }
            }
            Declared::Not(inner) => match of(inner) {
                Access::All => Access::None,
                Access::None => Access::All,
                Access::Some => Access::Some,
            },
        }
    }

    /// The decision of a check: no filter, a filter, or `None` if it denied.
    fn check_decision(
        &self,
        entry: Option<&Entry>,
        operation: Operation,
        name: &str,
    ) -> Option<Option<Filter>> {
        let position = entry.map_or(NO_RESOURCE, |entry| entry.position);
        let decision = self.checks.get(&(name.to_owned(), position, operation))?;
        match decision.filter()? {
            None => Some(None),
            Some(json) => Some(Some(query::trusted_filter(self.catalog, entry?, json).ok()?)),
        }
    }

    /// Whether the actor has the attributes that fields of a new item are set to.
    pub(super) fn has_fill_values(&self, entry: &Entry) -> bool {
        entry.definition.fills.iter().all(|(field, fill)| {
            let with = match fill {
                Fill::Actor => self.actor.id(),
                Fill::Tenant => self.actor.tenant(),
            };
            with.is_some_and(|with| entry.schema.fields[*field].field_type.parse(with).is_ok())
        })
    }

    /// Whether the rules of a right admit the actor to this row.
    pub(super) fn is_admitted(&self, entry: &Entry, right: impl Into<Right>, row: &Row) -> bool {
        let right = right.into();
        self.covers(entry, right)
            && self.is_admitted_by(
                entry,
                right.base_operation(),
                &entry.definition.effective_permission(right),
                row,
            )
    }

    fn is_admitted_by(
        &self,
        entry: &Entry,
        operation: Operation,
        permission: &Permission,
        row: &Row,
    ) -> bool {
        let holds = |field: &str, name: Option<&str>| {
            let Some(((_, field_type), name)) = self.path_end(entry, field).zip(name) else { return false };
            let Ok(wanted) = field_type.parse(name) else { return false };
            self.values(entry, field, row)
                .iter()
                .any(|found| !found.is_null() && wanted.compare(found).is_eq())
        };
        let of = |part: &Permission| self.is_admitted_by(entry, operation, part, row);
        match permission.declared() {
            Declared::Owner(field) => holds(field, self.actor.id()),
            Declared::SameTenant(_) if self.actor.tenant().is_none() && self.actor.is_elevated() => true,
            Declared::SameTenant(field) => holds(field, self.actor.tenant()),
            Declared::Rows(filter) => query::trusted_filter(self.catalog, entry, filter)
                .is_ok_and(|filter| self.matches(entry, &filter, row)),
            Declared::Check(check) => match self.check_decision(Some(entry), operation, check.name()) {
                Some(None) => true,
                Some(Some(filter)) => self.matches(entry, &filter, row),
                None => false,
            },
            Declared::When(passes, inner) => passes.passes(self.actor) && of(inner),
            Declared::AllOf(parts) => !parts.is_empty() && parts.iter().all(of),
            Declared::AnyOf(parts) => parts.iter().any(of),
            Declared::Not(inner) => !of(inner),
            _ => self.rule_access(Some(entry), operation, permission) == Access::All,
        }
    }

    /// The name and type of the field at the end of a path.
    fn path_end<'p>(&self, entry: &Entry, path: &'p str) -> Option<(&'p str, FieldType)> {
        match path.split_once('.') {
            None => Some((path, entry.schema.fields[entry.schema.position(path)?].field_type)),
            Some((name, rest)) => {
                let relation = entry.links.iter().find(|relation| relation.link.name == name)?;
                self.path_end(self.catalog.entry(relation.target), rest)
            }
        }
    }

    /// The values at the end of a path, in each row that it leads to.
    fn values(&self, entry: &Entry, path: &str, row: &Row) -> Vec<Value> {
        let Some((name, rest)) = path.split_once('.') else {
            return entry.schema.position(path).map(|field| value(entry, field, row)).into_iter().collect();
        };
        let relation = entry.links.iter().find(|relation| relation.link.name == name);
        let values = relation.into_iter().flat_map(|relation| {
            let target = self.catalog.entry(relation.target);
            self.related(entry, relation, row).flat_map(move |row| self.values(target, rest, row))
        });
        values.collect()
    }

    /// Whether the actor can read a row.
    pub(super) fn is_readable(&self, entry: &Entry, row: &Row) -> bool {
        self.is_admitted(entry, Operation::Read, row) && !is_deleted(entry, row)
    }

    /// Whether a list contains a row.
    pub(super) fn is_listed(&self, entry: &Entry, row: &Row) -> bool {
        self.is_readable(entry, row) && self.is_admitted(entry, Operation::List, row)
    }

    /// Whether a filter selects a row, related rows included, regardless of access to them.
    pub(super) fn matches(&self, entry: &Entry, filter: &Filter, row: &Row) -> bool {
        match filter {
            Filter::All(filters) => filters.iter().all(|filter| self.matches(entry, filter, row)),
            Filter::Any(filters) => filters.iter().any(|filter| self.matches(entry, filter, row)),
            Filter::Not(inner) => !self.matches(entry, inner, row),
            Filter::Compare(field, test) => test.passes(&value(entry, *field, row)),
            Filter::Search(fields, word) => fields.iter().any(
                |field| matches!(value(entry, *field, row), Value::Text(text) if fold::contains(&text, word)),
            ),
            Filter::Related(by, inner) => {
                let relation = entry.links.iter().find(|relation| Arc::ptr_eq(&relation.link, &by.0));
                relation.is_some_and(|relation| {
                    let target = self.catalog.entry(relation.target);
                    self.related(entry, relation, row).any(|row| self.matches(target, inner, row))
                })
            }
        }
    }

    /// The rows that a relation leads to, by ascending id.
    pub(super) fn related<'b>(
        &'b self,
        entry: &'b Entry,
        relation: &'b crate::catalog::LinkedRelation,
        row: &'b Row,
    ) -> impl Iterator<Item = &'b Row> + 'b {
        let target = self.catalog.entry(relation.target);
        let key = value(entry, relation.link.local, row);
        self.rows[relation.target].iter().filter(move |other| {
            !key.is_null() && value(target, relation.link.remote, other).compare(&key).is_eq()
        })
    }

    /// Whether a field exists for the actor.
    pub(super) fn is_visible(&self, entry: &Entry, field: usize) -> bool {
        let rules = entry.definition.field_rules.iter().filter(|rule| rule.field == field);
        let visible = rules.filter_map(|rule| rule.visible_to.as_ref());
        visible
            .into_iter()
            .all(|permission| self.rule_access(Some(entry), Operation::Read, permission) == Access::All)
    }

    /// Whether a field exists for the actor in a body: hidden fields exist for no caller.
    pub(super) fn exists_in_body(&self, entry: &Entry, field: usize) -> bool {
        let declared = &entry.schema.fields[field];
        let is_set_only = declared.write_only && !declared.read_only;
        self.is_visible(entry, field) && (!declared.hidden || is_set_only)
    }

    /// The redacted value of a field, if it is redacted for the actor.
    pub(super) fn redacted_value(&self, entry: &Entry, field: usize) -> Option<&'a Json> {
        let rules = &self.catalog.entry(entry.position).definition.field_rules;
        let redacted = rules.iter().find(|rule| rule.field == field)?.redacted_for.as_ref()?;
        (self.rule_access(Some(entry), Operation::Read, &redacted.0) == Access::All).then_some(&redacted.1)
    }

    /// Whether a field's value may be revealed to the actor.
    pub(super) fn can_reveal(&self, entry: &Entry, field: usize) -> bool {
        self.is_visible(entry, field) && self.redacted_value(entry, field).is_none()
    }

    /// Whether a relation exists for the actor: the keys on both of its sides may be revealed to it.
    pub(super) fn is_relation_visible(
        &self,
        entry: &Entry,
        relation: &crate::catalog::LinkedRelation,
    ) -> bool {
        let target = self.catalog.entry(relation.target);
        self.can_reveal(entry, relation.link.local) && self.can_reveal(target, relation.link.remote)
    }

    /// Whether the actor may set a field. A field that does not exist for an actor is unknown in a body too.
    pub(super) fn can_write(&self, entry: &Entry, field: usize) -> bool {
        if !self.is_visible(entry, field) {
            return false;
        }
        let rules = entry.definition.field_rules.iter().filter(|rule| rule.field == field);
        let writable = rules.filter_map(|rule| rule.writable_by.as_ref());
        writable
            .into_iter()
            .all(|permission| self.rule_access(Some(entry), Operation::Read, permission) == Access::All)
    }

    /// A row, as the actor sees it.
    pub(super) fn visible_item(&self, entry: &Entry, row: &Row) -> Json {
        let visible = entry.definition.visible.iter().filter(|field| self.is_visible(entry, **field));
        visible
            .map(|field| {
                let name = entry.schema.fields[*field].name.clone();
                let value = row.get(&name).cloned().unwrap_or(Json::Null);
                (name, self.redacted_value(entry, *field).cloned().unwrap_or(value))
            })
            .collect::<Map<_, _>>()
            .into()
    }
}

/// A field's value in a row.
pub(super) fn value(entry: &Entry, field: usize, row: &Row) -> Value {
    let field = &entry.schema.fields[field];
    field.field_type.read_json(row.get(&field.name).unwrap_or(&Json::Null)).unwrap_or(Value::Null)
}
