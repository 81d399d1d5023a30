//! The body form of a query: the same tree as in a query string, as JSON.

use resourceful_contract::{Filter, RelatedBy};
use serde_json::{Map, Value as Json};

use super::filter;
use super::filter::{MAX_NODES, Operand};
use super::list_parameters::Choices;
use super::select;
use super::select::Draft;
use super::{ListRequest, Reader, StreamRequest};
use crate::catalog::{Catalog, Entry};
use crate::error::{Fault, MOST_FAULTS, escape_pointer};

/// The maximum nesting depth of a filter.
const MAX_DEPTH: usize = 16;

const KEYS: [&str; 10] =
    ["filter", "sort", "fields", "include", "limit", "after", "before", "page", "q", "deleted"];
/// The members that a stream accepts.
const OF_STREAM: [&str; 3] = ["filter", "fields", "q"];

/// Reads the body of a stream request: a list's without order and pages.
pub(super) fn stream(reader: &Reader<'_>, body: &Json) -> Result<StreamRequest, Vec<Fault>> {
    let request = read(reader, body, &OF_STREAM)?;
    Ok(StreamRequest { filter: request.filter, fields: request.selection.fields })
}

pub(super) fn list(reader: &Reader<'_>, body: &Json) -> Result<ListRequest, Vec<Fault>> {
    read(reader, body, &KEYS)
}

/// Reads a filter by itself.
pub(super) fn filter(reader: &Reader<'_>, json: &Json) -> Result<Filter, Vec<Fault>> {
    let scope = Scope::Caller(*reader);
    let mut tree = Tree { scope, relations: filter::MAX_DEPTH, nodes: 0, faults: Vec::new() };
    let root = tree.object(json, "/filter", 0);
    if tree.faults.is_empty() { Ok(root) } else { Err(tree.faults) }
}

fn read(reader: &Reader<'_>, body: &Json, keys: &[&'static str]) -> Result<ListRequest, Vec<Fault>> {
    let Json::Object(body) = body else {
        return Err(vec![Fault::pointer("", "type", "Must be an object.")]);
    };
    let mut draft = Draft::default();
    let mut tree =
        Tree { scope: Scope::Caller(*reader), relations: filter::MAX_DEPTH, nodes: 0, faults: Vec::new() };
    let mut root = Filter::everything();
    for (key, value) in body {
        if tree.faults.len() > MOST_FAULTS {
            break;
        }
        let outcome = match key.as_str() {
            _ if Choices::has(reader, key) => {
                text(value).and_then(|value| draft.choices.choose(reader, key, value))
            }
            _ if !keys.contains(&key.as_str()) => {
                let declared = reader.entry.definition.list_parameters.iter();
                let declared = declared.map(|parameter| parameter.name.as_str());
                Err(select::unknown(key, keys.iter().copied().chain(declared)))
            }
            "filter" => {
                root = tree.object(value, "/filter", 0);
                Ok(())
            }
            "sort" => names(value).and_then(|keys| draft.sort(reader, keys.into_iter(), key)),
            "fields" => names(value).and_then(|names| draft.fields(reader, names.into_iter(), key)),
            "include" => names(value).and_then(|names| draft.include(reader, names.into_iter(), key)),
            "limit" => draft.limit(reader, value.as_u64(), key),
            "after" => text(value).and_then(|cursor| draft.after(cursor, key)),
            "before" => text(value).and_then(|cursor| draft.before(cursor, key)),
            "page" => draft.page(reader, value.as_u64(), key),
            "q" => text(value).and_then(|words| draft.search(reader, words, key)),
            "deleted" => text(value).and_then(|which| draft.deleted(reader, which, key)),
            _ => Err(select::unknown(key, keys.iter().copied())),
        };
        if let Err(fault) = outcome {
            tree.faults.push(Fault {
                at: crate::error::FaultLocation::Pointer(format!("/{}", escape_pointer(key))),
                ..fault
            });
        }
    }
    draft.finish_list(reader, root, tree.faults)
}

fn names(value: &Json) -> Result<Vec<&str>, Fault> {
    value
        .as_array()
        .and_then(|items| items.iter().map(Json::as_str).collect::<Option<Vec<_>>>())
        .ok_or_else(|| Fault::pointer("", "type", "Must be an array of strings."))
}

fn text(value: &Json) -> Result<&str, Fault> {
    value.as_str().ok_or_else(|| Fault::pointer("", "type", "Must be a string."))
}

/// Reads a filter that the application itself wrote.
pub(super) fn trusted(catalog: &Catalog, entry: &Entry, json: &Json) -> Result<Filter, String> {
    let mut tree = Tree {
        scope: Scope::Application(catalog, entry),
        relations: filter::MAX_DEPTH,
        nodes: 0,
        faults: Vec::new(),
    };
    let filter = tree.object(json, "", 0);
    if tree.faults.is_empty() {
        return Ok(filter);
    }
    let details = tree.faults.into_iter().map(|fault| fault.detail);
    Err(details.collect::<Vec<_>>().join(" "))
}

/// Turns a filter on the rows behind a relation into one on the rows before it.
type Wrap<'a> = Box<dyn FnOnce(Filter) -> Filter + 'a>;

/// Whose filter it is (a caller's or the application's), and on which rows.
#[derive(Clone, Copy)]
enum Scope<'a> {
    Caller(Reader<'a>),
    Application(&'a Catalog, &'a Entry),
}

impl<'a> Scope<'a> {
    fn comparison(
        &self,
        path: &str,
        operator: &str,
        operand: &Operand<'_>,
        depth: usize,
    ) -> Result<Filter, filter::Refusal> {
        match self {
            Self::Caller(reader) => filter::comparison(reader, path, operator, operand, depth),
            Self::Application(catalog, entry) => {
                filter::trusted(catalog, entry, path, operator, operand, depth)
            }
        }
    }

