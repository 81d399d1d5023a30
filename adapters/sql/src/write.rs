//! The statements of changes.

use std::marker::PhantomData;
use std::sync::Arc;

use resourceful_contract::{Change, FieldType, Filter, Guard, IdSource, Link, Schema, Value, Version, Write};
use sea_query::{Expr, ExprTrait as _, IntoIden as _, Query, ReturningClause, UpdateStatement};

use crate::args::{self, Arg, Numbering};
use crate::dialect::Dialect;
use crate::filter::Conditions;
use crate::overrides::Overrides;
use crate::plan::{Output, Planned};
use crate::select::{returned, table};
use crate::shape::{self, Shape};

/// A change's statement, and where in its answer everything stands.
#[derive(Debug)]
pub(crate) struct Statement {
    pub(crate) text: Arc<str>,
    pub(crate) order: Vec<usize>,
    /// The columns of the version in the answer, after the id in the first column.
    pub(crate) versions: Vec<Output>,
    /// The fields of the row's JSON; empty where none was asked for.
    pub(crate) fields: Vec<Output>,
    #[expect(dead_code, reason = "held for its address, which names it in the shape")]
    schema: Arc<Schema>,
    #[expect(dead_code, reason = "held for their addresses, which name them in the shape")]
    others: Vec<Arc<Schema>>,
    #[expect(dead_code, reason = "held for their addresses, which name them in the shape")]
    links: Vec<Arc<Link>>,
}

impl Planned for Statement {
    fn bytes(&self) -> usize {
        let outputs = self.versions.len() + self.fields.len();
        self.text.len() + self.order.len() * size_of::<usize>() + outputs * size_of::<Output>()
    }
}

impl Statement {
    /// A statement of inserts into several tables, which answers ids alone.
    pub(crate) fn of_many(text: String, order: Vec<usize>, mut schemas: Vec<Arc<Schema>>) -> Self {
        let schema = schemas.swap_remove(0);
        let (versions, fields, links) = (Vec::new(), Vec::new(), Vec::new());
        Self { text: text.into(), order, versions, fields, schema, others: schemas, links }
    }
}

/// The value of a counter in a new row.
static FIRST: Value = Value::Integer(1);

/// Whether an insert leaves its id to the database.
pub(crate) fn mints(schema: &Schema, values: &[Value]) -> bool {
    schema.id_source == IdSource::Storage && values[schema.id].is_null()
}

/// The shape of one change, or of an insert of several rows at once.
pub(crate) fn shape<'a>(changes: &'a [Change]) -> Shape<'a> {
    let mut shape = Shape { bytes: Vec::with_capacity(64), args: Vec::with_capacity(16) };
    let Some(change) = changes.first() else {
        return shape;
    };
    let schema: &'a Schema = &change.schema;
    shape.address(Arc::as_ptr(&change.schema).addr());
    match &change.answer {
        None => shape.bytes.push(0),
        Some(fields) => {
            shape.bytes.push(1);
            shape.number(fields.len());
            fields.iter().for_each(|field| shape.number(*field));
        }
    }
    match &change.write {
        Write::Insert { values } => {
            let mints = mints(schema, values);
            shape.bytes.extend_from_slice(&[b'i', u8::from(mints)]);
            shape.number(changes.len());
            for change in changes {
                if let Write::Insert { values } = &change.write {
                    insert_args(schema, values, mints, &mut shape.args);
                }
            }
        }
        Write::Update { id, set, guard } => {
            shape.bytes.push(b'u');
            set_args(&mut shape, schema, set);
            guard_args(&mut shape, schema, id, guard);
        }
        Write::Delete { id, guard } => {
            shape.bytes.push(b'd');
            guard_args(&mut shape, schema, id, guard);
        }
        Write::UpdateAll { filter, set } => {
            shape.bytes.push(b'U');
            set_args(&mut shape, schema, set);
            shape.filter(schema, filter);
        }
        Write::DeleteAll { filter } => {
            shape.bytes.push(b'D');
            shape.filter(schema, filter);
        }
    }
    shape
}

fn insert_args<'a>(schema: &'a Schema, values: &'a [Value], mints: bool, args: &mut Vec<Arg<'a>>) {
    for (position, (value, field)) in values.iter().zip(&schema.fields).enumerate() {
        if !(mints && position == schema.id) {
            let is_first = schema.version == Some(position) && schema.first_version(values) == Some(1);
            let value = if is_first { &FIRST } else { value };
            args.push(Arg::One(field.field_type, value));
        }
    }
}

fn set_args<'a>(shape: &mut Shape<'a>, schema: &'a Schema, set: &'a [(usize, Value)]) {
    shape.number(set.len());
    for (field, value) in set {
        shape.number(*field);
        shape.args.push(Arg::One(schema.fields[*field].field_type, value));
    }
}

