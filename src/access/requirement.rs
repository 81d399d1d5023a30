//! What a permission asks of a caller, for the specification.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::Permission;
use super::permission::Rule;

/// The most alternatives that are told apart; more are one that names no rights.
const MAX_ALTERNATIVES: usize = 32;

/// One of the ways in that a permission has: everything here is asked for at once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Alternative {
    /// Whether somebody has to be known.
    pub(crate) credential: bool,
    /// Roles and scopes.
    pub(crate) rights: BTreeSet<Arc<str>>,
}

impl Alternative {
    fn credential() -> Self {
        Self { credential: true, rights: BTreeSet::new() }
    }

    fn right(name: &Arc<str>) -> Self {
        Self { credential: true, rights: BTreeSet::from([name.clone()]) }
    }

    fn and(&self, other: &Self) -> Self {
        let rights = self.rights.union(&other.rights).cloned().collect();
        Self { credential: self.credential || other.credential, rights }
    }
}

/// What a caller has to bring, as far as the declaration alone says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Requirement {
    /// Whether someone without a credential may be let in.
    pub(crate) anonymous: bool,
    /// Whether someone with a credential may be refused, or gets to see fewer rows.
    pub(crate) selective: bool,
    /// Whether nobody is ever let in.
    pub(crate) closed: bool,
}

impl Requirement {
    const OPEN: Self = Self { anonymous: true, selective: false, closed: false };
    const CREDENTIAL: Self = Self { anonymous: false, selective: false, closed: false };
    const RIGHT: Self = Self { anonymous: false, selective: true, closed: false };
    const CONDITION: Self = Self { anonymous: true, selective: true, closed: false };
    const CLOSED: Self = Self { anonymous: false, selective: true, closed: true };

    /// Whether nothing is asked for.
    pub(crate) fn is_open(&self) -> bool {
        *self == Self::OPEN
    }

    /// Whether a caller may be answered 403.
    pub(crate) const fn may_forbid(&self) -> bool {
        self.selective
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
            Rule::When(_, inner) => Requirement { selective: true, ..inner.requirement() },
            Rule::AllOf(parts) => {
                let parts: Vec<_> = parts.iter().map(Self::requirement).collect();
                Requirement {
                    anonymous: parts.iter().all(|part| part.anonymous) && !parts.is_empty(),
                    selective: parts.iter().any(|part| part.selective) || parts.is_empty(),
                    closed: parts.iter().any(|part| part.closed) || parts.is_empty(),
                }
            }
            Rule::AnyOf(parts) => {
                let parts: Vec<_> = parts.iter().map(Self::requirement).collect();
                if parts.iter().any(Requirement::is_open) {
                    return Requirement::OPEN;
                }
                Requirement {
                    anonymous: parts.iter().any(|part| part.anonymous),
                    selective: parts.iter().all(|part| part.selective),
                    closed: parts.iter().all(|part| part.closed),
                }
            }
        }
    }
}

impl Permission {
    /// The ways in, as far as the declaration alone says: any one of them may do. None where nobody is ever let in.
    pub(crate) fn alternatives(&self) -> Vec<Alternative> {
        let several = |ways: Vec<Alternative>| {
            let mut distinct: Vec<Alternative> = Vec::new();
            for way in ways {
                if !distinct.contains(&way) {
                    distinct.push(way);
                }
            }
            if distinct.len() > MAX_ALTERNATIVES { vec![Alternative::credential()] } else { distinct }
        };
        match &self.0 {
            Rule::Anyone | Rule::Rows(_) | Rule::Check(_) | Rule::Not(_) => vec![Alternative::default()],
            Rule::SignedIn | Rule::TenantMember | Rule::Elevated | Rule::Owner(_) | Rule::SameTenant(_) => {
                vec![Alternative::credential()]
            }
            Rule::Role(name) | Rule::TenantRole(name) | Rule::Scope(name) => vec![Alternative::right(name)],
            Rule::Nobody => Vec::new(),
            Rule::When(_, inner) => inner.alternatives(),
            Rule::AnyOf(parts) => several(parts.iter().flat_map(Self::alternatives).collect()),
            Rule::AllOf(parts) if parts.is_empty() => Vec::new(),
            Rule::AllOf(parts) => parts.iter().fold(vec![Alternative::default()], |ways, part| {
                let others = part.alternatives();
                several(ways.iter().flat_map(|way| others.iter().map(|other| way.and(other))).collect())
            }),
        }
    }

    /// The permission in words for people; neither fields nor filters are named, which not every reader may know of.
    pub(crate) fn words(&self) -> String {
        let several = |parts: &[Self], between: &str| match parts {
            [] => "what nobody has".to_owned(),
            [only] => only.words(),
            parts => {
                let parts: Vec<_> = parts.iter().map(Self::words).collect();
                format!("({})", parts.join(between))
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
            Rule::When(_, inner) => format!("under a condition {}", inner.words()),
            Rule::AllOf(parts) => several(parts, " and "),
            Rule::AnyOf(parts) => several(parts, " or "),
            Rule::Not(inner) => format!("not {}", inner.words()),
            Rule::Nobody => "what nobody has".to_owned(),
        }
    }
}
