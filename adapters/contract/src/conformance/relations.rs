//! Conformance cases of relations within one storage: filters through them, and included rows.

use std::sync::Arc;

use serde_json::{Value as Json, json};

use super::fixture::{Fixture, text};
use super::{Case, Failure, expect_eq, named};
use crate::{
    Cardinality, Field, FieldType, Filter, IdSource, Include, Link, Position, Query, RelatedBy, Schema, Test,
    Value,
};

pub(super) const CASES: &[Case] = named![
    #[needs(relations)]
    belongs_to_filter_selects_rows,
    #[needs(relations)]
    has_many_filter_selects_rows,
    #[needs(relations)]
    relation_filters_nest_and_negate,
    #[needs(relations)]
    belongs_to_is_included_or_null,
    #[needs(relations)]
    filtered_belongs_to_include_is_null,
    #[needs(relations)]
    has_many_is_included_by_ascending_id,
    #[needs(relations)]
    has_many_include_is_limited_and_filtered,
    #[needs(relations)]
    included_values_have_canonical_json,
    #[needs(relations)]
    includes_work_with_pages_and_totals,
];

struct RelatedTables {
    countries: Arc<Schema>,
    cities: Arc<Schema>,
    country: Arc<Link>,
    towns: Arc<Link>,
}

async fn related_tables(fixture: &Fixture) -> Result<RelatedTables, Failure> {
    let fields = vec![Field::new("id", FieldType::Text), Field::new("continent", FieldType::Text).nullable()];
    let countries = fixture.create_table("countries", fields, IdSource::Client, |_| ()).await?;
    let fields = vec![
        Field::new("id", FieldType::Integer),
        Field::new("country", FieldType::Text).nullable(),
        Field::new("height", FieldType::Float).nullable(),
        Field::new("founded", FieldType::DateTime).nullable(),
        Field::new("capital", FieldType::Boolean).nullable(),
        Field::new("notes", FieldType::Json).nullable(),
        Field::new("tags", FieldType::Array(crate::ScalarType::Text)).nullable(),
        Field::new("area", FieldType::Decimal).nullable(),
        Field::new("day", FieldType::Date).nullable(),
        Field::new("key", FieldType::Uuid).nullable(),
    ];
    let cities = fixture.create_table("cities", fields, IdSource::Client, |_| ()).await?;
    for (id, continent) in [("is", text("eu")), ("ke", text("af")), ("xx", Value::Null)] {
        fixture.insert(&countries, &[text(id), continent]).await?;
    }
    for (id, country) in
        [(1, text("is")), (2, text("ke")), (3, text("is")), (4, Value::Null), (10, text("is"))]
    {
        fixture.insert(&cities, &city(id, country)).await?;
    }
    let link = |name: &str, cardinality, local, target: &Arc<Schema>, remote| {
        Arc::new(Link { name: name.to_owned(), cardinality, local, target: target.clone(), remote })
    };
    Ok(RelatedTables {
        country: link("nation", Cardinality::One, 1, &countries, 0),
        towns: link("towns", Cardinality::Many, 0, &cities, 1),
        countries,
        cities,
    })
}

fn city(id: i64, country: Value) -> Vec<Value> {
    let mut row = vec![Value::Null; 10];
    row[0] = Value::Integer(id);
    row[1] = country;
    row
}

fn related(link: &Arc<Link>, inner: Filter) -> Filter {
    Filter::Related(RelatedBy(link.clone()), Box::new(inner))
}

fn include(link: &Arc<Link>, fields: Vec<usize>) -> Include {
    Include { link: link.clone(), fields, filter: Filter::everything(), limit: 50 }
}

fn europe_filter() -> Filter {
    Filter::Compare(1, Test::Eq(text("eu")))
}

async fn belongs_to_filter_selects_rows(fixture: Fixture) -> Result<(), Failure> {
    let tables = related_tables(&fixture).await?;
    fixture.expect_ids(&tables.cities, related(&tables.country, europe_filter()), "1 3 10").await?;
    fixture.expect_ids(&tables.cities, related(&tables.country, Filter::everything()), "1 2 3 10").await?;
    fixture.expect_ids(&tables.cities, related(&tables.country, Filter::nothing()), "").await
}

async fn has_many_filter_selects_rows(fixture: Fixture) -> Result<(), Failure> {
    let tables = related_tables(&fixture).await?;
    let high = Filter::Compare(0, Test::Gt(Value::Integer(2)));
    fixture.expect_ids(&tables.countries, related(&tables.towns, high), "is").await?;
    fixture.expect_ids(&tables.countries, related(&tables.towns, Filter::everything()), "is ke").await
}

async fn relation_filters_nest_and_negate(fixture: Fixture) -> Result<(), Failure> {
    let tables = related_tables(&fixture).await?;
    let not = |filter| Filter::Not(Box::new(filter));
    fixture.expect_ids(&tables.cities, not(related(&tables.country, europe_filter())), "2 4").await?;
    fixture.expect_ids(&tables.countries, not(related(&tables.towns, Filter::everything())), "xx").await?;
    // Cities of countries that have city 3.
    let third = related(&tables.towns, Filter::Compare(0, Test::Eq(Value::Integer(3))));
    fixture.expect_ids(&tables.cities, related(&tables.country, third.clone()), "1 3 10").await?;
    let either =
        Filter::Any(vec![related(&tables.country, third), Filter::Compare(0, Test::Eq(Value::Integer(4)))]);
    fixture.expect_ids(&tables.cities, either, "1 3 4 10").await
}