    /// The scope of the rows behind a relation, and how a filter on them becomes one on these rows.
    fn related(&self, name: &str) -> Option<(Self, Wrap<'a>)> {
        match self {
            Self::Caller(reader) => {
                let related = filter::Related::of(reader, name)?;
                Some((Self::Caller(related.reader), Box::new(move |inner| related.with(inner))))
            }
            Self::Application(catalog, entry) => {
                let relation = entry.links.iter().find(|relation| relation.link.name == name)?;
                let wrap = |inner| Filter::Related(RelatedBy(relation.link.clone()), Box::new(inner));
                Some((Self::Application(catalog, catalog.entry(relation.target)), Box::new(wrap)))
            }
        }
    }
}

/// The state of reading a filter tree; faults are collected beside it.
struct Tree<'a> {
    scope: Scope<'a>,
    /// How many relations may still be followed.
    relations: usize,
    nodes: usize,
    faults: Vec<Fault>,
}

impl Tree<'_> {
    /// Every member of an object must hold.
    fn object(&mut self, json: &Json, pointer: &str, depth: usize) -> Filter {
        let Json::Object(members) = json else {
            return self.refuse(pointer, "type", "A filter is an object: {\"field\": {\"eq\": …}}.");
        };
        if depth > MAX_DEPTH {
            return self.refuse(pointer, "limit", format!("Filters nest at most {MAX_DEPTH} deep."));
        }
        // An empty branch is a node as well: it selects everything.
        if members.is_empty() && !self.counts(pointer) {
            return Filter::nothing();
        }
        let mut filters = Vec::new();
        for (key, value) in members {
            if !self.counts(pointer) {
                break;
            }
            let pointer = format!("{pointer}/{}", escape_pointer(key));
            filters.push(match key.as_str() {
                "and" => Filter::All(self.branches(value, &pointer, depth)),
                "or" => Filter::Any(self.branches(value, &pointer, depth)),
                "not" => Filter::Not(Box::new(self.object(value, &pointer, depth + 1))),
                path => match value.get("any").filter(|_| self.scope.related(path).is_some()) {
                    Some(any) => self.any(path, (value, any), &pointer, depth),
                    None => self.field(path, value, &pointer),
                },
            });
        }
        match <[Filter; 1]>::try_from(filters) {
            Ok([only]) => only,
            Err(filters) => Filter::All(filters),
        }
    }

    fn branches(&mut self, json: &Json, pointer: &str, depth: usize) -> Vec<Filter> {
        let Json::Array(branches) = json else {
            return vec![self.refuse(pointer, "type", "Must be an array of filters.")];
        };
        let mut filters = Vec::new();
        for (index, branch) in branches.iter().enumerate() {
            if self.nodes > MAX_NODES {
                break;
            }
            filters.push(self.object(branch, &format!("{pointer}/{index}"), depth + 1));
        }
        filters
    }

    /// `{"any": {…}}`: one row behind a relation for which the whole filter holds.
    fn any(&mut self, name: &str, (value, any): (&Json, &Json), pointer: &str, depth: usize) -> Filter {
        let outer = self.scope;
        let Some((inner, wrap)) = outer.related(name) else { return Filter::nothing() };
        if value.as_object().is_some_and(|members| members.len() > 1) {
            return self.refuse(pointer, "operator", "`any` stands alone: its filter takes every condition.");
        }
        if self.relations == 0 {
            let detail = format!("A filter follows at most {} relations.", filter::MAX_DEPTH);
            return self.refuse(pointer, "limit", detail);
        }
        self.relations -= 1;
        self.scope = inner;
        let filter = self.object(any, &format!("{pointer}/any"), depth + 1);
        self.scope = outer;
        self.relations += 1;
        wrap(filter)
    }

    /// `{"gte": 10, "lt": 20}`, or a bare value for equality.
    fn field(&mut self, path: &str, value: &Json, pointer: &str) -> Filter {
        match value {
            Json::Object(operators) if !operators.is_empty() => self.operators(path, operators, pointer),
            Json::Object(_) => self.refuse(pointer, "type", "Name an operator: {\"eq\": …}."),
            _ => self.comparison(path, "eq", value, pointer),
        }
    }

    fn operators(&mut self, path: &str, operators: &Map<String, Json>, pointer: &str) -> Filter {
        let mut filters = Vec::new();
        for (operator, value) in operators {
            if !self.counts(pointer) {
                break;
            }
            let pointer = format!("{pointer}/{}", escape_pointer(operator));
            filters.push(self.comparison(path, operator, value, &pointer));
        }
        match <[Filter; 1]>::try_from(filters) {
            Ok([only]) => only,
            Err(filters) => Filter::All(filters),
        }
    }

    fn comparison(&mut self, path: &str, operator: &str, value: &Json, pointer: &str) -> Filter {
        match self.scope.comparison(path, operator, &Operand::Json(value), self.relations) {
            Ok(filter) => filter,
            Err(refusal) => self.refuse(pointer, refusal.code, refusal.detail),
        }
    }

    /// Counts a node. Beyond the maximum the filter is refused, once, and the rest of it is not read.
    fn counts(&mut self, pointer: &str) -> bool {
        self.nodes += 1;
        if self.nodes == MAX_NODES + 1 {
            self.refuse(pointer, "limit", filter::too_many_nodes());
        }
        self.nodes <= MAX_NODES
    }

    /// Records a fault; the filter that stands in for the faulty one selects nothing, should it ever be run.
    fn refuse(&mut self, pointer: &str, code: &'static str, detail: impl Into<String>) -> Filter {
        self.faults.push(Fault::pointer(pointer, code, detail));
        Filter::nothing()
    }
}
