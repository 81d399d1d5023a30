//! Conformance cases of keyset pagination: forwards and backwards, through ties and nulls, during inserts and deletes.

use std::sync::Arc;

use super::fixture::{Fixture, parse, position, row_values, text};
use super::{Case, Failure, expect_eq, named};
use crate::{FieldType, Guard, Position, Query, Schema, Sort, Value};

pub(super) const CASES: &[Case] = named![
    forward_pages_return_every_row_once,
    backward_pages_return_every_row_once,
    pages_through_ties_return_every_row_once,
    pages_through_nulls_return_every_row_once,
    pages_in_mixed_directions_return_every_row_once,
    pages_by_decimal_return_every_row_once,
    pages_by_time_return_every_row_once,
    pages_by_float_return_every_row_once,
    page_before_cursor_keeps_query_order,
    cursor_of_deleted_row_is_valid,
    inserts_and_deletes_between_pages_skip_no_row,
    pages_beyond_the_ends_are_empty,
];

/// Thirteen rows in which several share each value of a field, and some hold null.
async fn thirteen_rows(fixture: &Fixture) -> Result<Arc<Schema>, Failure> {
    let ids: Vec<_> = (0..13).map(|number| format!("r{number:02}")).collect();
    let rows: Vec<_> = ids
        .iter()
        .zip(0..)
        .map(|(id, number): (_, i64)| {
            let mut values = vec![("text", text(if number % 2 == 0 { "even" } else { "odd" }))];
            if number % 4 != 0 {
                values.push(("integer", Value::Integer(number % 4)));
                values.push((
                    "decimal",
                    parse(
                        FieldType::Decimal,
                        ["9.5", "10.25", "-1", "0"][usize::try_from(number % 4).unwrap_or(0)],
                    ),
                ));
                values.push((
                    "float",
                    Value::Float(
                        [0.1, 0.30000000000000004, -1e-9, 2.5][usize::try_from(number % 4).unwrap_or(0)],
                    ),
                ));
                let time =
                    format!("2026-01-01T00:00:0{}{}Z", number % 3, if number % 2 == 0 { ".25" } else { "" });
                values.push(("datetime", parse(FieldType::DateTime, &time)));
            }
            (id.as_str(), values)
        })
        .collect();
    fixture.table_with_rows(&rows).await
}

fn sorted_query(schema: &Arc<Schema>, keys: &[(&str, bool)], limit: u32) -> Query {
    let mut query = Query::all(schema.clone());
    query.sort = keys
        .iter()
        .map(|(name, descending)| Sort { field: position(schema, name), descending: *descending })
        .collect();
    query.limit = limit;
    query
}

/// Reads all pages in one direction, with several page sizes, and compares them with the whole list.
async fn expect_all_pages(fixture: &Fixture, keys: &[(&str, bool)], backwards: bool) -> Result<(), Failure> {
    let schema = thirteen_rows(fixture).await?;
    let whole = fixture.fetch_ids(&sorted_query(&schema, keys, 100)).await?;
    expect_eq("the whole", &whole.len(), &13)?;
    for limit in [1, 2, 3, 5, 12, 13, 14] {
        let mut query = sorted_query(&schema, keys, limit);
        if backwards {
            // From beyond the last row: after a page that ends with it comes no row, and before that come all rows.
            let (all, _) = fixture.fetch(&sorted_query(&schema, keys, 100)).await?;
            query.position = Position::Before(all.last.unwrap_or_default());
        }
        let mut seen: Vec<String> = Vec::new();
        for _ in 0..20 {
            let (page, _) = fixture.fetch(&query).await?;
            let ids = fixture.fetch_ids(&query).await?;
            if backwards {
                seen.splice(0..0, ids);
            } else {
                seen.extend(ids);
            }
            if !page.more {
                break;
            }
            query.position = if backwards {
                Position::Before(page.first.unwrap_or_default())
            } else {
                Position::After(page.last.unwrap_or_default())
            };
        }
        let expected = if backwards { &whole[..12] } else { &whole[..] };
        expect_eq(&format!("{keys:?} by {limit}"), &seen, &expected.to_vec())?;
    }
    Ok(())
}

async fn expect_both_directions(fixture: &Fixture, keys: &[(&str, bool)]) -> Result<(), Failure> {
    expect_all_pages(fixture, keys, false).await?;
    let second_fixture =
        Fixture::new(fixture.storage.clone(), format!("{}b{}", fixture.prefix(), keys.len()));
    expect_all_pages(&second_fixture, keys, true).await
}

async fn forward_pages_return_every_row_once(fixture: Fixture) -> Result<(), Failure> {
    expect_all_pages(&fixture, &[("id", false)], false).await
}