fn guard_args<'a>(shape: &mut Shape<'a>, schema: &'a Schema, id: &'a Value, guard: &'a Guard) {
    shape.args.push(Arg::One(schema.id_field().field_type, id));
    match counter(schema, guard) {
        Some(counter) => {
            shape.bytes.push(1);
            shape.args.push(Arg::Number(counter));
        }
        None => shape.bytes.push(0),
    }
    shape.filter(schema, &guard.filter);
}

/// The counter that a guard expects, where the row has one.
fn counter(schema: &Schema, guard: &Guard) -> Option<i64> {
    match (schema.version, guard.version) {
        (Some(_), Some(Version::Counter(counter))) => Some(counter),
        // A digest is never the version of a row that has a counter: nothing has this one.
        (Some(_), Some(Version::Digest(_))) => Some(0),
        _ => None,
    }
}

/// Whether the statement of these changes answers rows: what became of each of them.
pub(crate) fn answers(changes: &[Change]) -> bool {
    match &changes[0].write {
        Write::Insert { values } => {
            changes.len() == 1 || changes[0].answer.is_some() || mints(&changes[0].schema, values)
        }
        Write::Update { .. } => true,
        Write::Delete { .. } | Write::UpdateAll { .. } | Write::DeleteAll { .. } => false,
    }
}

/// Builds the statement of a shape.
pub(crate) fn statement<D: Dialect>(changes: &[Change], overrides: &Overrides) -> Statement {
    let change = changes.first().expect("a statement is built for at least one change");
    let mut builder =
        Builder::<D> { change, overrides, numbering: Numbering::default(), aliases: 0, dialect: PhantomData };
    let returning = answers(changes);
    let (text, values) = match &change.write {
        Write::Insert { values } => builder.insert(values, changes.len(), returning),
        Write::Update { set, guard, .. } => builder.update(set, guard),
        Write::Delete { guard, .. } => builder.delete(guard),
        Write::UpdateAll { filter, set } => builder.update_all(filter, set),
        Write::DeleteAll { filter } => builder.delete_all(filter),
    };
    let versions = if returning { builder.versions() } else { Vec::new() };
    let answer = change.answer.as_deref().filter(|_| returning).unwrap_or_default();
    let mut links = Vec::new();
    match &change.write {
        Write::Insert { .. } => {}
        Write::Update { guard, .. } | Write::Delete { guard, .. } => {
            shape::gather(&guard.filter, &mut links);
        }
        Write::UpdateAll { filter, .. } | Write::DeleteAll { filter } => shape::gather(filter, &mut links),
    }
    Statement {
        text: text.into(),
        order: args::order(&values),
        fields: returned(&change.schema, answer, 1 + versions.len()),
        versions,
        schema: change.schema.clone(),
        others: Vec::new(),
        links,
    }
}

struct Builder<'a, D> {
    change: &'a Change,
    overrides: &'a Overrides,
    numbering: Numbering,
    aliases: usize,
    dialect: PhantomData<D>,
}

type Built = (String, sea_query::Values);

