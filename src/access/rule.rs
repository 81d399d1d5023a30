//! Permissions that are compiled against their resource, and their verdicts on callers.

use std::borrow::Cow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use resourceful_contract::{Field, FieldType, Filter, IdSource, RelatedBy, Schema, Test, Value};
use serde_json::{Value as Json, json};

use super::check::{Check, CheckRequest, DecisionKind};
use super::permission::{Permission, Predicate, Rule as Declared};
use super::{Actor, Decision};

/// The verdict of a rule on one caller: allow, allow for some rows, or deny.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Verdict {
    Allow,
    /// Allowed for the rows that match.
    Where(Box<Filter>),
    /// Denied, for this reason.
    Deny(Cow<'static, str>),
}

impl Verdict {
    fn rows(filter: Filter) -> Self {
        Self::Where(Box::new(filter))
    }

    pub(crate) fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Deny(reason), _) | (_, Self::Deny(reason)) => Self::Deny(reason),
            (Self::Allow, other) | (other, Self::Allow) => other,
            (Self::Where(one), Self::Where(other)) => Self::rows(Filter::All(vec![*one, *other])),
        }
    }

    fn or(self, other: Self) -> Self {
        match (self, other) {
            (Self::Allow, _) | (_, Self::Allow) => Self::Allow,
            (Self::Deny(_), other) | (other, Self::Deny(_)) => other,
            (Self::Where(one), Self::Where(other)) => Self::rows(Filter::Any(vec![*one, *other])),
        }
    }

    fn not(self) -> Self {
        match self {
            Self::Allow => Self::Deny("the opposite is allowed".into()),
            Self::Where(filter) => Self::rows(Filter::Not(filter)),
            Self::Deny(_) => Self::Allow,
        }
    }
}

/// One rule that was evaluated on the way to a verdict, with its own verdict.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Step {
    pub(crate) rule: Arc<str>,
    pub(crate) verdict: Verdict,
}

/// A compiled permission.
#[derive(Clone, Debug)]
pub(crate) struct Rule {
    node: Node,
    checks: Vec<Check>,
}

#[derive(Clone, Debug)]
struct Node {
    /// The rule as it was declared, for explanations.
    description: Arc<str>,
    kind: NodeKind,
}

#[derive(Clone, Debug)]
enum NodeKind {
    Anyone,
    SignedIn,
    Role(Arc<str>),
    TenantMember,
    TenantRole(Arc<str>),
    Scope(Arc<str>),
    Elevated,
    Nobody,
    Owner(FieldPath),
    SameTenant(FieldPath),
    Rows(Filter),
    Check(usize),
    When(Predicate, Box<Node>),
    All(Vec<Node>),
    Any(Vec<Node>),
    Not(Box<Node>),
}

/// The field that holds a row's owner or tenant: one of the row's own, or one of a related row.
#[derive(Clone, Debug)]
struct FieldPath {
    path: Vec<RelatedBy>,
    field: usize,
    field_type: FieldType,
}

/// Parses filters against the resource; the error says what does not fit.
pub(crate) type Read<'a> = dyn Fn(&Json) -> Result<Filter, String> + Send + Sync + 'a;

impl Rule {
    /// Compiles a permission for a resource.
    ///
    /// # Errors
    /// Every field and filter that does not fit the resource.
    pub(crate) fn compile(
        permission: &Permission,
        schema: &Schema,
        read: &Read<'_>,
    ) -> Result<Self, Vec<String>> {
        let mut compiler = Compiler { schema, read, checks: Vec::new(), faults: Vec::new() };
        let node = compiler.node(permission);
        if compiler.faults.is_empty() {
            Ok(Self { node, checks: compiler.checks })
        } else {
            Err(compiler.faults)
        }
    }

    /// Compiles a permission that is evaluated where there are no rows.
    ///
    /// # Errors
    /// Where the permission depends on rows.
    pub(crate) fn compile_for_callers(permission: &Permission) -> Result<Self, String> {
        let id = Field::new("id", FieldType::Text);
        let read = |_: &Json| Err(String::new());
        let rule = Self::compile(permission, &Schema::new("", "", vec![id], 0, IdSource::Client), &read);
        let rule = rule.ok().filter(|rule| !rule.is_row_dependent());
        rule.ok_or_else(|| format!("{permission} depends on the row, and there are no rows here"))
    }

    /// The rule that denies every caller.
    pub(crate) fn deny_all() -> Self {
        Self { node: Node { description: "nobody()".into(), kind: NodeKind::Nobody }, checks: Vec::new() }
    }

    /// This rule and another one, combined with AND.
    pub(crate) fn and(mut self, other: Self) -> Self {
        let offset = self.checks.len();
        self.checks.extend(other.checks);
        let other = other.node.offset_checks(offset);
        let description = format!("all_of({}, {})", self.node.description, other.description).into();
        self.node = Node { description, kind: NodeKind::All(vec![self.node, other]) };
        self
    }

    /// The verdict on a caller; `None` where a check has to run first.
    pub(crate) fn try_decide(&self, actor: &Actor) -> Option<Verdict> {
        self.node.verdict(actor, &[], &mut None).ok()
    }