async fn backward_pages_return_every_row_once(fixture: Fixture) -> Result<(), Failure> {
    expect_all_pages(&fixture, &[("id", true)], true).await
}

async fn pages_through_ties_return_every_row_once(fixture: Fixture) -> Result<(), Failure> {
    expect_both_directions(&fixture, &[("text", false), ("id", false)]).await
}

async fn pages_through_nulls_return_every_row_once(fixture: Fixture) -> Result<(), Failure> {
    expect_both_directions(&fixture, &[("integer", false), ("id", false)]).await?;
    let second_fixture = Fixture::new(fixture.storage.clone(), format!("{}d", fixture.prefix()));
    expect_both_directions(&second_fixture, &[("integer", true), ("id", true)]).await
}

async fn pages_in_mixed_directions_return_every_row_once(fixture: Fixture) -> Result<(), Failure> {
    expect_both_directions(&fixture, &[("integer", false), ("text", true), ("id", false)]).await?;
    let second_fixture = Fixture::new(fixture.storage.clone(), format!("{}d", fixture.prefix()));
    expect_both_directions(&second_fixture, &[("text", true), ("integer", true), ("id", false)]).await
}

async fn pages_by_decimal_return_every_row_once(fixture: Fixture) -> Result<(), Failure> {
    expect_both_directions(&fixture, &[("decimal", false), ("id", false)]).await
}

async fn pages_by_time_return_every_row_once(fixture: Fixture) -> Result<(), Failure> {
    expect_both_directions(&fixture, &[("datetime", true), ("id", true)]).await
}

async fn pages_by_float_return_every_row_once(fixture: Fixture) -> Result<(), Failure> {
    expect_both_directions(&fixture, &[("float", false), ("id", false)]).await
}

async fn page_before_cursor_keeps_query_order(fixture: Fixture) -> Result<(), Failure> {
    let schema = thirteen_rows(&fixture).await?;
    let mut query = sorted_query(&schema, &[("id", false)], 3);
    query.position = Position::Before(vec![text("r10")]);
    expect_eq("ids", &fixture.fetch_ids(&query).await?.join(" "), &"r07 r08 r09".to_owned())?;
    let (page, _) = fixture.fetch(&query).await?;
    expect_eq("edges", &(page.first, page.last), &(Some(vec![text("r07")]), Some(vec![text("r09")])))?;
    expect_eq("more", &page.more, &true)
}

async fn cursor_of_deleted_row_is_valid(fixture: Fixture) -> Result<(), Failure> {
    let schema = thirteen_rows(&fixture).await?;
    fixture.delete(&schema, text("r05"), Guard::none()).await?;
    let mut query = sorted_query(&schema, &[("id", false)], 2);
    query.position = Position::After(vec![text("r05")]);
    expect_eq("after", &fixture.fetch_ids(&query).await?.join(" "), &"r06 r07".to_owned())?;
    query.position = Position::Before(vec![text("r05")]);
    expect_eq("before", &fixture.fetch_ids(&query).await?.join(" "), &"r03 r04".to_owned())
}

async fn inserts_and_deletes_between_pages_skip_no_row(fixture: Fixture) -> Result<(), Failure> {
    let schema = thirteen_rows(&fixture).await?;
    let mut query = sorted_query(&schema, &[("integer", false), ("id", false)], 4);
    let (first, _) = fixture.fetch(&query).await?;
    let seen = fixture.fetch_ids(&query).await?;
    fixture.delete(&schema, text(&seen[3]), Guard::none()).await?;
    fixture.insert(&schema, &row_values(&schema, "r00a", &[("integer", Value::Integer(0))])).await?;
    fixture.insert(&schema, &row_values(&schema, "r99", &[])).await?;
    query.position = Position::After(first.last.unwrap_or_default());
    query.limit = 100;
    let rest = fixture.fetch_ids(&query).await?;
    expect_eq("repeated", &rest.iter().any(|id| seen.contains(id)), &false)?;
    expect_eq("met", &(seen.len() + rest.len()), &14)?;
    expect_eq("the new last", &rest.last().map(String::as_str), &Some("r99"))
}

async fn pages_beyond_the_ends_are_empty(fixture: Fixture) -> Result<(), Failure> {
    let schema = thirteen_rows(&fixture).await?;
    let keys = [("integer", false), ("id", false)];
    let (all, _) = fixture.fetch(&sorted_query(&schema, &keys, 100)).await?;
    let mut query = sorted_query(&schema, &keys, 5);
    query.position = Position::After(all.last.unwrap_or_default());
    expect_eq("after the last", &fixture.fetch_ids(&query).await?, &Vec::new())?;
    query.position = Position::Before(all.first.unwrap_or_default());
    expect_eq("before the first", &fixture.fetch_ids(&query).await?, &Vec::new())
}
