//! Estimates the cost of a query from its shape alone.

use resourceful_contract::{Cardinality, Filter, Include, Query, Schema, Test};

use crate::plan::Cost;

/// The cost class of a query. Related rows are searched for each row, so a filter through two relations may compare every
/// row with every other one; a text is searched from end to end.
pub(crate) fn estimate(query: &Query) -> Cost {
    if query.includes.iter().any(is_heavy_include) {
        return Cost::Heavy;
    }
    let is_unique_lookup = is_unique_lookup(&query.schema, &query.filter);
    if !is_unique_lookup && (query.count.is_some() || is_heavy(&query.filter)) {
        return Cost::Heavy;
    }
    if query.count.is_some() || !query.includes.is_empty() || is_heavy(&query.filter) {
        return Cost::Joined;
    }
    Cost::Light
}

/// Whether the filter restricts rows by the id or another unique value, so that the rest is evaluated for those rows only.
fn is_unique_lookup(schema: &Schema, filter: &Filter) -> bool {
    match filter {
        Filter::All(filters) => filters.iter().any(|filter| is_unique_lookup(schema, filter)),
        Filter::Compare(field, Test::Eq(_) | Test::In(_)) => is_unique(schema, *field),
        _ => false,
    }
}

fn is_unique(schema: &Schema, field: usize) -> bool {
    field == schema.id || schema.indexes.iter().any(|index| index.unique && index.fields == [field])
}

/// Whether a filter follows relations, or searches texts from end to end.
fn is_heavy(filter: &Filter) -> bool {
    match filter {
        Filter::All(filters) | Filter::Any(filters) => filters.iter().any(is_heavy),
        Filter::Not(_) | Filter::Related(..) | Filter::Search(..) => true,
        Filter::Compare(_, test) => {
            matches!(test, Test::Contains(_) | Test::Ends(_) | Test::Has(_) | Test::Overlaps(_))
        }
    }
}

/// Whether related rows are searched among all rows of their table, once for each row.
fn is_heavy_include(include: &Include) -> bool {
    let (link, target) = (&include.link, &include.link.target);
    let is_indexed = link.remote == target.id
        || target.indexes.iter().any(|index| index.fields.first() == Some(&link.remote));
    is_heavy(&include.filter) || (link.cardinality == Cardinality::Many && !is_indexed)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use resourceful_contract::{Count, Field, FieldType, IdSource, Index, Link, RelatedBy, Value};

    use super::*;

    const PARENT: usize = 1;
    const NAME: usize = 2;

    fn schema() -> Arc<Schema> {
        let fields = ["id", "parent", "name"].map(|name| Field::new(name, FieldType::Text));
        let mut schema = Schema::new("nodes", "nodes", fields.to_vec(), 0, IdSource::Client);
        schema.indexes = vec![Index { fields: vec![PARENT], unique: false }];
        Arc::new(schema)
    }

    fn link(remote: usize) -> Arc<Link> {
        let cardinality = Cardinality::Many;
        Arc::new(Link { name: "below".to_owned(), cardinality, local: 0, target: schema(), remote })
    }

    fn filtered(filter: Filter) -> Query {
        Query { filter, ..Query::all(schema()) }
    }

    #[test]
    fn unindexed_queries_are_heavy() {
        let eq = |field, value: &str| Filter::Compare(field, Test::Eq(Value::Text(value.to_owned())));
        let contains = Filter::Compare(NAME, Test::Contains("zzzz".to_owned()));
        let related = |inner| Filter::Related(RelatedBy(link(PARENT)), Box::new(inner));
        let include = |remote, filter| Include { link: link(remote), fields: vec![0], filter, limit: 9 };
        let including = |include| Query { includes: vec![include], ..Query::all(schema()) };
        let counted = |filter| Query { count: Some(Count::Exact), ..filtered(filter) };
        for (query, cost) in [
            (Query::all(schema()), Cost::Light),
            (filtered(eq(PARENT, "a")), Cost::Light),
            (filtered(contains.clone()), Cost::Heavy),
            (filtered(related(related(contains.clone()))), Cost::Heavy),
            (filtered(Filter::Any(vec![eq(0, "a"), contains.clone()])), Cost::Heavy),
            // Evaluated for one row alone, as row filters are.
            (filtered(eq(0, "a").and(related(eq(NAME, "b")))), Cost::Joined),
            (counted(Filter::everything()), Cost::Heavy),
            (counted(eq(0, "a")), Cost::Joined),
            (including(include(PARENT, Filter::everything())), Cost::Joined),
            (including(include(NAME, Filter::everything())), Cost::Heavy),
            (including(include(PARENT, contains)), Cost::Heavy),
        ] {
            assert_eq!(estimate(&query), cost, "{query:?}");
        }
    }
}