    /// Whether the verdict may differ from row to row.
    pub(crate) fn is_row_dependent(&self) -> bool {
        self.node.is_row_dependent()
    }

    /// The verdict on a caller. Checks run where the verdict depends on them; the evaluated rules are recorded in the
    /// trail.
    pub(crate) async fn decide(
        &self,
        request: &CheckRequest,
        read: &Read<'_>,
        mut steps: Option<&mut Vec<Step>>,
    ) -> Verdict {
        let mut verdicts: Vec<Option<Verdict>> = vec![None; self.checks.len()];
        loop {
            if let Some(steps) = &mut steps {
                steps.clear();
            }
            match self.node.verdict(&request.actor, &verdicts, &mut steps) {
                Ok(verdict) => return verdict,
                Err(PendingCheck(check)) => {
                    let decision = self.checks[check].run(request.clone()).await;
                    verdicts[check] = Some(resolve(decision, read));
                }
            }
        }
    }
}

fn resolve(decision: Decision, read: &Read<'_>) -> Verdict {
    match decision.0 {
        DecisionKind::Allow => Verdict::Allow,
        DecisionKind::Deny(reason) => Verdict::Deny(reason),
        DecisionKind::Where(filter) => match read(&filter) {
            Ok(filter) => Verdict::rows(filter),
            Err(fault) => {
                tracing::error!(fault, "a check returned an invalid filter: access is denied");
                Verdict::Deny("a check returned an invalid filter".into())
            }
        },
    }
}

struct Compiler<'a> {
    schema: &'a Schema,
    read: &'a Read<'a>,
    checks: Vec<Check>,
    faults: Vec<String>,
}

impl Compiler<'_> {
    fn node(&mut self, permission: &Permission) -> Node {
        let kind = match &permission.0 {
            Declared::Anyone => NodeKind::Anyone,
            Declared::SignedIn => NodeKind::SignedIn,
            Declared::Role(name) => NodeKind::Role(name.clone()),
            Declared::TenantMember => NodeKind::TenantMember,
            Declared::TenantRole(name) => NodeKind::TenantRole(name.clone()),
            Declared::Scope(name) => NodeKind::Scope(name.clone()),
            Declared::Elevated => NodeKind::Elevated,
            Declared::Nobody => NodeKind::Nobody,
            Declared::Owner(field) => {
                self.resolve_field(permission, field).map_or(NodeKind::Nobody, NodeKind::Owner)
            }
            Declared::SameTenant(field) => {
                self.resolve_field(permission, field).map_or(NodeKind::Nobody, NodeKind::SameTenant)
            }
            Declared::Rows(filter) => match (self.read)(filter) {
                Ok(filter) => NodeKind::Rows(filter),
                Err(fault) => {
                    self.faults.push(format!("{permission}: {fault}"));
                    NodeKind::Nobody
                }
            },
            Declared::Check(check) => {
                self.checks.push(check.clone());
                NodeKind::Check(self.checks.len() - 1)
            }
            Declared::When(passes, inner) => NodeKind::When(passes.clone(), Box::new(self.node(inner))),
            Declared::AllOf(parts) => NodeKind::All(parts.iter().map(|part| self.node(part)).collect()),
            Declared::AnyOf(parts) => NodeKind::Any(parts.iter().map(|part| self.node(part)).collect()),
            Declared::Not(inner) => NodeKind::Not(Box::new(self.node(inner))),
        };
        Node { description: permission.to_string().into(), kind }
    }

    fn resolve_field(&mut self, permission: &Permission, name: &str) -> Option<FieldPath> {
        let field_path = if name.contains('.') {
            match (self.read)(&json!({ name: {"is_null": true} })) {
                Ok(filter) => FieldPath::from_filter(filter, self.schema)?,
                Err(fault) => {
                    self.faults.push(format!("{permission}: {fault}"));
                    return None;
                }
            }
        } else {
            let Some(field) = self.schema.position(name) else {
                let known = self.schema.fields.iter().map(|field| field.name.as_str());
                let detail = format!("{permission} names a field that the model does not have.");
                self.faults.push(crate::nearest::suggest(detail, name, known));
                return None;
            };
            FieldPath { path: Vec::new(), field, field_type: self.schema.fields[field].field_type }
        };
        if !matches!(field_path.field_type, FieldType::Text | FieldType::Uuid | FieldType::Integer) {
            self.faults.push(format!("{permission} needs a field of text, a UUID or an integer"));
            return None;
        }
        Some(field_path)
    }
}

impl FieldPath {
    /// The field of a filter that is one comparison.
    fn from_filter(filter: Filter, schema: &Schema) -> Option<Self> {
        match filter {
            Filter::All(mut filters) => Self::from_filter(filters.pop()?, schema),
            Filter::Related(by, inner) => {
                let mut field_path = Self::from_filter(*inner, &by.0.target)?;
                field_path.path.insert(0, by);
                Some(field_path)
            }
            Filter::Compare(field, _) => {
                let field_type = schema.fields[field].field_type;
                Some(Self { path: Vec::new(), field, field_type })
            }
            _ => None,
        }
    }

