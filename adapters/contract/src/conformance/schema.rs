//! A declaration next to its table.

use super::fixture::{Fixture, fails, text};
use super::{Case, Failure, named, same};
use crate::{ErrorKind, Field, FieldType, IdSource, Index, Schema, Value};

pub(super) const CASES: &[Case] = named![
    tables_and_columns_whose_names_run_together_have_indexes_of_their_own,
    long_names_that_begin_alike_have_indexes_of_their_own,
    a_missing_unique_index_is_named,
    what_is_unique_in_fewer_fields_is_unique_in_all,
];

fn code(column: &str) -> Vec<Field> {
    let mut code = Field::new("code", FieldType::Text);
    code.column = column.to_owned();
    vec![Field::new("id", FieldType::Integer), code, Field::new("part", FieldType::Integer)]
}

fn unique(fields: &[usize]) -> impl FnOnce(&mut Schema) {
    let index = Index { fields: fields.to_vec(), unique: true };
    |schema| schema.indexes = vec![index]
}

async fn is_unique(fixture: &Fixture, schema: &std::sync::Arc<Schema>) -> Result<(), Failure> {
    let row = |id: i64| [Value::Integer(id), text("a"), Value::Integer(id)];
    fixture.insert(schema, &row(1)).await?;
    let clash = fails(fixture.insert(schema, &row(2)).await, ErrorKind::UniqueViolation)?;
    same("fields", &clash.fields().to_vec(), &vec!["code".to_owned()])
}

async fn tables_and_columns_whose_names_run_together_have_indexes_of_their_own(
    fixture: Fixture,
) -> Result<(), Failure> {
    for (table, column) in [("order", "line_code"), ("order_line", "code"), ("order_line_code", "key")] {
        let schema = fixture.table(table, code(column), IdSource::Client, unique(&[1])).await?;
        is_unique(&fixture, &schema).await?;
    }
    Ok(())
}

async fn long_names_that_begin_alike_have_indexes_of_their_own(fixture: Fixture) -> Result<(), Failure> {
    let long = "a_name_of_a_column_that_goes_on_for_quite_a_while_until";
    for (table, column) in [("one", "here"), ("one_more", "here"), ("one_more_yet", "there")] {
        let fields = code(&format!("{long}_{column}"));
        let schema = fixture.table(table, fields, IdSource::Client, unique(&[1])).await?;
        is_unique(&fixture, &schema).await?;
    }
    Ok(())
}

async fn a_missing_unique_index_is_named(fixture: Fixture) -> Result<(), Failure> {
    let made = fixture.table("items", code("code"), IdSource::Client, |_| ()).await?;
    let mut declared = Schema::clone(&made);
    declared.indexes = vec![Index { fields: vec![1, 2], unique: true }];
    let mismatches = fixture.storage.check(&std::sync::Arc::new(declared)).await?;
    let said: Vec<_> = mismatches.iter().map(|one| (one.field.as_deref(), one.is_warning)).collect();
    same("mismatches", &said, &vec![(Some("code"), false)])?;
    same("the columns are named", &mismatches[0].message.contains("`code`, `part`"), &true)?;
    same("a line mends it", &mismatches[0].help.is_some(), &true)
}

async fn what_is_unique_in_fewer_fields_is_unique_in_all(fixture: Fixture) -> Result<(), Failure> {
    let made = fixture.table("items", code("code"), IdSource::Client, unique(&[1])).await?;
    let mut declared = Schema::clone(&made);
    // In another order, and with the id, which is unique by itself.
    declared.indexes =
        [[2, 1], [2, 0]].map(|fields| Index { fields: fields.to_vec(), unique: true }).to_vec();
    let mismatches = fixture.storage.check(&std::sync::Arc::new(declared)).await?;
    same("mismatches", &mismatches, &Vec::new())
}