async fn belongs_to_is_included_or_null(fixture: Fixture) -> Result<(), Failure> {
    let tables = related_tables(&fixture).await?;
    let mut query = Query::all(tables.cities.clone());
    query.fields = vec![0];
    query.includes = vec![include(&tables.country, vec![1, 0])];
    query.limit = 4;
    let mut out = Vec::new();
    fixture.storage.fetch(&query, &mut out).await?;
    let expected = "{\"id\":1,\"nation\":{\"continent\":\"eu\",\"id\":\"is\"}},\
                    {\"id\":2,\"nation\":{\"continent\":\"af\",\"id\":\"ke\"}},\
                    {\"id\":3,\"nation\":{\"continent\":\"eu\",\"id\":\"is\"}},{\"id\":4,\"nation\":null}";
    expect_eq("the rows", &String::from_utf8_lossy(&out).into_owned(), &expected.to_owned())
}

async fn filtered_belongs_to_include_is_null(fixture: Fixture) -> Result<(), Failure> {
    let tables = related_tables(&fixture).await?;
    let mut query = Query::all(tables.cities.clone());
    query.fields = vec![0];
    query.includes = vec![Include { filter: europe_filter(), ..include(&tables.country, vec![0]) }];
    let (_, rows) = fixture.fetch(&query).await?;
    let nations: Vec<_> = rows.iter().map(|row| row["nation"]["id"].clone()).collect();
    expect_eq("the nations", &nations, &vec![json!("is"), Json::Null, json!("is"), Json::Null, json!("is")])
}

async fn included_towns(fixture: &Fixture, query: &Query) -> Result<Vec<Json>, Failure> {
    let (_, rows) = fixture.fetch(query).await?;
    let ids = |row: &Json| {
        row["towns"].as_array().map(|towns| towns.iter().map(|town| town["id"].clone()).collect())
    };
    Ok(rows.iter().map(|row| ids(row).map_or(Json::Null, Json::Array)).collect())
}

async fn has_many_is_included_by_ascending_id(fixture: Fixture) -> Result<(), Failure> {
    let tables = related_tables(&fixture).await?;
    let mut query = Query::all(tables.countries.clone());
    query.includes = vec![include(&tables.towns, vec![0])];
    expect_eq(
        "towns",
        &included_towns(&fixture, &query).await?,
        &vec![json!([1, 3, 10]), json!([2]), json!([])],
    )
}

async fn has_many_include_is_limited_and_filtered(fixture: Fixture) -> Result<(), Failure> {
    let tables = related_tables(&fixture).await?;
    let mut query = Query::all(tables.countries.clone());
    query.includes = vec![Include { limit: 2, ..include(&tables.towns, vec![0]) }];
    expect_eq("two", &included_towns(&fixture, &query).await?, &vec![json!([1, 3]), json!([2]), json!([])])?;
    let later = Filter::Compare(0, Test::Gt(Value::Integer(2)));
    query.includes = vec![Include { filter: later, ..include(&tables.towns, vec![0]) }];
    expect_eq(
        "later ones",
        &included_towns(&fixture, &query).await?,
        &vec![json!([3, 10]), json!([]), json!([])],
    )
}

async fn included_values_have_canonical_json(fixture: Fixture) -> Result<(), Failure> {
    let tables = related_tables(&fixture).await?;
    for (id, height) in (100..).zip([0.1, 0.1 + 0.2, 1.0 / 3.0, 1e300, 5e-324, 3.0, -123_456.789_012_345_67])
    {
        let mut row = city(id, text("xx"));
        row[2] = Value::Float(height);
        row[3] = super::fixture::parse(FieldType::DateTime, "2026-11-21T05:00:00.25Z");
        row[4] = Value::Boolean(id % 2 == 0);
        row[5] = Value::Json(json!({"a": ["\"", null, 0.5]}));
        row[6] = Value::Array(vec![text("x,y"), text("\"")]);
        row[7] = super::fixture::parse(FieldType::Decimal, "12345678901234567890.50");
        row[8] = super::fixture::parse(FieldType::Date, "2024-02-29");
        row[9] = super::fixture::parse(FieldType::Uuid, "0198c0de-0000-7000-8000-000000000000");
        fixture.insert(&tables.cities, &row).await?;
    }
    let mut query = Query::all(tables.cities.clone());
    query.filter = Filter::Compare(1, Test::Eq(text("xx")));
    let (_, direct) = fixture.fetch(&query).await?;
    let mut query = Query::one(tables.countries.clone(), text("xx"));
    query.includes = vec![include(&tables.towns, (0..10).collect())];
    let (_, rows) = fixture.fetch(&query).await?;
    expect_eq("the towns", &rows[0]["towns"], &Json::Array(direct))
}

async fn includes_work_with_pages_and_totals(fixture: Fixture) -> Result<(), Failure> {
    let tables = related_tables(&fixture).await?;
    let mut query = Query::all(tables.cities.clone());
    query.filter = related(&tables.country, europe_filter());
    query.includes = vec![include(&tables.country, vec![0])];
    query.position = Position::After(vec![Value::Integer(1)]);
    query.count = Some(crate::Count::Exact);
    query.limit = 1;
    let (rows, json) = fixture.fetch(&query).await?;
    expect_eq("total and more", &(rows.total.map(|total| total.rows), rows.more), &(Some(3), true))?;
    expect_eq("the row", &json[0]["nation"], &json!({"id": "is"}))
}
