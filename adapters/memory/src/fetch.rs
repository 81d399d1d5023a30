//! Runs a query on one snapshot.

use std::cmp::Ordering;

use resourceful_contract::{Filter, Position, Query, Rows, StorageError, Test, Total, Value};

use crate::state::State;
use crate::table::{Row, Table};
use crate::{filter, render};

pub(crate) fn fetch(state: &State, query: &Query, out: &mut Vec<u8>) -> Result<Rows, StorageError> {
    let table = state.table(&query.schema.table)?;
    let columns = filter::columns(&query.schema, table)?;
    let search = Search { state, table, columns: &columns, query };
    let (page, more) = search.page()?;
    let mut rows = Rows::default();
    rows.len = page.len();
    rows.more = more;
    rows.first = page.first().map(|row| search.place(row));
    rows.last = page.last().map(|row| search.place(row));
    for (position, row) in page.iter().enumerate() {
        if position > 0 {
            out.push(b',');
        }
        render::open(out, &query.schema, &columns, row, &query.fields);
        render::includes(out, state, &columns, row, &query.includes, query.fields.is_empty())?;
        out.push(b'}');
        if query.versions {
            rows.versions.push(render::version(&query.schema, &columns, row));
        }
        if !query.keys.is_empty() {
            rows.keys.push(query.keys.iter().map(|field| row[columns[*field]].clone()).collect());
        }
        if query.versions || !query.keys.is_empty() {
            rows.ends.push(out.len());
        }
    }
    if query.count.is_some() {
        rows.total = Some(Total { rows: search.count()?, exact: true });
    }
    Ok(rows)
}

struct Search<'a> {
    state: &'a State,
    table: &'a Table,
    columns: &'a [usize],
    query: &'a Query,
}

impl<'a> Search<'a> {
    /// The rows of the page in the query's order, and whether there are more rows beyond it.
    fn page(&self) -> Result<(Vec<&'a Row>, bool), StorageError> {
        let limit = self.query.limit as usize;
        let (backwards, skip) = match &self.query.position {
            Position::Before(_) => (true, 0),
            Position::Offset(skip) => (false, usize::try_from(*skip).unwrap_or(usize::MAX)),
            Position::Start | Position::After(_) => (false, 0),
        };
        let mut page = match self.walk(backwards) {
            Some(rows) => self.take(rows, backwards, skip.saturating_add(limit).saturating_add(1))?,
            None => {
                let mut rows = self.take(self.candidates(), backwards, usize::MAX)?;
                rows.sort_by(|a, b| if backwards { self.order(b, a) } else { self.order(a, b) });
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
    fn take(
        &self,
        rows: impl Iterator<Item = &'a Row>,
        backwards: bool,
        most: usize,
    ) -> Result<Vec<&'a Row>, StorageError> {
        let mut taken = Vec::new();
        for row in rows {
            let beyond = match &self.query.position {
                Position::After(place) | Position::Before(place) => {
                    let order = self.against(row, place);
                    if backwards { order.is_lt() } else { order.is_gt() }
                }
                Position::Start | Position::Offset(_) => true,
            };
            if beyond && self.matches(row)? {
                taken.push(row);
                if taken.len() == most {
                    break;
                }
            }
        }
        Ok(taken)
    }

    /// The rows from the page's cursor on, in the query's order or its reverse, if a B-tree provides that order.
    fn walk(&self, backwards: bool) -> Option<Box<dyn Iterator<Item = &'a Row> + 'a>> {
        if self.narrowed().is_some() {
            return None;
        }
        let place = match &self.query.position {
            Position::After(place) | Position::Before(place) => Some(place),
            Position::Start | Position::Offset(_) => None,
        };
        let column = |field: usize| self.columns[field];
        let id = self.table.layout().id;
        match self.query.sort.as_slice() {
            [only, ..] if column(only.field) == id => {
                let from = place.and_then(|place| place.first());
                Some(if only.descending == backwards {
                    Box::new(self.table.from(from))
                } else {
                    Box::new(self.table.down_from(from))
                })
            }
            [first, last] if column(last.field) == id && first.descending == last.descending => {
                let from = place.and_then(|place| Some([place.first()?, place.get(1)?]));
                self.table.ordered(column(first.field), from, first.descending != backwards)
            }
            _ => None,
        }
    }

    /// The rows that may match: found by an index if the filter restricts it to values, otherwise all rows.
    fn candidates(&self) -> Box<dyn Iterator<Item = &'a Row> + 'a> {
        match self.narrowed() {
            Some((column, values)) => {
                let table = self.table;
                Box::new(values.into_iter().flat_map(move |value| table.equal(column, value)))
            }
            None => Box::new(self.table.from(None)),
        }
    }

    /// An indexed column, and the only values of it that can match, without duplicates.
    fn narrowed(&self) -> Option<(usize, Vec<&'a Value>)> {
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

    fn place(&self, row: &Row) -> Vec<Value> {
        self.query.sort.iter().map(|key| row[self.columns[key.field]].clone()).collect()
    }

    fn order(&self, one: &Row, other: &Row) -> Ordering {
        self.compare(one, |field| &other[self.columns[field]])
    }

    fn against(&self, row: &Row, place: &[Value]) -> Ordering {
        let mut place = place.iter();
        self.compare(row, |_| place.next().unwrap_or(&Value::Null))
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
