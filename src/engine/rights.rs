//! A resource's permissions, policies and field rules, compiled when the application is linked.

use std::sync::Arc;

use super::{Catalog, Entry};
use crate::access::{Actor, CheckRequest, Permission, Rule, Verdict};
use crate::query;
use crate::resource::{Acted, Faults, Operation, Right};

/// The compiled permissions of one resource.
#[derive(Debug)]
pub(crate) struct Rights {
    /// In the order of [`Operation::ALL`]; each rule includes every policy of the resource for its operation.
    pub(super) operations: Vec<Rule>,
    /// In the order of the definition's actions.
    pub(super) actions: Vec<Rule>,
    pub(super) history: Rule,
    pub(super) deleted: Rule,
    pub(super) fields: Vec<FieldRights>,
}

/// The compiled rules of one field. What no rule restricts is allowed.
#[derive(Clone, Debug)]
pub(crate) struct FieldRights {
    pub(super) field: usize,
    pub(super) read: Option<Rule>,
    pub(super) write: Option<Rule>,
    /// The callers for whom the field shows this JSON instead of its value.
    pub(super) redact: Option<(Rule, Arc<str>)>,
}

impl Rights {
    pub(crate) fn of(&self, right: Right) -> &Rule {
        match right {
            Right::Of(operation) => {
                let position = Operation::ALL.iter().position(|known| *known == operation);
                &self.operations[position.expect("ALL holds every operation")]
            }
            Right::Action(acted) => &self.actions[acted.position],
            Right::History => &self.history,
            Right::Deleted => &self.deleted,
        }
    }

    /// The field mask of one caller.
    pub(super) async fn mask(&self, catalog: &Catalog, entry: &Entry, actor: &Actor) -> Mask {
        if self.fields.is_empty() {
            return Mask(None);
        }
        let asking =
            CheckRequest { actor: actor.clone(), resource: entry.name.clone(), operation: Operation::Read };
        let read = |filter: &serde_json::Value| query::trusted_filter(catalog, entry, filter);
        let mut mask = FieldMask { unreadable: Vec::new(), unwritable: Vec::new(), redacted: Vec::new() };
        for rights in &self.fields {
            let allows = async |rule: &Rule| rule.decide(&asking, &read, None).await == Verdict::Allow;
            let reads = match &rights.read {
                Some(rule) => allows(rule).await,
                None => true,
            };
            // A field that does not exist for a caller cannot be set by the caller, whatever the write rule allows.
            let writes = reads
                && match &rights.write {
                    Some(rule) => allows(rule).await,
                    None => true,
                };
            if !reads {
                mask.unreadable.push(rights.field);
            }
            if !writes {
                mask.unwritable.push(rights.field);
            }
            if let Some((rule, json)) = &rights.redact
                && allows(rule).await
            {
                mask.redacted.push((rights.field, json.clone()));
            }
        }
        Mask(Some(Arc::new(mask)))
    }
}

/// Compiles the rules that a definition declares.
pub(super) fn compile(catalog: &Catalog, entry: &Entry, faults: &mut Faults) -> Rights {
    let definition = &entry.definition;
    let read = |filter: &serde_json::Value| query::trusted_filter(catalog, entry, filter);
    let mut compiled = |permission: &Permission, field: Option<&str>| {
        Rule::compile(permission, &entry.schema, &read).unwrap_or_else(|found| {
            for fault in found {
                faults.push(field, fault, "correct the rule: it speaks of the stored row's own fields");
            }
            Rule::nobody()
        })
    };
    let mut rule = |right: Right| {
        let mut rule = compiled(&definition.right(right), None);
        for policy in definition.policies.iter().filter(|policy| policy.operations.contains(&right.base())) {
            rule = rule.and(compiled(&policy.permission, None));
        }
        rule
    };
    let operations = Operation::ALL.into_iter().map(|operation| rule(operation.into())).collect();
    let acted = definition
        .actions
        .iter()
        .enumerate()
        .map(|(position, declared)| Acted { position, target: declared.action.target });
    let actions = acted.map(|acted| rule(Right::Action(acted))).collect();
    let (history, deleted) = (rule(Right::History), rule(Right::Deleted));
    let mut fields = Vec::new();
    let mut about_rows = Vec::new();
    for declared in &definition.field_rules {
        let name = entry.schema.fields[declared.field].name.as_str();
        let mut one = |permission: &Permission| {
            let rule = compiled(permission, Some(name));
            if rule.is_about_rows() {
                about_rows.push((name, permission.to_string()));
            }
            rule
        };
        fields.push(FieldRights {
            field: declared.field,
            read: declared.visible_to.as_ref().map(&mut one),
            write: declared.writable_by.as_ref().map(&mut one),
            redact: declared
                .redacted_for
                .as_ref()
                .map(|(permission, json)| (one(permission), json.to_string().into())),
        });
    }
    for (name, permission) in about_rows {
        faults.push(
            Some(name),
            format!("{permission} differs from row to row, and a field rule speaks of the caller alone"),
            "a rule about the caller: role(…), tenant_role(…), scope(…), check(…)",
        );
    }
    Rights { operations, actions, history, deleted, fields }
}

/// Field mask: the fields that one caller may read and write; all of them where the resource has no field rules.
#[derive(Clone, Debug)]
pub(crate) struct Mask(Option<Arc<FieldMask>>);

#[derive(Debug)]
struct FieldMask {
    unreadable: Vec<usize>,
    /// Every field of `unreadable`, and those that the caller may read but not write.
    unwritable: Vec<usize>,
    redacted: Vec<(usize, Arc<str>)>,
}

impl Mask {
    pub(super) const fn clear() -> Self {
        Self(None)
    }

    /// Whether the field exists for this caller at all.
    pub(crate) fn shows(&self, field: usize) -> bool {
        self.0.as_ref().is_none_or(|mask| !mask.unreadable.contains(&field))
    }

    /// Whether the field's value may be revealed, by a response or by which rows match and in which order.
    pub(crate) fn tells(&self, field: usize) -> bool {
        self.shows(field)
            && self.0.as_ref().is_none_or(|mask| mask.redacted.iter().all(|(redacted, _)| *redacted != field))
    }

    /// Whether the caller may set the field; never true for a field that the caller does not see.
    pub(crate) fn takes(&self, field: usize) -> bool {
        self.0.as_ref().is_none_or(|mask| !mask.unwritable.contains(&field))
    }

    /// The redacted fields, with their substitute values.
    pub(crate) fn redacted(&self) -> &[(usize, Arc<str>)] {
        self.0.as_ref().map_or(&[], |mask| &mask.redacted)
    }

    /// Whether this caller sees the actual value of every field.
    pub(crate) fn is_clear(&self) -> bool {
        self.0.as_ref().is_none_or(|mask| mask.unreadable.is_empty() && mask.redacted.is_empty())
    }
}
