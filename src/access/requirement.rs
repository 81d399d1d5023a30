//! What a permission requires of a caller, for the OpenAPI document.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::Permission;
use super::permission::Rule;

/// The maximum number of alternatives; more of them are replaced by one that requires a credential and names no rights.
const MAX_ALTERNATIVES: usize = 32;

/// One alternative to satisfy a permission: all of its requirements apply at once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Alternative {
    /// Whether the caller has to be authenticated.
    pub(crate) is_authenticated: bool,
    /// The required roles and scopes.
    pub(crate) rights: BTreeSet<Arc<str>>,
}

impl Alternative {
    fn authenticated() -> Self {
        Self { is_authenticated: true, rights: BTreeSet::new() }
    }

    fn with_right(name: &Arc<str>) -> Self {
        Self { is_authenticated: true, rights: BTreeSet::from([name.clone()]) }
    }

    fn and(&self, other: &Self) -> Self {
        let rights = self.rights.union(&other.rights).cloned().collect();
        Self { is_authenticated: self.is_authenticated || other.is_authenticated, rights }
    }
}

/// What a caller must present, as far as the declaration alone determines it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Requirement {
    /// Whether a caller without a credential may be allowed.
    pub(crate) can_be_anonymous: bool,
    /// Whether a caller with a credential may be refused, or sees fewer rows.
    pub(crate) can_forbid: bool,
    /// Whether every caller is denied.
    pub(crate) is_closed: bool,
}

impl Requirement {
    const OPEN: Self = Self { can_be_anonymous: true, can_forbid: false, is_closed: false };
    const CREDENTIAL: Self = Self { can_be_anonymous: false, can_forbid: false, is_closed: false };
    const RIGHT: Self = Self { can_be_anonymous: false, can_forbid: true, is_closed: false };
    const CONDITION: Self = Self { can_be_anonymous: true, can_forbid: true, is_closed: false };
    const CLOSED: Self = Self { can_be_anonymous: false, can_forbid: true, is_closed: true };

    /// Whether nothing is required.
    pub(crate) fn is_open(&self) -> bool {
        *self == Self::OPEN
    }

    /// Whether a caller may get a 403 response.
    pub(crate) const fn can_forbid(&self) -> bool {
        self.can_forbid
    }
}

impl Permission {
    pub(crate) fn requirement(&self) -> Requirement {
        match &self.0 {
            Rule::Anyone => Requirement::OPEN,
            Rule::SignedIn => Requirement::CREDENTIAL,
            Rule::Role(_)
            | Rule::TenantMember
            | Rule::TenantRole(_)
            | Rule::Scope(_)
            | Rule::Elevated
            | Rule::Owner(_)
            | Rule::SameTenant(_) => Requirement::RIGHT,
            Rule::Rows(_) | Rule::Check(_) | Rule::Not(_) => Requirement::CONDITION,
            Rule::Nobody => Requirement::CLOSED,
            Rule::When(_, inner) => Requirement { can_forbid: true, ..inner.requirement() },
            Rule::AllOf(parts) => {
                let parts: Vec<_> = parts.iter().map(Self::requirement).collect();
                Requirement {
                    can_be_anonymous: parts.iter().all(|part| part.can_be_anonymous) && !parts.is_empty(),
                    can_forbid: parts.iter().any(|part| part.can_forbid) || parts.is_empty(),
                    is_closed: parts.iter().any(|part| part.is_closed) || parts.is_empty(),
                }
            }
            Rule::AnyOf(parts) => {
                let parts: Vec<_> = parts.iter().map(Self::requirement).collect();
                if parts.iter().any(Requirement::is_open) {
                    return Requirement::OPEN;
                }
                Requirement {
                    can_be_anonymous: parts.iter().any(|part| part.can_be_anonymous),
                    can_forbid: parts.iter().all(|part| part.can_forbid),
                    is_closed: parts.iter().all(|part| part.is_closed),
                }
            }
        }
    }
}

impl Permission {
    /// The alternatives to satisfy the permission, as far as the declaration alone determines them: any one of them may
    /// suffice. Empty where every caller is denied.
    pub(crate) fn alternatives(&self) -> Vec<Alternative> {
        let several = |alternatives: Vec<Alternative>| {
            let mut distinct: Vec<Alternative> = Vec::new();
            for alternative in alternatives {
                if !distinct.contains(&alternative) {
                    distinct.push(alternative);
                }
            }
            if distinct.len() > MAX_ALTERNATIVES { vec![Alternative::authenticated()] } else { distinct }
        };
        match &self.0 {
            Rule::Anyone | Rule::Rows(_) | Rule::Check(_) | Rule::Not(_) => vec![Alternative::default()],
            Rule::SignedIn | Rule::TenantMember | Rule::Elevated | Rule::Owner(_) | Rule::SameTenant(_) => {
                vec![Alternative::authenticated()]
            }
            Rule::Role(name) | Rule::TenantRole(name) | Rule::Scope(name) => {
                vec![Alternative::with_right(name)]
            }
            Rule::Nobody => Vec::new(),
            Rule::When(_, inner) => inner.alternatives(),
            Rule::AnyOf(parts) => several(parts.iter().flat_map(Self::alternatives).collect()),
            Rule::AllOf(parts) if parts.is_empty() => Vec::new(),
            Rule::AllOf(parts) => parts.iter().fold(vec![Alternative::default()], |alternatives, part| {
                let others = part.alternatives();
                several(
                    alternatives
                        .iter()
                        .flat_map(|alternative| others.iter().map(|other| alternative.and(other)))
                        .collect(),
                )
            }),
        }
    }

    /// The permission in words for people; fields and filters are not named, since not every reader may know of them.
    pub(crate) fn describe(&self) -> String {
        let several = |parts: &[Self], separator: &str| match parts {
            [] => "a permission that no caller has".to_owned(),
            [only] => only.describe(),
            parts => {
                let parts: Vec<_> = parts.iter().map(Self::describe).collect();
                format!("({})", parts.join(separator))
            }
        };
        match &self.0 {
            Rule::Anyone => "nothing".to_owned(),
            Rule::SignedIn => "a credential".to_owned(),
            Rule::Role(name) => format!("the role `{name}`"),
            Rule::TenantMember => "a tenant".to_owned(),
            Rule::TenantRole(name) => format!("the role `{name}` in the tenant"),
            Rule::Scope(name) => format!("the scope `{name}`"),
            Rule::Elevated => "raised rights".to_owned(),
            Rule::Owner(_) => "to own the item".to_owned(),
            Rule::SameTenant(_) => "to be in the item's tenant".to_owned(),
            Rule::Rows(_) => "an item that is open to this".to_owned(),
            Rule::Check(check) => format!("the check `{}`", check.name),
            Rule::When(_, inner) => format!("under a condition {}", inner.describe()),
            Rule::AllOf(parts) => several(parts, " and "),
            Rule::AnyOf(parts) => several(parts, " or "),
            Rule::Not(inner) => format!("not {}", inner.describe()),
            Rule::Nobody => "a permission that no caller has".to_owned(),
        }
    }
}
