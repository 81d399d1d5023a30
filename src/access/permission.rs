//! Permissions: rules that decide which callers may do an operation, and on which rows.

use std::fmt;
use std::sync::Arc;

use serde_json::Value as Json;

use super::check::{Check, CheckError, CheckRequest};
use super::{Actor, Decision};

/// A rule that decides which callers may do an operation, and on which rows.
///
/// It has one of three results: allow, allow for the rows that match a filter, or deny. [`any_of`] combines the filters
/// with OR and [`all_of`] with AND; nothing else can widen or narrow them.
#[derive(Clone, Debug, PartialEq)]
pub struct Permission(pub(super) Rule);

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Rule {
    Anyone,
    SignedIn,
    Role(Arc<str>),
    TenantMember,
    TenantRole(Arc<str>),
    Scope(Arc<str>),
    Elevated,
    Nobody,
    Owner(Arc<str>),
    SameTenant(Arc<str>),
    Rows(Json),
    Check(Check),
    When(Predicate, Box<Permission>),
    AllOf(Vec<Permission>),
    AnyOf(Vec<Permission>),
    Not(Box<Permission>),
}

/// A predicate over the actor alone.
#[derive(Clone)]
pub(crate) struct Predicate(pub(super) Arc<dyn Fn(&Actor) -> bool + Send + Sync>);

#[cfg(feature = "testing")]
impl Predicate {
    /// Whether an actor satisfies the predicate; a panic counts as no.
    pub(crate) fn passes(&self, actor: &Actor) -> bool {
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| (self.0)(actor))).unwrap_or(false)
    }
}

#[cfg(feature = "testing")]
impl Permission {
    /// The rule as it was declared.
    pub(crate) const fn declared(&self) -> &Rule {
        &self.0
    }

    /// Every check in the permission.
    pub(crate) fn checks(&self) -> Vec<&Check> {
        match &self.0 {
            Rule::Check(check) => vec![check],
            Rule::When(_, inner) | Rule::Not(inner) => inner.checks(),
            Rule::AllOf(parts) | Rule::AnyOf(parts) => parts.iter().flat_map(Self::checks).collect(),
            _ => Vec::new(),
        }
    }
}

impl PartialEq for Predicate {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl fmt::Debug for Predicate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Predicate")
    }
}

/// Allows every caller, authenticated or anonymous.
#[must_use]
pub const fn anyone() -> Permission {
    Permission(Rule::Anyone)
}

/// Allows every authenticated actor.
#[must_use]
pub const fn signed_in() -> Permission {
    Permission(Rule::SignedIn)
}

/// Allows actors with this role, regardless of tenant.
#[must_use]
pub fn role(name: impl Into<Arc<str>>) -> Permission {
    Permission(Rule::Role(name.into()))
}

/// Allows actors that are in a tenant, except for services, whose rights are their scopes. It does not restrict which
/// tenant's rows they may access: see [`same_tenant`].
#[must_use]
pub const fn tenant_member() -> Permission {
    Permission(Rule::TenantMember)
}

/// Allows actors with this role inside their tenant.
#[must_use]
pub fn tenant_role(name: impl Into<Arc<str>>) -> Permission {
    Permission(Rule::TenantRole(name.into()))
}

/// Allows services with this scope.
#[must_use]
pub fn scope(name: impl Into<Arc<str>>) -> Permission {
    Permission(Rule::Scope(name.into()))
}

/// Allows actors with elevated rights.
#[must_use]
pub const fn elevated() -> Permission {
    Permission(Rule::Elevated)
}

/// Denies every caller.
#[must_use]
pub const fn nobody() -> Permission {
    Permission(Rule::Nobody)
}

/// Allows authenticated actors, on the rows that hold their id in this field. A row without an owner belongs to no actor.
/// The field may be one of a related row, so that the rows of an order belong to the order's owner:
/// `owner("order.user_id")`.
#[must_use]
pub fn owner(field: impl Into<Arc<str>>) -> Permission {
    Permission(Rule::Owner(field.into()))
}