    /// The verdict for the rows whose field holds this name. A name that the field cannot hold matches no row.
    fn verdict_for(&self, name: Option<&str>, reason: &'static str) -> Verdict {
        let Some(name) = name else {
            return Verdict::Deny(reason.into());
        };
        match self.field_type.parse(name) {
            Ok(Value::Null) | Err(_) => Verdict::Deny("the field cannot hold this id".into()),
            Ok(value) => {
                let comparison = Filter::Compare(self.field, Test::Eq(value));
                let related = |inner, by: &RelatedBy| Filter::Related(by.clone(), Box::new(inner));
                Verdict::rows(self.path.iter().rev().fold(comparison, related))
            }
        }
    }
}

/// A check whose result is needed and not available yet.
struct PendingCheck(usize);

impl Node {
    fn is_row_dependent(&self) -> bool {
        match &self.kind {
            NodeKind::Owner(_) | NodeKind::SameTenant(_) | NodeKind::Rows(_) => true,
            NodeKind::When(_, inner) | NodeKind::Not(inner) => inner.is_row_dependent(),
            NodeKind::All(parts) | NodeKind::Any(parts) => parts.iter().any(Self::is_row_dependent),
            _ => false,
        }
    }

    fn offset_checks(mut self, offset: usize) -> Self {
        match &mut self.kind {
            NodeKind::Check(check) => *check += offset,
            NodeKind::When(_, inner) | NodeKind::Not(inner) => **inner = inner.clone().offset_checks(offset),
            NodeKind::All(parts) | NodeKind::Any(parts) => {
                for part in parts {
                    *part = part.clone().offset_checks(offset);
                }
            }
            _ => {}
        }
        self
    }

    fn verdict(
        &self,
        actor: &Actor,
        verdicts: &[Option<Verdict>],
        steps: &mut Option<&mut Vec<Step>>,
    ) -> Result<Verdict, PendingCheck> {
        let verdict = self.kind.verdict(actor, verdicts, steps)?;
        if let Some(steps) = steps {
            steps.push(Step { rule: self.description.clone(), verdict: verdict.clone() });
        }
        Ok(verdict)
    }
}

impl NodeKind {
    fn verdict(
        &self,
        actor: &Actor,
        verdicts: &[Option<Verdict>],
        steps: &mut Option<&mut Vec<Step>>,
    ) -> Result<Verdict, PendingCheck> {
        let so = |is_allowed: bool, reason: &'static str| {
            if is_allowed { Verdict::Allow } else { Verdict::Deny(reason.into()) }
        };
        Ok(match self {
            Self::Anyone => Verdict::Allow,
            Self::SignedIn => so(!actor.is_anonymous(), "the caller is anonymous"),
            Self::Role(role) => so(actor.has_role(role), "the role is not held"),
            Self::TenantMember => {
                so(actor.tenant().is_some() && !actor.is_service(), "no member of a tenant")
            }
            Self::TenantRole(role) => so(actor.has_tenant_role(role), "the role is not held in the tenant"),
            Self::Scope(scope) => so(actor.has_scope(scope), "the scope is not granted"),
            Self::Elevated => so(actor.is_elevated(), "rights are not elevated"),
            Self::Nobody => Verdict::Deny("closed to everyone".into()),
            Self::Owner(field_path) => field_path.verdict_for(actor.id(), "the caller is anonymous"),
            Self::SameTenant(field_path) => match actor.tenant() {
                None if actor.is_elevated() => Verdict::Allow,
                tenant => field_path.verdict_for(tenant, "not in any tenant"),
            },
            Self::Rows(filter) => Verdict::rows(filter.clone()),
            Self::Check(check) => match verdicts.get(*check) {
                Some(Some(verdict)) => verdict.clone(),
                _ => return Err(PendingCheck(*check)),
            },
            Self::When(passes, inner) => match catch_unwind(AssertUnwindSafe(|| (passes.0)(actor))) {
                Ok(true) => inner.verdict(actor, verdicts, steps)?,
                Ok(false) => Verdict::Deny("its condition does not hold".into()),
                Err(_) => Verdict::Deny("its condition panicked".into()),
            },
            Self::All(parts) => {
                let mut verdict = so(!parts.is_empty(), "an empty list of rules allows nothing");
                for part in parts {
                    verdict = verdict.and(part.verdict(actor, verdicts, steps)?);
                    if matches!(verdict, Verdict::Deny(_)) {
                        break;
                    }
                }
                verdict
            }
            Self::Any(parts) => {
                let mut verdict = Verdict::Deny("an empty list of rules allows nothing".into());
                for part in parts {
                    let next = part.verdict(actor, verdicts, steps)?;
                    verdict = match (verdict, next) {
                        // Of several reasons, any one will do: the last one is kept.
                        (Verdict::Deny(_), Verdict::Deny(reason)) => Verdict::Deny(reason),
                        (verdict, next) => verdict.or(next),
                    };
                    if verdict == Verdict::Allow {
                        break;
                    }
                }
                verdict
            }
            Self::Not(inner) => inner.verdict(actor, verdicts, steps)?.not(),
        })
    }
}
