//! Whatever is asked and whatever is written: a database answers as the memory adapter does.

use std::sync::Arc;

use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use proptest::test_runner::{Config, RngSeed, TestCaseError, TestRunner};
use resourceful_contract::{
    Cardinality, Change, ChangeSet, Count, Field, FieldType, Filter, Guard, IdSource, Include, Index, Link,
    Position, Query, RelatedBy, Rows, ScalarType, Schema, Sort, Storage, StorageError, Test, Value, Version,
    Write,
};
use resourceful_memory::Memory;
use resourceful_sql::Sql;

use crate::support::TestDatabase;

const ID: usize = 0;
const VERSION: usize = 1;
const PARENT: usize = 2;
/// From here on every type once, the first of them not nullable.
const RANK: usize = 3;
const TEXT: usize = 6;
const ARRAY: usize = 11;
const SINGLE: usize = 12;
const FIELDS: usize = 13;
const ROWS: usize = 10;

fn schema(table: &str) -> Arc<Schema> {
    let nullable = |name: &str, field_type| Field::new(name, field_type).nullable();
    let fields = vec![
        Field::new("id", FieldType::Text),
        Field::new("version", FieldType::Integer),
        nullable("parent", FieldType::Text),
        Field::new("rank", FieldType::Integer),
        nullable("integer", FieldType::Integer),
        nullable("float", FieldType::Float),
        nullable("text", FieldType::Text),
        nullable("boolean", FieldType::Boolean),
        nullable("decimal", FieldType::Decimal),
        nullable("uuid", FieldType::Uuid),
        nullable("at", FieldType::DateTime),
        nullable("tags", FieldType::Array(ScalarType::Text)),
        nullable("single", FieldType::Float32),
    ];
    let mut schema = Schema::new("things", table, fields, ID, IdSource::Client);
    schema.version = Some(VERSION);
    schema.indexes =
        vec![Index { fields: vec![RANK], unique: false }, Index { fields: vec![4, 6], unique: false }];
    Arc::new(schema)
}

/// A few values of each type: few, so that they tie.
fn sample_values(field: usize) -> &'static [&'static str] {
    match field {
        ID | PARENT => &["r0", "r1", "r2", "r3", "r4", "r5", "r6", "r7", "r8", "r9"],
        4 => &["-9223372036854775808", "-1", "0", "1", "9223372036854775807"],
        5 => &["-1.5", "0", "0.1", "0.30000000000000004", "1e300"],
        TEXT => &["", "a", "A", "ab", "b%", "b_", "\\", "é", "😀", "'; --"],
        7 => &["false", "true"],
        8 => &["-1.5", "0", "1.10", "10", "12345678901234567890.12345678"],
        9 => &["00000000-0000-0000-0000-000000000000", "6fa459ea-ee8a-4ca4-894e-db77e160355e"],
        10 => &["2024-02-29T23:59:59Z", "2024-02-29T23:59:59.000001Z", "1969-12-31T23:00:00-01:00"],
        SINGLE => &["-0.1", "0", "0.1", "0.3", "16777216"],
        ARRAY => &["x", "y", "", "\"q\""],
        _ => &["-2", "0", "3"],
    }
}

fn scalar(schema: &Schema, field: usize) -> BoxedStrategy<Value> {
    let field_type = schema.fields[field].field_type;
    select(sample_values(field)).prop_map(move |text| field_type.parse(text).unwrap()).boxed()
}

fn value(schema: &Schema, field: usize) -> BoxedStrategy<Value> {
    let one = if field == ARRAY {
        prop::collection::vec(scalar(schema, field), 0..3).prop_map(Value::Array).boxed()
    } else {
        scalar(schema, field)
    };
    if schema.fields[field].nullable { prop_oneof![1 => Just(Value::Null), 4 => one].boxed() } else { one }
}

fn row(schema: &Schema, id: usize) -> BoxedStrategy<Vec<Value>> {
    let own = Value::Text(format!("r{id}"));
    let rest: Vec<_> = (PARENT..FIELDS).map(|field| value(schema, field)).collect();
    rest.prop_map(move |rest| [vec![own.clone(), Value::Integer(1)], rest].concat()).boxed()
}

fn test(schema: &Schema, field: usize) -> BoxedStrategy<Test> {
    let one = || scalar(schema, field);
    let some = || prop::collection::vec(scalar(schema, field), 0..4);
    let is_null = any::<bool>().prop_map(Test::IsNull);
    if field == ARRAY {
        return prop_oneof![one().prop_map(Test::Has), some().prop_map(Test::Overlaps), is_null].boxed();
    }
    let ordered = prop_oneof![
        one().prop_map(Test::Eq),
        one().prop_map(Test::Ne),
        one().prop_map(Test::Gt),
        one().prop_map(Test::Gte),
        one().prop_map(Test::Lt),
        one().prop_map(Test::Lte),
        (one(), one()).prop_map(|(from, to)| Test::Between(from, to)),
        some().prop_map(Test::In),
        some().prop_map(Test::NotIn),
        is_null,
    ];
    if field != TEXT {
        return ordered.boxed();
    }
    let part = select(sample_values(TEXT)).prop_map(str::to_owned);
    prop_oneof![
        3 => ordered,
        1 => part.clone().prop_map(Test::Contains),
        1 => part.clone().prop_map(Test::Starts),
        1 => part.prop_map(Test::Ends),
    ]
    .boxed()
}

