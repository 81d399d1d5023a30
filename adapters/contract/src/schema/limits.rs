//! Size limits of indexed values.
//!
//! An index entry has limited space: PostgreSQL's B-tree takes 2,704 bytes (an error of code 54000 beyond), and what fits
//! depends on how well it compresses. So the limit follows from the declaration alone, by the worst case, and is the same on
//! every storage.

use super::{FieldType, Schema};
use crate::Value;

/// The maximum size of a text id in bytes. The id is part of paths, and of the entries of other indexes.
const ID_BYTES: usize = 512;

/// The space that the values of an entry share: 2,704 bytes without the entry's header, its null bitmap, and the padding to
/// the next multiple of eight.
const ENTRY_BYTES: usize = 2_680;

/// The header of a value of variable length, with the padding before it.
const HEADER_BYTES: usize = 8;

impl Schema {
    /// The maximum size of a field's value in bytes, as counted by [`Value::indexed_bytes`]; `None` if it is unlimited.
    ///
    /// A text id has at most 512 bytes. The other fields of variable length in one index share the space of its entries; for
    /// a field in several indexes, the smallest share applies.
    ///
    /// ```
    /// use resourceful_contract::{Field, FieldType, IdSource, Index, Schema};
    ///
    /// let fields = vec![Field::new("id", FieldType::Text), Field::new("name", FieldType::Text)];
    /// let mut schema = Schema::new("notes", "notes", fields, 0, IdSource::Client);
    /// assert_eq!((schema.max_bytes(0), schema.max_bytes(1)), (Some(512), None));
    /// schema.indexes = vec![Index { fields: vec![1], unique: true }];
    /// assert_eq!(schema.max_bytes(1), Some(2_672));
    /// ```
    #[must_use]
    pub fn max_bytes(&self, field: usize) -> Option<usize> {
        if !is_variable(self.fields[field].field_type) {
            return None;
        }
        if field == self.id {
            return Some(ID_BYTES);
        }
        self.indexes
            .iter()
            .filter(|index| index.fields.contains(&field))
            .map(|index| self.bytes_per_field(index))
            .min()
    }

    /// The space of an entry that each field of variable length may use.
    fn bytes_per_field(&self, index: &super::Index) -> usize {
        let mut remaining = ENTRY_BYTES;
        let mut variable_fields = 0;
        // A non-unique index ends with the id, as a tiebreaker of the sort order.
        let id = (!index.unique && !index.fields.contains(&self.id)).then_some(self.id);
        for field in index.fields.iter().copied().chain(id) {
            match self.fields[field].field_type {
                FieldType::Text if field == self.id => {
                    remaining = remaining.saturating_sub(ID_BYTES + HEADER_BYTES);
                }
                other if is_variable(other) => variable_fields += 1,
                FieldType::Decimal => remaining = remaining.saturating_sub(DECIMAL_BYTES),
                _ => remaining = remaining.saturating_sub(FIXED_BYTES),
            }
        }
        (remaining / variable_fields.max(1)).saturating_sub(HEADER_BYTES)
    }
}

/// The maximum size of a decimal of 28 digits, and of any other value of fixed length, with the padding before it.
const DECIMAL_BYTES: usize = 40;
const FIXED_BYTES: usize = 24;

const fn is_variable(field_type: FieldType) -> bool {
    matches!(field_type, FieldType::Text | FieldType::Array(_) | FieldType::Json)
}

impl Value {
    /// The size that counts against [`Schema::max_bytes`]: of a text its bytes in UTF-8; of an array the bytes of its
    /// elements with their headers; of an object eight times its length as JSON, since numbers that are short there take
    /// more space in an index.
    #[must_use]
    pub fn indexed_bytes(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::Array(items) => {
                let element = |item: &Self| match item {
                    Self::Text(text) => text.len() + HEADER_BYTES,
                    Self::Decimal(_) => DECIMAL_BYTES,
                    _ => FIXED_BYTES,
                };
                FIXED_BYTES + items.iter().map(element).sum::<usize>()
            }
            Self::Json(json) => json.to_string().len().saturating_mul(8),
            _ => 0,
        }
    }
}
