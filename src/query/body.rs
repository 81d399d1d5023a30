//! The body form of a query: the same tree as in a query string, as JSON.

use resourceful_contract::{Filter, RelatedBy};
use serde_json::{Map, Value as Json};

use super::filter;
use super::filter::{MAX_NODES, Operand};
use super::list_parameters::Choices;
use super::select;
use super::select::RequestBuilder;
use super::{ListRequest, Reader, StreamRequest};
use crate::catalog::{Catalog, Entry};
use crate::error::{Fault, MAX_FAULTS, escape_pointer};

/// The maximum nesting depth of a filter.
const MAX_DEPTH: usize = 16;

const LIST_MEMBERS: [&str; 10] =
    ["filter", "sort", "fields", "include", "limit", "after", "before", "page", "q", "deleted"];
/// The members that a stream accepts.
const STREAM_MEMBERS: [&str; 3] = ["filter", "fields", "q"];

/// Reads the body of a stream request: a list's without order and pages.
pub(super) fn stream(reader: &Reader<'_>, body: &Json) -> Result<StreamRequest, Vec<Fault>> {
    let request = parse(reader, body, &STREAM_MEMBERS)?;
    Ok(StreamRequest { filter: request.filter, fields: request.selection.fields })
}

pub(super) fn list(reader: &Reader<'_>, body: &Json) -> Result<ListRequest, Vec<Fault>> {
    parse(reader, body, &LIST_MEMBERS)
}

/// Reads a filter by itself.
pub(super) fn filter(reader: &Reader<'_>, json: &Json) -> Result<Filter, Vec<Fault>> {
    let scope = Scope::Caller(*reader);
    let mut parser = FilterParser { scope, relations: filter::MAX_DEPTH, nodes: 0, faults: Vec::new() };
    let root = parser.object(json, "/filter", 0);
    if parser.faults.is_empty() { Ok(root) } else { Err(parser.faults) }
}

fn parse(reader: &Reader<'_>, body: &Json, members: &[&'static str]) -> Result<ListRequest, Vec<Fault>> {
    let Json::Object(body) = body else {
        return Err(vec![Fault::pointer("", "type", "Must be an object.")]);
    };
    let mut builder = RequestBuilder::default();
    let mut parser = FilterParser {
        scope: Scope::Caller(*reader),
        relations: filter::MAX_DEPTH,
        nodes: 0,
        faults: Vec::new(),
    };
    let mut root = Filter::everything();
    for (key, value) in body {
        if parser.faults.len() > MAX_FAULTS {
            break;
        }
        let outcome = match key.as_str() {
            _ if Choices::has(reader, key) => {
                string(value).and_then(|value| builder.choices.choose(reader, key, value))
            }
            _ if !members.contains(&key.as_str()) => {
                let declared = reader.entry.definition.list_parameters.iter();
                let declared = declared.map(|parameter| parameter.name.as_str());
                Err(select::unknown_parameter(key, members.iter().copied().chain(declared)))
            }
            "filter" => {
                root = parser.object(value, "/filter", 0);
                Ok(())
            }
            "sort" => string_array(value).and_then(|members| builder.sort(reader, members.into_iter(), key)),
            "fields" => string_array(value).and_then(|names| builder.fields(reader, names.into_iter(), key)),
            "include" => {
                string_array(value).and_then(|names| builder.include(reader, names.into_iter(), key))
            }
            "limit" => builder.limit(reader, value.as_u64(), key),
            "after" => string(value).and_then(|cursor| builder.after(cursor, key)),
            "before" => string(value).and_then(|cursor| builder.before(cursor, key)),
            "page" => builder.page(reader, value.as_u64(), key),
            "q" => string(value).and_then(|words| builder.search(reader, words, key)),
            "deleted" => string(value).and_then(|which| builder.deleted(reader, which, key)),
            _ => Err(select::unknown_parameter(key, members.iter().copied())),
        };
        if let Err(fault) = outcome {
            parser.faults.push(Fault {
                at: crate::error::FaultLocation::Pointer(format!("/{}", escape_pointer(key))),
                ..fault
            });
        }
    }
    builder.finish_list(reader, root, parser.faults)
}