fn links(schema: &Arc<Schema>) -> [Arc<Link>; 2] {
    let link = |name: &str, cardinality, local, remote| {
        Arc::new(Link { name: name.to_owned(), cardinality, local, target: schema.clone(), remote })
    };
    [link("above", Cardinality::One, PARENT, ID), link("below", Cardinality::Many, ID, PARENT)]
}

fn filter(schema: &Arc<Schema>, links: &[Arc<Link>; 2]) -> BoxedStrategy<Filter> {
    let compares = (0..FIELDS)
        .filter(|field| *field != VERSION)
        .map(|field| test(schema, field).prop_map(move |test| Filter::Compare(field, test)).boxed());
    let search = select(&["a", "B", "É", "%", "_", "\\", "'"][..])
        .prop_map(|word| Filter::Search(vec![ID, TEXT], word.to_owned()));
    let leaf = prop_oneof![8 => prop::strategy::Union::new(compares), 1 => search];
    let links = links.clone();
    leaf.prop_recursive(3, 12, 3, move |inner| {
        let links = links.clone();
        prop_oneof![
            2 => prop::collection::vec(inner.clone(), 0..3).prop_map(Filter::All),
            2 => prop::collection::vec(inner.clone(), 0..3).prop_map(Filter::Any),
            1 => inner.clone().prop_map(|inner| Filter::Not(Box::new(inner))),
            1 => (inner, 0..2_usize).prop_map(move |(inner, which)| {
                Filter::Related(RelatedBy(links[which].clone()), Box::new(inner))
            }),
        ]
    })
    .boxed()
}

fn sorts() -> impl Strategy<Value = Vec<Sort>> {
    let sortable: Vec<usize> = (PARENT..ARRAY).collect();
    (subsequence(sortable, 0..=2).prop_shuffle(), prop::collection::vec(any::<bool>(), 3)).prop_map(
        |(mut fields, down)| {
            fields.push(ID);
            fields.into_iter().zip(down).map(|(field, descending)| Sort { field, descending }).collect()
        },
    )
}

fn query(schema: &Arc<Schema>) -> impl Strategy<Value = Query> + use<> {
    let links = links(schema);
    let schema = schema.clone();
    let place = {
        let schema = schema.clone();
        move |sort: &[Sort]| sort.iter().map(|sort| value(&schema, sort.field)).collect::<Vec<_>>()
    };
    let includes = {
        let links = links.clone();
        let filter = filter(&schema, &links);
        (subsequence(vec![0_usize, 1], 0..=2), filter).prop_map(move |(which, filter)| {
            let include = |which: &usize| Include {
                link: links[*which].clone(),
                fields: vec![ID, TEXT, 5],
                filter: filter.clone(),
                limit: 2,
            };
            which.iter().map(include).collect::<Vec<_>>()
        })
    };
    let filter = prop_oneof![1 => Just(Filter::everything()), 6 => filter(&schema, &links)];
    (filter, sorts(), includes, 1..6_u32, any::<bool>(), 0..4_u8, 0..6_u64).prop_flat_map(
        move |(filter, sort, includes, limit, count, position, skip)| {
            let schema = schema.clone();
            place(&sort).prop_map(move |place| Query {
                filter: filter.clone(),
                sort: sort.clone(),
                fields: (0..FIELDS).collect(),
                includes: includes.clone(),
                keys: vec![ID, RANK],
                versions: true,
                position: match position {
                    0 => Position::Start,
                    1 => Position::After(place),
                    2 => Position::Before(place),
                    _ => Position::Offset(skip),
                },
                limit,
                count: count.then_some(Count::Exact),
                schema: schema.clone(),
            })
        },
    )
}

/// One to three changes; those of one set fail together.
fn changes(schema: &Arc<Schema>) -> impl Strategy<Value = Vec<Write>> + use<> {
    let links = links(schema);
    let id = || (0..ROWS + 2).prop_map(|id| Value::Text(format!("r{id}")));
    let version = prop_oneof![Just(None), (1..3_i64).prop_map(|counter| Some(Version::Counter(counter)))];
    let guard = (filter(schema, &links), any::<bool>(), version).prop_map(|(filter, all, version)| Guard {
        filter: if all { Filter::everything() } else { filter },
        version,
    });
    let insert = (0..ROWS + 2).prop_flat_map({
        let schema = schema.clone();
        move |id| row(&schema, id)
    });
    let set = (PARENT..FIELDS).prop_flat_map({
        let schema = schema.clone();
        move |field| value(&schema, field).prop_map(move |value| vec![(field, value)])
    });
    let write = prop_oneof![
        insert.prop_map(|values| Write::Insert { values }),
        (id(), set, guard.clone()).prop_map(|(id, set, guard)| Write::Update { id, set, guard }),
        (id(), guard).prop_map(|(id, guard)| Write::Delete { id, guard }),
    ];
    prop::collection::vec(write, 1..4)
}

