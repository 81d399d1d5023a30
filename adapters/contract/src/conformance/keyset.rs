//! Conformance cases of keyset pagination: forwards and backwards, through ties and nulls, during inserts and deletes.

use std::sync::Arc;

use super::fixture::{Fixture, parse, position, row, text};
use super::{Case, Failure, named, same};
use crate::{FieldType, Guard, Position, Query, Schema, Sort, Value};

pub(super) const CASES: &[Case] = named![
    walking_forwards_meets_every_row_once,
    walking_backwards_meets_every_row_once,
    walking_through_ties_meets_every_row_once,
    walking_through_nulls_meets_every_row_once,
    walking_in_mixed_directions_meets_every_row_once,
    walking_by_decimals_meets_every_row_once,
    walking_by_times_meets_every_row_once,
    walking_by_floats_meets_every_row_once,
    a_page_before_is_in_the_querys_order,
    a_place_need_not_exist_any_more,
    rows_that_come_and_go_repeat_and_skip_no_other,
    nothing_lies_beyond_the_ends,
];

/// Thirteen rows in which several share each value of a field, and some hold null.
async fn rows(fixture: &Fixture) -> Result<Arc<Schema>, Failure> {
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
    fixture.rows(&rows).await
}

fn sorted(schema: &Arc<Schema>, keys: &[(&str, bool)], limit: u32) -> Query {
    let mut query = Query::all(schema.clone());
    query.sort = keys
        .iter()
        .map(|(name, descending)| Sort { field: position(schema, name), descending: *descending })
        .collect();
    query.limit = limit;
    query
}

/// Reads all pages in one direction, with several page sizes, and compares them with the whole list.
async fn walk(fixture: &Fixture, keys: &[(&str, bool)], backwards: bool) -> Result<(), Failure> {
    let schema = rows(fixture).await?;
    let whole = fixture.ids(&sorted(&schema, keys, 100)).await?;
    same("the whole", &whole.len(), &13)?;
    for limit in [1, 2, 3, 5, 12, 13, 14] {
        let mut query = sorted(&schema, keys, limit);
        if backwards {
            // From beyond the last row: after a page that ends with it comes no row, and before that come all rows.
            let (all, _) = fixture.fetch(&sorted(&schema, keys, 100)).await?;
            query.position = Position::Before(all.last.unwrap_or_default());
        }
        let mut met: Vec<String> = Vec::new();
        for _ in 0..20 {
            let (page, _) = fixture.fetch(&query).await?;
            let ids = fixture.ids(&query).await?;
            if backwards {
                met.splice(0..0, ids);
            } else {
                met.extend(ids);
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
        same(&format!("{keys:?} by {limit}"), &met, &expected.to_vec())?;
    }
    Ok(())
}

async fn both(fixture: &Fixture, keys: &[(&str, bool)]) -> Result<(), Failure> {
    walk(fixture, keys, false).await?;
    let again = Fixture::new(fixture.storage.clone(), format!("{}b{}", fixture.prefix(), keys.len()));
    walk(&again, keys, true).await
}

async fn walking_forwards_meets_every_row_once(fixture: Fixture) -> Result<(), Failure> {
    walk(&fixture, &[("id", false)], false).await
}

async fn walking_backwards_meets_every_row_once(fixture: Fixture) -> Result<(), Failure> {
    walk(&fixture, &[("id", true)], true).await
}

async fn walking_through_ties_meets_every_row_once(fixture: Fixture) -> Result<(), Failure> {
    both(&fixture, &[("text", false), ("id", false)]).await
}

async fn walking_through_nulls_meets_every_row_once(fixture: Fixture) -> Result<(), Failure> {
    both(&fixture, &[("integer", false), ("id", false)]).await?;
    let again = Fixture::new(fixture.storage.clone(), format!("{}d", fixture.prefix()));
    both(&again, &[("integer", true), ("id", true)]).await
}

async fn walking_in_mixed_directions_meets_every_row_once(fixture: Fixture) -> Result<(), Failure> {
    both(&fixture, &[("integer", false), ("text", true), ("id", false)]).await?;
    let again = Fixture::new(fixture.storage.clone(), format!("{}d", fixture.prefix()));
    both(&again, &[("text", true), ("integer", true), ("id", false)]).await
}

async fn walking_by_decimals_meets_every_row_once(fixture: Fixture) -> Result<(), Failure> {
    both(&fixture, &[("decimal", false), ("id", false)]).await
}

async fn walking_by_times_meets_every_row_once(fixture: Fixture) -> Result<(), Failure> {
    both(&fixture, &[("datetime", true), ("id", true)]).await
}

async fn walking_by_floats_meets_every_row_once(fixture: Fixture) -> Result<(), Failure> {
    both(&fixture, &[("float", false), ("id", false)]).await
}

async fn a_page_before_is_in_the_querys_order(fixture: Fixture) -> Result<(), Failure> {
    let schema = rows(&fixture).await?;
    let mut query = sorted(&schema, &[("id", false)], 3);
    query.position = Position::Before(vec![text("r10")]);
    same("ids", &fixture.ids(&query).await?.join(" "), &"r07 r08 r09".to_owned())?;
    let (page, _) = fixture.fetch(&query).await?;
    same("edges", &(page.first, page.last), &(Some(vec![text("r07")]), Some(vec![text("r09")])))?;
    same("more", &page.more, &true)
}

async fn a_place_need_not_exist_any_more(fixture: Fixture) -> Result<(), Failure> {
    let schema = rows(&fixture).await?;
    fixture.delete(&schema, text("r05"), Guard::none()).await?;
    let mut query = sorted(&schema, &[("id", false)], 2);
    query.position = Position::After(vec![text("r05")]);
    same("after", &fixture.ids(&query).await?.join(" "), &"r06 r07".to_owned())?;
    query.position = Position::Before(vec![text("r05")]);
    same("before", &fixture.ids(&query).await?.join(" "), &"r03 r04".to_owned())
}

async fn rows_that_come_and_go_repeat_and_skip_no_other(fixture: Fixture) -> Result<(), Failure> {
    let schema = rows(&fixture).await?;
    let mut query = sorted(&schema, &[("integer", false), ("id", false)], 4);
    let (first, _) = fixture.fetch(&query).await?;
    let met = fixture.ids(&query).await?;
    fixture.delete(&schema, text(&met[3]), Guard::none()).await?;
    fixture.insert(&schema, &row(&schema, "r00a", &[("integer", Value::Integer(0))])).await?;
    fixture.insert(&schema, &row(&schema, "r99", &[])).await?;
    query.position = Position::After(first.last.unwrap_or_default());
    query.limit = 100;
    let rest = fixture.ids(&query).await?;
    same("repeated", &rest.iter().any(|id| met.contains(id)), &false)?;
    same("met", &(met.len() + rest.len()), &14)?;
    same("the new last", &rest.last().map(String::as_str), &Some("r99"))
}

async fn nothing_lies_beyond_the_ends(fixture: Fixture) -> Result<(), Failure> {
    let schema = rows(&fixture).await?;
    let keys = [("integer", false), ("id", false)];
    let (all, _) = fixture.fetch(&sorted(&schema, &keys, 100)).await?;
    let mut query = sorted(&schema, &keys, 5);
    query.position = Position::After(all.last.unwrap_or_default());
    same("after the last", &fixture.ids(&query).await?, &Vec::new())?;
    query.position = Position::Before(all.first.unwrap_or_default());
    same("before the first", &fixture.ids(&query).await?, &Vec::new())
}
