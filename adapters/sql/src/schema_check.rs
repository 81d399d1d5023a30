//! Compares a declared schema with the existing table.

use std::collections::HashMap;
use std::sync::Arc;

use resourceful_contract::{Field, IdSource, Index, Mismatch, Schema, StorageError};

use super::error_mapping;
use crate::catalog::{Column, TableIndex, columns, indexes};
use crate::create::{create_index, index_name};
use crate::dialect::{Dialect, TypeMismatch};
use crate::storage::{Connection, Database};

pub(crate) async fn check<D: Dialect>(
    database: &Database<D>,
    schema: &Arc<Schema>,
) -> Result<Vec<Mismatch>, StorageError> {
    let overlong_names = overlong_names::<D>(schema);
    if !overlong_names.is_empty() {
        return Ok(overlong_names);
    }
    let mut connection = database.reader().await?;
    let mut scope = connection.scope().await.map_err(error_mapping::begin_error::<D>)?;
    let found = read_catalog::<D>(&mut scope, schema).await;
    let (columns, mut indexes) = scope.end(found, error_mapping::connection_error).await?;
    connection.release();
    if columns.is_empty() {
        let message = format!("there is no table `{}`", schema.table);
        let help = "create it, or let .create_table_if_missing() do so";
        return Ok(vec![Mismatch::new(None, message).with_help(help)]);
    }
    indexes.extend(primary_key(&columns));
    let mut mismatches = Vec::new();
    let mut overrides = HashMap::new();
    for position in 0..schema.fields.len() {
        let compared =
            FieldCheck::<D> { schema, position, indexes: &indexes, dialect: std::marker::PhantomData };
        match columns.iter().find(|column| column.name == compared.field().column) {
            None => {
                let field = compared.field();
                let message = format!("the table `{}` has no column `{}`", schema.table, field.column);
                mismatches.push(Mismatch::new(Some(&field.name), message));
            }
            Some(column) => {
                mismatches.extend(compared.mismatches(column));
                let found = D::column_override(column, compared.field().field_type);
                overrides.insert(column.name.clone(), found);
            }
        }
    }
    mismatches.extend(columns.iter().filter_map(|column| unfilled_column(schema, column)));
    if mismatches.is_empty() {
        mismatches
            .extend(schema.indexes.iter().filter_map(|index| missing_index::<D>(schema, index, &indexes)));
    }
    database.store_overrides(&schema.table, overrides);
    Ok(mismatches)
}

/// The columns and indexes of a schema's table; empty if the table does not exist.
async fn read_catalog<D: Dialect>(
    connection: &mut Connection<D>,
    schema: &Schema,
) -> Result<(Vec<Column>, Vec<TableIndex>), StorageError> {
    let mut columns = columns::<D>(connection, schema).await?;
    if columns.is_empty() {
        return Ok((columns, Vec::new()));
    }
    D::detect_collations(connection, schema, &mut columns).await?;
    let indexes = indexes::<D>(connection, schema).await?;
    Ok((columns, indexes))
}

/// Names that exceed the database's length limit: it would truncate them, so that two names may collide.
pub(crate) fn overlong_names<D: Dialect>(schema: &Schema) -> Vec<Mismatch> {
    let Some(max_bytes) = D::MAX_NAME_BYTES else { return Vec::new() };
    let say = |field: Option<&Field>, name: &str| {
        let message =
            format!("the name `{name}` has {} bytes, and the database keeps {max_bytes}", name.len());
        Mismatch::new(field.map(|field| field.name.as_str()), message).with_help("a shorter name")
    };
    let tables =
        schema.table.splitn(2, '.').filter(|part| part.len() > max_bytes).map(|part| say(None, part));
    let fields = schema.fields.iter().filter(|field| field.column.len() > max_bytes);
    tables.chain(fields.map(|field| say(Some(field), &field.column))).collect()
}

/// The primary key as an index, where the catalog lists it with the columns.
fn primary_key(columns: &[Column]) -> Option<TableIndex> {
    let mut key: Vec<_> = columns.iter().filter(|column| column.primary_key_position > 0).collect();
    key.sort_by_key(|column| column.primary_key_position);
    let columns: Vec<_> = key.into_iter().map(|column| column.name.clone()).collect();
    let name = "the primary key".to_owned();
    (!columns.is_empty()).then(|| TableIndex { name, columns, unique: true, limitation: String::new() })
}

/// A field compared with its column.
struct FieldCheck<'a, D> {
    schema: &'a Schema,
    position: usize,
    indexes: &'a [TableIndex],
    dialect: std::marker::PhantomData<D>,
}