impl<D: Dialect> Builder<'_, D> {
    fn insert(&mut self, values: &[Value], rows: usize, returning: bool) -> Built {
        let schema = &self.change.schema;
        let mints = mints(schema, values);
        let bound: Vec<_> =
            (0..schema.fields.len()).filter(|position| !(mints && *position == schema.id)).collect();
        // A value that the database generates has its number all the same, and no place in the statement.
        let kept = |field: &usize| !is_generated(schema, *field, self.overrides);
        let columns: Vec<_> = bound.iter().copied().filter(kept).collect();
        let mut statement = Query::insert();
        statement
            .into_table(table(&schema.table))
            .columns(columns.iter().map(|field| schema.fields[*field].column.clone().into_iden()));
        for _ in 0..rows {
            let numbered = bound.iter().map(|field| (field, self.numbering.next()));
            let row = numbered.filter(|(field, _)| !is_generated(schema, **field, self.overrides));
            let row: Vec<_> = row.map(|(_, number)| number).collect();
            if !row.is_empty() {
                statement.values_panic(row);
            }
        }
        if columns.is_empty() {
            statement.or_default_values();
        }
        if returning {
            statement.returning(self.returning());
        }
        let (text, values) = statement.build(D::Builder::default());
        let gives = schema.id_source == IdSource::Storage && !mints;
        (if gives { overriding(&text, D::OVERRIDING) } else { text }, values)
    }

    fn update(&mut self, set: &[(usize, Value)], guard: &Guard) -> Built {
        let mut statement = self.setting(set);
        statement.and_where(self.guard(guard));
        statement.returning(self.returning());
        statement.build(D::Builder::default())
    }

    fn update_all(&mut self, filter: &Filter, set: &[(usize, Value)]) -> Built {
        let mut statement = self.setting(set);
        statement.and_where(self.condition(filter));
        statement.build(D::Builder::default())
    }

    /// An update of these fields, and of the counter.
    fn setting(&mut self, set: &[(usize, Value)]) -> UpdateStatement {
        let schema = &self.change.schema;
        let mut statement = Query::update();
        statement.table(table(&schema.table));
        let name = |field: usize| schema.fields[field].column.clone().into_iden();
        let mut is_set = false;
        for (field, _) in set {
            let value = self.numbering.next();
            if !is_generated(schema, *field, self.overrides) {
                statement.value(name(*field), value);
                is_set = true;
            }
        }
        if let Some(version) = schema.version {
            statement.value(name(version), D::template("$1 + 1", [Expr::col(name(version))]));
        } else if !is_set {
            statement.value(name(schema.id), Expr::col(name(schema.id)));
        }
        statement
    }

    fn delete(&mut self, guard: &Guard) -> Built {
        let mut statement = Query::delete();
        statement.from_table(table(&self.change.schema.table));
        statement.and_where(self.guard(guard));
        statement.build(D::Builder::default())
    }

    fn delete_all(&mut self, filter: &Filter) -> Built {
        let mut statement = Query::delete();
        statement.from_table(table(&self.change.schema.table));
        statement.and_where(self.condition(filter));
        statement.build(D::Builder::default())
    }

    fn condition(&mut self, filter: &Filter) -> Expr {
        let schema = &self.change.schema;
        let alias = schema.table.rsplit('.').next().unwrap_or_default();
        Conditions::<D>::new(&mut self.numbering, &mut self.aliases, self.overrides).of(schema, alias, filter)
    }

    fn guard(&mut self, guard: &Guard) -> Expr {
        let schema = &self.change.schema;
        let name = |field: usize| Expr::col(schema.fields[field].column.clone().into_iden());
        let alias = schema.table.rsplit('.').next().unwrap_or_default();
        let id = self.overrides.comparable::<D>(schema, alias, schema.id);
        let given = self.overrides.value::<D>(schema, schema.id, self.numbering.next());
        let mut all = D::template("$1 = $2", [id, given]);
        if let (Some(version), Some(_)) = (schema.version, counter(schema, guard)) {
            all = all.and(D::template("$1 = $2", [name(version), self.numbering.next()]));
        }
        if guard.filter == Filter::everything() {
            return all;
        }
        all.and(self.condition(&guard.filter))
    }

    /// The fields that a row's version is read from.
    fn version_fields(&self) -> Vec<usize> {
        match self.change.schema.version {
            Some(version) => vec![version],
            None => (0..self.change.schema.fields.len()).collect(),
        }
    }

    fn versions(&self) -> Vec<Output> {
        returned(&self.change.schema, &self.version_fields(), 1)
    }

    /// The id, the columns of the version, and those of the answer.
    fn returning(&self) -> ReturningClause {
        let schema = &self.change.schema;
        let answer = self.change.answer.as_deref().unwrap_or_default();
        let fields = [schema.id].into_iter().chain(self.version_fields()).chain(answer.iter().copied());
        let columns = fields.map(|field| Expr::col(schema.fields[field].column.clone().into_iden()));
        Query::returning().exprs(columns)
    }
}

/// An insert with a clause before its values. What stands in quotes is a name.
fn overriding(insert: &str, clause: &str) -> String {
    let mut at = 0;
    for (number, part) in insert.split('"').enumerate() {
        if let Some(found) = part.find(" VALUES ").filter(|_| number % 2 == 0) {
            let (before, after) = insert.split_at(at + found);
            return format!("{before}{clause}{after}");
        }
        at += part.len() + 1;
    }
    insert.to_owned()
}

/// Whether the database computes a field's column. An id that it mints may be given all the same.
pub(crate) fn is_generated(schema: &Schema, field: usize, overrides: &Overrides) -> bool {
    field != schema.id && overrides.of(schema, field).generated
}

/// A reference's check: whether the row that it names is there.
pub(crate) fn lookup<D: Dialect>(
    reference: &resourceful_contract::Reference,
    overrides: &Overrides,
) -> Built {
    let mut numbering = Numbering::default();
    let mut statement = Query::select();
    let column = Expr::col(reference.column.clone().into_iden());
    let (column, value) = overrides.pair::<D>(&reference.table, &reference.column, column, numbering.next());
    statement
        .expr(Expr::cust("1"))
        .from(table(&reference.table))
        .and_where(D::template("$1 = $2", [column, value]));
    statement.build(D::Builder::default())
}

/// The type that a reference's value is bound as.
pub(crate) fn reference_type(schema: &Schema, reference: &resourceful_contract::Reference) -> FieldType {
    schema.fields[reference.field].field_type
}