#[derive(Clone, Debug)]
struct Case {
    rows: Vec<Vec<Value>>,
    changes: Vec<Vec<Write>>,
    queries: Vec<Query>,
}

fn case(schema: &Arc<Schema>) -> impl Strategy<Value = Case> + use<> {
    let rows: Vec<_> = (0..ROWS).map(|id| row(schema, id)).collect();
    (rows, prop::collection::vec(changes(schema), 0..4), prop::collection::vec(query(schema), 1..6))
        .prop_map(|(rows, changes, queries)| Case { rows, changes, queries })
}

/// What a storage answered, in a form that can be compared.
#[derive(Debug, PartialEq)]
struct QueryResult {
    rows: Rows,
    json: serde_json::Value,
}

async fn run_query(storage: &dyn Storage, query: &Query) -> Result<QueryResult, StorageError> {
    let mut json = vec![b'['];
    let mut rows = storage.fetch(query, &mut json).await?;
    json.push(b']');
    // Where a row ends depends on how JSON is spelled, which is each storage's own.
    rows.ends.clear();
    let json = serde_json::from_slice(&json)
        .map_err(|error| StorageError::new(resourceful_contract::ErrorKind::Corrupt).with_source(error))?;
    Ok(QueryResult { rows, json })
}

async fn commit_writes(
    storage: &dyn Storage,
    schema: &Arc<Schema>,
    writes: &[Write],
) -> Result<Vec<(Value, Option<Version>)>, resourceful_contract::ErrorKind> {
    let answer = Some((0..FIELDS).collect::<Vec<_>>());
    let changes = writes
        .iter()
        .map(|write| Change { schema: schema.clone(), write: write.clone(), answer: answer.clone() })
        .collect();
    let committed = storage.commit(ChangeSet::of(changes)).await.map_err(|error| error.kind())?;
    Ok(committed.rows.into_iter().map(|row| (row.id, row.version)).collect())
}

async fn compare(sql: &Sql, schema: &Arc<Schema>, case: &Case) -> Result<(), TestCaseError> {
    let failed = |error: StorageError| {
        TestCaseError::fail(format!("{error}: {:?}", std::error::Error::source(&error)))
    };
    let memory = Memory::new().storage();
    let sql = sql.storage();
    memory.create_table_if_missing(schema).await.map_err(failed)?;
    sql.create_table_if_missing(schema).await.map_err(failed)?;
    // What the case before left.
    let mut rows = Query::all(schema.clone());
    rows.limit = 1_000;
    for row in run_query(&*sql, &rows).await.map_err(failed)?.json.as_array().unwrap() {
        let id = Value::Text(row["id"].as_str().unwrap().to_owned());
        commit_writes(&*sql, schema, &[Write::Delete { id, guard: Guard::none() }]).await.unwrap();
    }
    let inserts: Vec<_> = case.rows.iter().map(|row| Write::Insert { values: row.clone() }).collect();
    prop_assert_eq!(
        commit_writes(&*sql, schema, &inserts).await,
        commit_writes(&*memory, schema, &inserts).await
    );
    for writes in &case.changes {
        let (found, expected) =
            (commit_writes(&*sql, schema, writes).await, commit_writes(&*memory, schema, writes).await);
        prop_assert_eq!(found, expected, "{:?}", writes);
    }
    for query in std::iter::once(&rows).chain(&case.queries) {
        let found = run_query(&*sql, query).await.map_err(failed)?;
        let expected = run_query(&*memory, query).await.map_err(failed)?;
        prop_assert_eq!(found, expected, "{:?}", query);
    }
    Ok(())
}

fn assert_agreement(cases: u32, place: &TestDatabase) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let sql = runtime.block_on(place.connect());
    let schema = schema(&place.table("things"));
    let mut config = Config { cases, failure_persistence: None, ..Config::default() };
    if config.rng_seed == RngSeed::Random {
        // The same cases each time; PROPTEST_RNG_SEED asks for others.
        config.rng_seed = RngSeed::Fixed(1);
    }
    let mut runner = TestRunner::new(config);
    let outcome = runner.run(&case(&schema), |case| runtime.block_on(compare(&sql, &schema, &case)));
    outcome.unwrap_or_else(|failure| panic!("{failure}"));
}

#[cfg(feature = "sqlite")]
#[test]
fn sqlite_matches_memory_adapter() {
    assert_agreement(300, &TestDatabase::sqlite_memory());
}

#[cfg(feature = "postgres")]
#[test]
fn postgres_matches_memory_adapter() {
    if let Some(place) = TestDatabase::postgres("agreement with memory") {
        assert_agreement(100, &place);
    }
}