impl<'a, D: Dialect> FieldCheck<'a, D> {
    fn field(&self) -> &'a Field {
        &self.schema.fields[self.position]
    }

    fn mismatches(&self, column: &Column) -> Vec<Mismatch> {
        let mut faults = Vec::new();
        faults.extend(self.check_type(column));
        faults.extend(self.check_id(column));
        faults.extend(self.check_generated(column));
        faults.extend(self.check_nullability(column));
        faults.extend(self.check_default(column));
        faults
    }

    fn mismatch(&self, message: impl Into<String>) -> Mismatch {
        Mismatch::new(Some(&self.field().name), message)
    }

    /// The `ALTER TABLE … ALTER COLUMN …` statement for this column, or the alternative where the database cannot alter
    /// columns.
    fn alter_column_help(&self, what: &str, or: &str) -> String {
        if !D::CAN_ALTER_COLUMNS {
            return or.to_owned();
        }
        let (table, column) = (quoted_table(&self.schema.table), quoted(&self.field().column));
        format!("ALTER TABLE {table} ALTER COLUMN {column} {what}; or {or}")
    }

    fn check_type(&self, column: &Column) -> Option<Mismatch> {
        let field = self.field();
        let wanted = D::column_type(field.field_type);
        let name = &field.column;
        let declared = &column.declared_type;
        let retyped = || {
            let quoted = quoted(name);
            let plain = wanted.split(" COLLATE").next().unwrap_or_default();
            self.alter_column_help(
                &format!("TYPE {wanted} USING {quoted}::{plain}"),
                "bind the field to another column with .column(…)",
            )
        };
        match D::type_mismatch(column, field.field_type) {
            None => None,
            Some(TypeMismatch::Incompatible) => {
                let message =
                    format!("the column `{name}` is of type {declared}, and the field needs {wanted}");
                Some(self.mismatch(message).with_help(retyped()))
            }
            Some(TypeMismatch::AltersValues(_)) if field.read_only => None,
            Some(TypeMismatch::AltersValues(how)) => {
                let message = format!("the column `{name}` is of type {declared}, which {how}");
                Some(self.mismatch(message).with_help(retyped()))
            }
            Some(TypeMismatch::LosesPrecision(how)) => {
                let message = format!("the column `{name}` is of type {declared}, which {how}");
                Some(self.mismatch(message).with_help(retyped()).as_warning())
            }
        }
    }

    fn check_id(&self, column: &Column) -> Vec<Mismatch> {
        if self.position != self.schema.id {
            return Vec::new();
        }
        let mut faults = Vec::new();
        let id_index = Index { fields: vec![self.position], unique: true };
        if let Some(mut mismatch) = missing_index::<D>(self.schema, &id_index, self.indexes) {
            mismatch.message = format!("it is the id, and {}", mismatch.message);
            faults.push(mismatch);
        }
        if self.schema.id_source == IdSource::Storage && !column.is_identity {
            let message = format!("the column `{}` mints no ids", self.field().column);
            let or = "make it the INTEGER PRIMARY KEY, or give ids with .id(Id::Client)";
            let or = if D::CAN_ALTER_COLUMNS { "give ids with .id(Id::Client)" } else { or };
            faults.push(
                self.mismatch(message)
                    .with_help(self.alter_column_help("ADD GENERATED BY DEFAULT AS IDENTITY", or)),
            );
        }
        faults
    }

    /// A mismatch for a field whose values the database would refuse because it generates the column.
    fn check_generated(&self, column: &Column) -> Option<Mismatch> {
        let field = self.field();
        let is_id = self.position == self.schema.id;
        let is_minted = is_id && self.schema.id_source == IdSource::Storage;
        if !column.is_generated || is_minted || (field.read_only && !is_id) {
            return None;
        }
        if is_id {
            let message = format!("the database generates the column `{}`, and ids are given", field.column);
            return Some(self.mismatch(message).with_help(".id(Id::Integer), for the database to give them"));
        }
        let message =
            format!("the database generates the column `{}`, and the field can be set", field.column);
        Some(self.mismatch(message).with_help(format!(".read_only([\"{}\"])", field.name)))
    }

    /// A warning for a column default that rows created here never get, since a create writes every column.
    fn check_default(&self, column: &Column) -> Option<Mismatch> {
        let (field, default) = (self.field(), column.default.as_str());
        let is_null = default.is_empty() || default.to_ascii_lowercase().starts_with("null");
        let is_set_by_engine = [Some(self.schema.id), self.schema.version].contains(&Some(self.position));
        if is_null || is_set_by_engine {
            return None;
        }
        let stored = match field.default() {
            // Clients must send it, or the engine sets it.
            None if !field.nullable => return None,
            None | Some(serde_json::Value::Null) => "null".to_owned(),
            Some(value) => {
                let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                let parse = |text: &str| field.field_type.parse(text).ok();
                let (field_default, column_default) =
                    (parse(&text)?, parse_literal(default).and_then(|text| parse(&text))?);
                if field_default == column_default {
                    return None;
                }
                value.to_string()
            }
        };
        let name = &field.column;
        let message = format!(
            "the column `{name}` has the default {default}, and an item that is created without the field gets {stored}"
        );
        let help = format!("give `{}` the same default, or drop that of the column", field.name);
        Some(self.mismatch(message).with_help(help).as_warning())
    }

    fn check_nullability(&self, column: &Column) -> Option<Mismatch> {
        let field = self.field();
        let never_null = column.not_null || column.primary_key_position > 0;
        if field.nullable && never_null && !column.is_generated {
            let message = format!("the column `{}` is NOT NULL, and the field may be null", field.column);
            let or = format!("drop the Option around `{}`", field.name);
            return Some(self.mismatch(message).with_help(self.alter_column_help("DROP NOT NULL", &or)));
        }
        if !field.nullable && !never_null {
            let message = format!("the column `{}` may be null, and the field is never null", field.column);
            let or = format!("make `{}` an Option", field.name);
            return Some(self.mismatch(message).with_help(self.alter_column_help("SET NOT NULL", &or)));
        }
        None
    }
}

