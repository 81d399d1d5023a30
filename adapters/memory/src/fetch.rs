//! Runs a query on one snapshot.

use std::cmp::Ordering;

use resourceful_contract::{Filter, Position, Query, Rows, StorageError, Test, Total, Value};

use crate::state::State;
use crate::table::{Row, Table};
use crate::{filter, render};

pub(crate) fn fetch(state: &State, query: &Query, out: &mut Vec<u8>) -> Result<Rows, StorageError> {
    let table = state.table(&query.schema.table)?;
    let columns = filter::columns(&query.schema, table)?;
    let scan = Scan { state, table, columns: &columns, query };
    let (page, more) = scan.page()?;
    let mut rows = Rows::default();
    rows.len = page.len();
    rows.more = more;
    rows.first = page.first().map(|row| scan.sort_keys(row));
    rows.last = page.last().map(|row| scan.sort_keys(row));
    for (position, row) in page.iter().enumerate() {
        if position > 0 {
            out.push(b',');
        }
        render::write_fields(out, &query.schema, &columns, row, &query.fields);
        render::write_includes(out, state, &columns, row, &query.includes, query.fields.is_empty())?;
        out.push(b'}');
        if query.versions {
            rows.versions.push(render::row_version(&query.schema, &columns, row));
        }
        if !query.keys.is_empty() {
            rows.keys.push(query.keys.iter().map(|field| row[columns[*field]].clone()).collect());
        }
        if query.versions || !query.keys.is_empty() {
            rows.ends.push(out.len());
        }
    }
    if query.count.is_some() {
        rows.total = Some(Total { rows: scan.count()?, exact: true });
    }
    Ok(rows)
}

struct Scan<'a> {
    state: &'a State,
    table: &'a Table,
    columns: &'a [usize],
    query: &'a Query,
}

impl<'a> Scan<'a> {
    /// The rows of the page in the query's order, and whether there are more rows beyond it.
    fn page(&self) -> Result<(Vec<&'a Row>, bool), StorageError> {
        let limit = self.query.limit as usize;
        let (backwards, skip) = match &self.query.position {
            Position::Before(_) => (true, 0),
            Position::Offset(skip) => (false, usize::try_from(*skip).unwrap_or(usize::MAX)),
            Position::Start | Position::After(_) => (false, 0),
        };
        let mut page = match self.ordered_rows(backwards) {
            Some(rows) => {
                self.take_matching(rows, backwards, skip.saturating_add(limit).saturating_add(1))?
            }
            None => {
                let mut rows = self.take_matching(self.candidates(), backwards, usize::MAX)?;
                rows.sort_by(
                    |a, b| if backwards { self.compare_rows(b, a) } else { self.compare_rows(a, b) },
                );
                rows
            }
        };
        page.drain(..skip.min(page.len()));
        let more = page.len() > limit;
        page.truncate(limit);
        if backwards {
            page.reverse();
        }
        Ok((page, more))
    }

    fn count(&self) -> Result<u64, StorageError> {
        let mut count = 0;
        for row in self.candidates() {
            count += u64::from(self.matches(row)?);
        }
        Ok(count)
    }

    fn matches(&self, row: &Row) -> Result<bool, StorageError> {
        filter::matches(self.state, self.columns, row, &self.query.filter)
    }

    /// The first matching rows on the right side of the page's cursor.
    fn take_matching(
        &self,
        rows: impl Iterator<Item = &'a Row>,
        backwards: bool,
        max_rows: usize,
    ) -> Result<Vec<&'a Row>, StorageError> {
        let mut matched = Vec::new();
        for row in rows {
            let beyond = match &self.query.position {
                Position::After(cursor) | Position::Before(cursor) => {
                    let order = self.compare_to_cursor(row, cursor);
                    if backwards { order.is_lt() } else { order.is_gt() }
                }
                Position::Start | Position::Offset(_) => true,
            };
            if beyond && self.matches(row)? {
                matched.push(row);
                if matched.len() == max_rows {
                    break;
                }
            }
        }
        Ok(matched)
    }

    /// The rows from the page's cursor on, in the query's order or its reverse, if a B-tree provides that order.
    fn ordered_rows(&self, backwards: bool) -> Option<Box<dyn Iterator<Item = &'a Row> + 'a>> {
        if self.index_lookup().is_some() {
            return None;
        }
        let cursor = match &self.query.position {
            Position::After(cursor) | Position::Before(cursor) => Some(cursor),
            Position::Start | Position::Offset(_) => None,
        };
        let column = |field: usize| self.columns[field];
        let id = self.table.layout().id;
        match self.query.sort.as_slice() {
            [only, ..] if column(only.field) == id => {
                let from = cursor.and_then(|cursor| cursor.first());
                Some(if only.descending == backwards {
                    Box::new(self.table.ascending_from(from))
                } else {
                    Box::new(self.table.descending_from(from))
                })
            }
            [first, last] if column(last.field) == id && first.descending == last.descending => {
                let from = cursor.and_then(|cursor| Some([cursor.first()?, cursor.get(1)?]));
                self.table.rows_by_index(column(first.field), from, first.descending != backwards)
            }
            _ => None,
        }
    }

    /// The rows that may match: found by an index if the filter restricts it to values, otherwise all rows.
    fn candidates(&self) -> Box<dyn Iterator<Item = &'a Row> + 'a> {
        match self.index_lookup() {
            Some((column, values)) => {
                let table = self.table;
                Box::new(values.into_iter().flat_map(move |value| table.rows_with_value(column, value)))
            }
            None => Box::new(self.table.ascending_from(None)),
        }
    }

    /// An indexed column, and the only values of it that can match, without duplicates.
    fn index_lookup(&self) -> Option<(usize, Vec<&'a Value>)> {
        let equality = |filter: &'a Filter| {
            let (field, values) = match filter {
                Filter::Compare(field, Test::Eq(value)) => (*field, std::slice::from_ref(value)),
                Filter::Compare(field, Test::In(values)) => (*field, values.as_slice()),
                _ => return None,
            };
            let column = self.columns[field];
            let mut values: Vec<&'a Value> = values.iter().collect();
            values.sort_by(|one, other| one.compare(other));
            values.dedup_by(|one, other| one.compare(other).is_eq());
            self.table.is_indexed(column).then_some((column, values))
        };
        match &self.query.filter {
            Filter::All(filters) => filters.iter().find_map(equality),
            other => equality(other),
        }
    }

    fn sort_keys(&self, row: &Row) -> Vec<Value> {
        self.query.sort.iter().map(|key| row[self.columns[key.field]].clone()).collect()
    }

    fn compare_rows(&self, one: &Row, other: &Row) -> Ordering {
        self.compare(one, |field| &other[self.columns[field]])
    }

    fn compare_to_cursor(&self, row: &Row, cursor: &[Value]) -> Ordering {
        let mut cursor = cursor.iter();
        self.compare(row, |_| cursor.next().unwrap_or(&Value::Null))
    }

    fn compare<'b>(&self, row: &Row, mut other: impl FnMut(usize) -> &'b Value) -> Ordering {
        for key in &self.query.sort {
            let order = row[self.columns[key.field]].compare(other(key.field));
            if order.is_ne() {
                return if key.descending { order.reverse() } else { order };
            }
        }
        Ordering::Equal
    }
}
