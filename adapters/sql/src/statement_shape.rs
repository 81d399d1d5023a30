//! The shape of a query: everything except its values. Queries of one shape share one statement.

use std::sync::Arc;

use resourceful_contract::{
    Count, FieldType, Filter, Include, Link, Position, Query, Schema, Sort, Test, Value,
};

use crate::args::Arg;

/// A query's shape as bytes, and its arguments in the order in which [`select`](crate::select) numbers them.
///
/// A schema or relation is identified in the shape by its address. The plan that is cached under a shape holds both, so an
/// address cannot be reused while the shape is cached.
#[derive(Debug)]
pub(crate) struct Shape<'a> {
    pub(crate) bytes: Vec<u8>,
    pub(crate) args: Vec<Arg<'a>>,
}

impl<'a> Shape<'a> {
    pub(crate) fn of(query: &'a Query) -> Self {
        let mut shape = Self { bytes: Vec::with_capacity(96), args: Vec::with_capacity(8) };
        shape.address(Arc::as_ptr(&query.schema).addr());
        shape.filter(&query.schema, &query.filter);
        shape.position(query);
        shape.positions(&query.fields);
        shape.positions(&query.keys);
        shape.bytes.push(u8::from(query.versions));
        shape.bytes.push(match query.count {
            None => 0,
            Some(Count::Exact) => 1,
            Some(Count::Estimated) => 2,
        });
        shape.number(query.includes.len());
        for include in &query.includes {
            shape.include(include);
        }
        shape.args.push(Arg::Number(i64::from(query.limit) + 1));
        if let Position::Offset(skip) = query.position {
            shape.args.push(Arg::Number(i64::try_from(skip).unwrap_or(i64::MAX)));
        }
        shape
    }

    fn include(&mut self, include: &'a Include) {
        self.link(&include.link);
        self.positions(&include.fields);
        self.filter(&include.link.target, &include.filter);
        if include.link.cardinality == resourceful_contract::Cardinality::Many {
            self.args.push(Arg::Number(i64::from(include.limit)));
        }
    }

    fn position(&mut self, query: &'a Query) {
        self.number(query.sort.len());
        for Sort { field, descending } in &query.sort {
            self.number(*field);
            self.bytes.push(u8::from(*descending));
        }
        let (tag, keys) = match &query.position {
            Position::Start => (0, None),
            Position::After(keys) => (1, Some(keys)),
            Position::Before(keys) => (2, Some(keys)),
            Position::Offset(_) => (3, None),
        };
        self.bytes.push(tag);
        for (key, sort) in keys.into_iter().flatten().zip(&query.sort) {
            self.bytes.push(u8::from(key.is_null()));
            self.args.push(Arg::One(query.schema.fields[sort.field].field_type, key));
        }
    }

    pub(crate) fn filter(&mut self, schema: &'a Schema, filter: &'a Filter) {
        match filter {
            Filter::All(filters) => self.filter_list(schema, b'&', filters),
            Filter::Any(filters) => self.filter_list(schema, b'|', filters),
            Filter::Not(inner) => {
                self.bytes.push(b'!');
                self.filter(schema, inner);
            }
            Filter::Compare(field, test) => {
                self.bytes.push(b'=');
                self.number(*field);
                self.test(schema, *field, test);
            }
            Filter::Related(by, inner) => {
                self.bytes.push(b'.');
                self.link(&by.0);
                self.filter(&by.0.target, inner);
            }
            Filter::Search(fields, word) => {
                self.bytes.push(b'?');
                self.positions(fields);
                for _ in fields {
                    self.args.push(Arg::SearchTerm(word));
                    self.args.push(Arg::AsciiSearchTerm(word));
                }
            }
        }
    }

    fn filter_list(&mut self, schema: &'a Schema, tag: u8, filters: &'a [Filter]) {
        self.bytes.push(tag);
        self.number(filters.len());
        for filter in filters {
            self.filter(schema, filter);
        }
    }

    fn test(&mut self, schema: &'a Schema, field: usize, test: &'a Test) {
        let field_type = schema.fields[field].field_type;
        let element = match field_type {
            FieldType::Array(element) => element.into(),
            other => other,
        };
        let mut one = |tag: u8, value: &'a Value| {
            self.bytes.push(tag);
            self.args.push(Arg::One(element, value));
        };
        match test {
            Test::Eq(value) => one(0, value),
            Test::Ne(value) => one(1, value),
            Test::Gt(value) => one(2, value),
            Test::Gte(value) => one(3, value),
            Test::Lt(value) => one(4, value),
            Test::Lte(value) => one(5, value),
            Test::Between(from, to) => {
                one(7, from);
                self.args.push(Arg::One(element, to));
            }
            Test::In(values) => self.list(8, element, values),
            Test::NotIn(values) => self.list(9, element, values),
            Test::Has(value) => self.elements(field_type, std::slice::from_ref(value)),
            Test::Overlaps(values) => self.elements(field_type, values),
            Test::Contains(part) => self.text(11, part),
            Test::Starts(part) => self.text(12, part),
            Test::Ends(part) => self.text(13, part),
            Test::IsNull(null) => self.bytes.push(if *null { 14 } else { 15 }),
        }
    }

    fn list(&mut self, tag: u8, element: FieldType, values: &'a [Value]) {
        self.bytes.push(tag);
        if matches!(element, FieldType::Float | FieldType::Float32) {
            // Some databases take a list as text, and not every double survives the round trip through text.
            self.number(values.len());
            self.args.extend(values.iter().map(|value| Arg::One(element, value)));
        } else {
            self.args.push(Arg::Many(element, values));
        }
    }

    fn elements(&mut self, field_type: FieldType, values: &'a [Value]) {
        self.bytes.push(10);
        if let FieldType::Array(element) = field_type {
            self.args.push(Arg::Elements(element, values));
        }
    }

    fn text(&mut self, tag: u8, part: &'a str) {
        self.bytes.push(tag);
        self.args.push(Arg::Text(part));
    }

    fn positions(&mut self, positions: &[usize]) {
        self.number(positions.len());
        for position in positions {
            self.number(*position);
        }
    }

    fn link(&mut self, link: &Arc<Link>) {
        self.address(Arc::as_ptr(link).addr());
    }

    pub(crate) fn address(&mut self, address: usize) {
        self.bytes.extend_from_slice(&address.to_le_bytes());
    }

    /// Appends a number: one byte if it fits, otherwise an escape and eight bytes.
    pub(crate) fn number(&mut self, number: usize) {
        match u8::try_from(number) {
            Ok(small) if small < u8::MAX => self.bytes.push(small),
            _ => {
                self.bytes.push(u8::MAX);
                self.bytes.extend_from_slice(&number.to_le_bytes());
            }
        }
    }
}

/// All relations that a query follows, for its plan to hold.
pub(crate) fn query_links(query: &Query) -> Vec<Arc<Link>> {
    let mut links = Vec::new();
    collect_links(&query.filter, &mut links);
    for include in &query.includes {
        links.push(include.link.clone());
        collect_links(&include.filter, &mut links);
    }
    links
}

pub(crate) fn collect_links(filter: &Filter, links: &mut Vec<Arc<Link>>) {
    match filter {
        Filter::All(filters) | Filter::Any(filters) => {
            filters.iter().for_each(|filter| collect_links(filter, links));
        }
        Filter::Not(inner) => collect_links(inner, links),
        Filter::Related(by, inner) => {
            links.push(by.0.clone());
            collect_links(inner, links);
        }
        Filter::Compare(..) | Filter::Search(..) => {}
    }
}