/// The value, as text, of a default that is a literal, such as `'draft'::text`, `-1` or `true`.
fn parse_literal(expression: &str) -> Option<String> {
    if let Some(quoted) = expression.strip_prefix('\'') {
        let (text, cast) = quoted.rsplit_once('\'')?;
        let is_cast = cast.is_empty() || cast.starts_with("::");
        let doubled = text.replace("''", "");
        return (is_cast && !doubled.contains('\'')).then(|| text.replace("''", "'"));
    }
    let number = expression.trim_start_matches('(').trim_end_matches(')');
    let is_number = number.parse::<f64>().is_ok_and(f64::is_finite);
    let is_truth = ["true", "false"].iter().any(|word| expression.eq_ignore_ascii_case(word));
    (is_number || is_truth).then(|| number.to_ascii_lowercase())
}

/// A mismatch for a NOT NULL column that has neither a field nor a default.
fn unfilled_column(schema: &Schema, column: &Column) -> Option<Mismatch> {
    let known = schema.fields.iter().any(|field| field.column == column.name);
    if known || !column.not_null || column.has_default || column.is_identity {
        return None;
    }
    let message =
        format!("the column `{}` is NOT NULL without a default, and no field fills it", column.name);
    let help =
        format!("a DEFAULT for it, or a field of the model bound with .column(\"…\", \"{}\")", column.name);
    Some(Mismatch::new(None, message).with_help(help))
}

/// A mismatch for a declared index that the table lacks. A missing unique index is an error; a missing index for speed is
/// not.
fn missing_index<D: Dialect>(schema: &Schema, index: &Index, found: &[TableIndex]) -> Option<Mismatch> {
    let columns: Vec<_> = index.fields.iter().map(|field| schema.fields[*field].column.as_str()).collect();
    // A unique constraint on a subset of the columns implies uniqueness of all of them.
    let covers = |other: &&TableIndex| {
        other.unique && other.columns.iter().all(|column| columns.contains(&column.as_str()))
    };
    let leads = |other: &&TableIndex| {
        other.columns.len() >= columns.len()
            && other.columns.iter().zip(&columns).all(|(one, other)| one == other)
    };
    let serves = |other: &&TableIndex| if index.unique { covers(other) } else { leads(other) };
    let mut candidates = found.iter().filter(serves).peekable();
    let limitation = candidates.peek().map(|one| format!(": the index `{}` {}", one.name, one.limitation));
    if candidates.any(|one| one.limitation.is_empty()) {
        return None;
    }
    let column_list = format!("`{}`", columns.join("`, `"));
    let table = &schema.table;
    let limitation = limitation.unwrap_or_default();
    let message = if index.unique {
        format!("nothing makes {column_list} unique in the table `{table}`{limitation}")
    } else {
        format!("the table `{table}` has no index on {column_list}{limitation}")
    };
    let field = index.fields.first().map(|field| schema.fields[*field].name.as_str());
    let help = create_index::<D>(schema, index, &index_name(schema, index));
    let mismatch = Mismatch::new(field, message).with_help(help);
    Some(if index.unique { mismatch } else { mismatch.as_warning() })
}

/// A name as a quoted identifier.
pub(crate) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A table's name as a quoted identifier, qualified by its database schema if it has one.
pub(crate) fn quoted_table(name: &str) -> String {
    name.splitn(2, '.').map(quoted).collect::<Vec<_>>().join(".")
}
