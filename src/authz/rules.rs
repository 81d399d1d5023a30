//! Permissions, policies and field rules: compiled when the application is linked, evaluated for one caller.

use crate::access::Operation;
use crate::access::{Actor, CheckRequest, Permission, Rule, Verdict};
use crate::catalog::{Catalog, Entry};
use crate::catalog::{FieldRestrictions, Mask};
use crate::catalog::{FieldRights, Rights};
use crate::query;
use crate::resource::{ActionRef, DefinitionFault, Faults, Right};

/// Compiles the rules of every resource of a catalog, and returns the faults of those that do not fit their resource. A
/// rule may refer to related resources, so all of them are linked before.
pub(crate) fn compile_all(catalog: &Catalog) -> Vec<DefinitionFault> {
    let mut faults = Vec::new();
    for entry in catalog.entries() {
        let mut found = Faults::of(entry.definition.name());
        entry.set_rights(compile(catalog, entry, &mut found));
        faults.extend(found.into_faults());
    }
    faults
}

/// The field mask of one caller.
pub(crate) async fn field_mask(catalog: &Catalog, entry: &Entry, actor: &Actor) -> Mask {
    if entry.rights().fields.is_empty() {
        return Mask::unrestricted();
    }
    let request =
        CheckRequest { actor: actor.clone(), resource: entry.name.clone(), operation: Operation::Read };
    let read = |filter: &serde_json::Value| query::trusted_filter(catalog, entry, filter);
    let mut mask = FieldRestrictions::default();
    for rights in &entry.rights().fields {
        let allows = async |rule: &Rule| rule.decide(&request, &read, None).await == Verdict::Allow;
        let can_read = match &rights.read {
            Some(rule) => allows(rule).await,
            None => true,
        };
        // A field that does not exist for a caller cannot be set by the caller, whatever the write rule allows.
        let can_write = can_read
            && match &rights.write {
                Some(rule) => allows(rule).await,
                None => true,
            };
        if !can_read {
            mask.unreadable.push(rights.field);
        }
        if !can_write {
            mask.unwritable.push(rights.field);
        }
        if let Some((rule, json)) = &rights.redact
            && allows(rule).await
        {
            mask.redacted.push((rights.field, json.clone()));
        }
    }
    Mask::of(mask)
}

/// The rules that one definition declares.
fn compile(catalog: &Catalog, entry: &Entry, faults: &mut Faults) -> Rights {
    let definition = &entry.definition;
    let read = |filter: &serde_json::Value| query::trusted_filter(catalog, entry, filter);
    let mut compiled = |permission: &Permission, field: Option<&str>| {
        Rule::compile(permission, &entry.schema, &read).unwrap_or_else(|found| {
            for fault in found {
                faults.push(field, fault, "correct the rule: it may use only the stored row's own fields");
            }
            Rule::deny_all()
        })
    };
    let mut rule = |right: Right| {
        let mut rule = compiled(&definition.right_permission(right), None);
        for policy in
            definition.policies.iter().filter(|policy| policy.operations.contains(&right.base_operation()))
        {
            rule = rule.and(compiled(&policy.permission, None));
        }
        rule
    };
    let operations = Operation::ALL.into_iter().map(|operation| rule(operation.into())).collect();
    let acted = definition
        .actions
        .iter()
        .enumerate()
        .map(|(position, declared)| ActionRef { position, target: declared.action.target });
    let actions = acted.map(|acted| rule(Right::Action(acted))).collect();
    let (history, deleted) = (rule(Right::History), rule(Right::Deleted));
    let mut fields = Vec::new();
    let mut row_dependent = Vec::new();
    for declared in &definition.field_rules {
        let name = entry.schema.fields[declared.field].name.as_str();
        let mut one = |permission: &Permission| {
            let rule = compiled(permission, Some(name));
            if rule.is_row_dependent() {
                row_dependent.push((name, permission.to_string()));
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
    for (name, permission) in row_dependent {
        faults.push(
            Some(name),
            format!("{permission} depends on the row, and a field rule may depend only on the caller"),
            "a rule about the caller: role(…), tenant_role(…), scope(…), check(…)",
        );
    }
    Rights { operations, actions, history, deleted, fields }
}