/// Allows actors that are in a tenant, on the rows that hold it in this field, or in one of a related row as for
/// [`owner`]; elevated actors without a tenant, on the rows of every tenant.
#[must_use]
pub fn same_tenant(field: impl Into<Arc<str>>) -> Permission {
    Permission(Rule::SameTenant(field.into()))
}

/// Allows every caller, on the rows that match this filter: the same tree as in a query's body, over any field of the
/// stored row. A filter that does not fit the resource is a fault of the declaration.
///
/// ```
/// use resourceful::access::{any_of, role, rows};
///
/// let readers = any_of([role("editor"), rows(serde_json::json!({"status": "published"}))]);
/// # let _ = readers;
/// ```
#[must_use]
pub const fn rows(filter: Json) -> Permission {
    Permission(Rule::Rows(filter))
}

/// A custom check, with a name for logs and explanations. An error, a panic and a filter that does not fit the resource
/// deny.
///
/// ```
/// use resourceful::access::{Decision, check};
///
/// let open = check("open hours", async |asking| {
///     let hours_are_open = true; // ask a clock, a table, another service …
///     Ok(if hours_are_open { Decision::allow() } else { Decision::deny("closed") })
/// });
/// # let _ = open;
/// ```
#[must_use]
pub fn check<F, T>(name: impl Into<Arc<str>>, check: F) -> Permission
where
    F: Fn(CheckRequest) -> T + Send + Sync + 'static,
    T: Future<Output = Result<Decision, CheckError>> + Send + 'static,
{
    Permission(Rule::Check(Check::new(name.into(), check)))
}

/// Applies the permission to actors that satisfy the predicate, and denies all others. A panic denies.
#[must_use]
pub fn when(passes: impl Fn(&Actor) -> bool + Send + Sync + 'static, permission: Permission) -> Permission {
    Permission(Rule::When(Predicate(Arc::new(passes)), Box::new(permission)))
}

/// Allows what every one of these permissions allows: the rows that match all of their filters. An empty list denies.
#[must_use]
pub fn all_of(permissions: impl IntoIterator<Item = Permission>) -> Permission {
    Permission(Rule::AllOf(permissions.into_iter().collect()))
}

/// Allows what at least one of these permissions allows: the rows that match at least one of their filters.
#[must_use]
pub fn any_of(permissions: impl IntoIterator<Item = Permission>) -> Permission {
    Permission(Rule::AnyOf(permissions.into_iter().collect()))
}

/// Inverts a permission: allows the rows that it does not allow.
#[must_use]
pub fn not(permission: Permission) -> Permission {
    Permission(Rule::Not(Box::new(permission)))
}

impl fmt::Display for Permission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let several = |f: &mut fmt::Formatter<'_>, name: &str, parts: &[Self]| {
            let parts: Vec<_> = parts.iter().map(ToString::to_string).collect();
            write!(f, "{name}({})", parts.join(", "))
        };
        match &self.0 {
            Rule::Anyone => f.write_str("anyone()"),
            Rule::SignedIn => f.write_str("signed_in()"),
            Rule::Role(name) => write!(f, "role({name:?})"),
            Rule::TenantMember => f.write_str("tenant_member()"),
            Rule::TenantRole(name) => write!(f, "tenant_role({name:?})"),
            Rule::Scope(name) => write!(f, "scope({name:?})"),
            Rule::Elevated => f.write_str("elevated()"),
            Rule::Nobody => f.write_str("nobody()"),
            Rule::Owner(field) => write!(f, "owner({field:?})"),
            Rule::SameTenant(field) => write!(f, "same_tenant({field:?})"),
            Rule::Rows(filter) => write!(f, "rows({filter})"),
            Rule::Check(check) => write!(f, "check({:?})", check.name),
            Rule::When(_, inner) => write!(f, "when(…, {inner})"),
            Rule::AllOf(parts) => several(f, "all_of", parts),
            Rule::AnyOf(parts) => several(f, "any_of", parts),
            Rule::Not(inner) => write!(f, "not({inner})"),
        }
    }
}
