//! Reads PostgreSQL's catalog.

use resourceful_contract::{FieldType, ScalarType};

use crate::catalog::Column;
use crate::column_overrides::ColumnOverride;
use crate::dialect::TypeMismatch;

/// The table that the first argument names, optionally qualified by a schema and a dot.
macro_rules! table {
    () => {
        "to_regclass(CASE WHEN strpos($1, '.') > 0 \
           THEN quote_ident(split_part($1, '.', 1)) || '.' || quote_ident(substr($1, strpos($1, '.') + 1)) \
           ELSE quote_ident($1) END)"
    };
}

/// A domain resolves to its base type, and its constraints apply to the column as well.
pub(super) const COLUMNS: &str = concat!(
    "SELECT a.attname::text, b.typname::text, format_type(a.atttypid, a.atttypmod), \
     CASE WHEN a.attnotnull OR b.not_null THEN 'yes' ELSE 'no' END, \
     CASE WHEN a.atthasdef OR a.attidentity <> '' OR a.attgenerated <> '' OR b.has_default \
       THEN 'yes' ELSE 'no' END, \
     CASE WHEN a.attidentity = 'a' OR a.attgenerated <> '' THEN 'yes' ELSE 'no' END, \
     CASE WHEN a.attidentity <> '' OR pg_get_expr(d.adbin, d.adrelid) LIKE '%(%' THEN 'yes' ELSE 'no' END, \
     '0', \
     CASE WHEN c.collisdeterministic THEN 'no' WHEN c.oid IS NULL THEN 'no' ELSE 'yes' END, \
     CASE WHEN c.oid IS NULL THEN '' ELSE (SELECT quote_ident(n.nspname) FROM pg_namespace n \
       WHERE n.oid = c.collnamespace) || '.' || quote_ident(c.collname) END, \
     coalesce(pg_get_expr(d.adbin, d.adrelid), '') \
     FROM pg_attribute a \
     JOIN LATERAL (WITH RECURSIVE base AS ( \
         SELECT t.typname, t.typtype, t.typbasetype, t.typnotnull AS not_null, \
           t.typdefault IS NOT NULL AS has_default FROM pg_type t WHERE t.oid = a.atttypid \
       UNION ALL \
         SELECT t.typname, t.typtype, t.typbasetype, t.typnotnull OR o.not_null, \
           t.typdefault IS NOT NULL OR o.has_default \
         FROM base o JOIN pg_type t ON t.oid = o.typbasetype WHERE o.typtype = 'd') \
       SELECT * FROM base WHERE typtype <> 'd') b ON true \
     LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum AND a.attgenerated = '' \
     LEFT JOIN pg_collation c ON c.oid = a.attcollation \
     WHERE a.attrelid = ",
    table!(),
    " AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum"
);

pub(super) const INDEXES: &str = concat!(
    "SELECT c.relname::text, coalesce(a.attname::text, ''), \
     CASE WHEN i.indisunique THEN 'yes' ELSE 'no' END, \
     CASE WHEN NOT i.indisvalid THEN 'is invalid: drop it' \
       WHEN i.indpred IS NOT NULL THEN 'is partial' \
       WHEN i.indexprs IS NOT NULL THEN 'is on an expression' \
       WHEN NOT i.indimmediate THEN 'is deferrable' \
       WHEN m.amname <> 'btree' THEN 'has no order' ELSE '' END \
     FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_am m ON m.oid = c.relam \
     CROSS JOIN LATERAL unnest(i.indkey::int2[]) WITH ORDINALITY AS k(attnum, place) \
     LEFT JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum AND k.attnum > 0 \
     WHERE k.place <= i.indnkeyatts AND i.indrelid = ",
    table!(),
    " ORDER BY i.indexrelid, k.place"
);

pub(super) const NAME_TAKEN: &str = concat!(
    "SELECT 1 FROM pg_class c WHERE c.relname = $2 AND c.relnamespace = \
     (SELECT t.relnamespace FROM pg_class t WHERE t.oid = ",
    table!(),
    ")"
);

pub(super) fn type_mismatch(column: &Column, field_type: FieldType) -> Option<TypeMismatch> {
    match column.type_name.as_str() {
        "name" if field_type == FieldType::Text => {
            Some(TypeMismatch::AltersValues("cuts text after 63 bytes"))
        }
        name => (!can_store(name, field_type)).then_some(TypeMismatch::Incompatible),
    }
}

fn can_store(name: &str, field_type: FieldType) -> bool {
    match field_type {
        FieldType::Boolean => name == "bool",
        FieldType::Integer => matches!(name, "int2" | "int4" | "int8"),
        FieldType::Float => name == "float8",
        FieldType::Float32 => matches!(name, "float4" | "float8"),
        FieldType::Decimal => name == "numeric",
        FieldType::Text => matches!(name, "text" | "varchar" | "bpchar" | "citext"),
        FieldType::Uuid => name == "uuid",
        FieldType::DateTime => matches!(name, "timestamptz" | "timestamp"),
        FieldType::Date => name == "date",
        FieldType::Array(element) => {
            name.strip_prefix('_').is_some_and(|name| can_store(name, element.into()))
        }
        _ => matches!(name, "jsonb" | "json"),
    }
}

pub(super) fn column_override(column: &Column, field_type: FieldType) -> ColumnOverride {
    let mut found = ColumnOverride { is_generated: column.is_generated, ..ColumnOverride::default() };
    match (field_type, column.type_name.as_str()) {
        // citext is sorted case-insensitively, but compared case-sensitively with a parameter of type text.
        (FieldType::Text, "citext") => {
            found.column = Some("$1::text COLLATE \"default\"");
            found.collation = Some(column.collation.as_str().into());
        }
        (FieldType::Text, name) => {
            found.collation = Some(column.collation.as_str().into());
            if column.is_nondeterministic {
                found.column = Some("$1 COLLATE \"default\"");
            }
            // char(n) is sorted without its padding; a parameter of type text that it is compared with keeps its own blanks.
            if name == "bpchar" {
                (found.value, found.list) = (Some("$1::bpchar"), Some("$1::bpchar[]"));
            }
        }
        // Arrays can be compared only with arrays of the very same type.
        (FieldType::Array(element), name) => found.column = array_cast(element, name.trim_start_matches('_')),
        _ => {}
    }
    found
}

/// The cast that makes an array of this element type comparable with a parameter's array.
fn array_cast(element: ScalarType, name: &str) -> Option<&'static str> {
    match (element, name) {
        (ScalarType::Text, "text")
        | (ScalarType::Integer, "int8")
        | (ScalarType::Float | ScalarType::Float32, "float8")
        | (ScalarType::DateTime, "timestamptz") => None,
        (ScalarType::Text, _) => Some("$1::text[]"),
        (ScalarType::Integer, _) => Some("$1::bigint[]"),
        (ScalarType::Float | ScalarType::Float32, _) => Some("$1::float8[]"),
        (ScalarType::DateTime, _) => Some("$1::timestamptz[]"),
        _ => None,
    }
}