fn string_array(value: &Json) -> Result<Vec<&str>, Fault> {
    value
        .as_array()
        .and_then(|items| items.iter().map(Json::as_str).collect::<Option<Vec<_>>>())
        .ok_or_else(|| Fault::pointer("", "type", "Must be an array of strings."))
}

fn string(value: &Json) -> Result<&str, Fault> {
    value.as_str().ok_or_else(|| Fault::pointer("", "type", "Must be a string."))
}

/// Reads a filter that the application itself wrote.
pub(super) fn trusted_filter(catalog: &Catalog, entry: &Entry, json: &Json) -> Result<Filter, String> {
    let mut parser = FilterParser {
        scope: Scope::Application(catalog, entry),
        relations: filter::MAX_DEPTH,
        nodes: 0,
        faults: Vec::new(),
    };
    let filter = parser.object(json, "", 0);
    if parser.faults.is_empty() {
        return Ok(filter);
    }
    let details = parser.faults.into_iter().map(|fault| fault.detail);
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
    ) -> Result<Filter, filter::FilterFault> {
        match self {
            Self::Caller(reader) => filter::comparison(reader, path, operator, operand, depth),
            Self::Application(catalog, entry) => {
                filter::trusted_comparison(catalog, entry, path, operator, operand, depth)
            }
        }
    }

    /// The scope of the rows behind a relation, and how a filter on them becomes one on these rows.
    fn related(&self, name: &str) -> Option<(Self, Wrap<'a>)> {
        match self {
            Self::Caller(reader) => {
                let related = filter::Related::of(reader, name)?;
                Some((Self::Caller(related.reader), Box::new(move |inner| related.matching(inner))))
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
struct FilterParser<'a> {
    scope: Scope<'a>,
    /// How many relations may still be followed.
    relations: usize,
    nodes: usize,
    faults: Vec<Fault>,
}

impl FilterParser<'_> {
    /// Every member of an object must hold.
    fn object(&mut self, json: &Json, pointer: &str, depth: usize) -> Filter {
        let Json::Object(members) = json else {
            return self.add_fault(pointer, "type", "A filter is an object: {\"field\": {\"eq\": …}}.");
        };
        if depth > MAX_DEPTH {
            return self.add_fault(pointer, "limit", format!("Filters nest at most {MAX_DEPTH} deep."));
        }
        // An empty branch is a node as well: it selects everything.
        if members.is_empty() && !self.count_node(pointer) {
            return Filter::nothing();
        }
        let mut filters = Vec::new();
        for (key, value) in members {
            if !self.count_node(pointer) {
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
            return vec![self.add_fault(pointer, "type", "Must be an array of filters.")];
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
            return self.add_fault(
                pointer,
                "operator",
                "`any` cannot be combined: put every condition into its filter.",
            );
        }
        if self.relations == 0 {
            let detail = format!("A filter follows at most {} relations.", filter::MAX_DEPTH);
            return self.add_fault(pointer, "limit", detail);
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
            Json::Object(_) => self.add_fault(pointer, "type", "Name an operator: {\"eq\": …}."),
            _ => self.comparison(path, "eq", value, pointer),
        }
    }

    fn operators(&mut self, path: &str, operators: &Map<String, Json>, pointer: &str) -> Filter {
        let mut filters = Vec::new();
        for (operator, value) in operators {
            if !self.count_node(pointer) {
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
            Err(fault) => self.add_fault(pointer, fault.code, fault.detail),
        }
    }

    /// Counts a node. Beyond the maximum the filter is refused, once, and the rest of it is not read.
    fn count_node(&mut self, pointer: &str) -> bool {
        self.nodes += 1;
        if self.nodes == MAX_NODES + 1 {
            self.add_fault(pointer, "limit", filter::too_many_nodes());
        }
        self.nodes <= MAX_NODES
    }

    /// Records a fault; the filter that stands in for the faulty one selects nothing, should it ever be run.
    fn add_fault(&mut self, pointer: &str, code: &'static str, detail: impl Into<String>) -> Filter {
        self.faults.push(Fault::pointer(pointer, code, detail));
        Filter::nothing()
    }
}
