//! Builds the SELECT statement of a query.

use std::collections::HashMap;
use std::marker::PhantomData;

use resourceful_contract::{
    Cardinality, Count, FieldType, Filter, Position, Query as Asked, Schema, Test, json,
};
use sea_query::{
    Expr, ExprTrait as _, IntoIden as _, JoinType, NullOrdering, Order, Query, SelectStatement, TableRef,
};

use crate::args::{self, Numbering};
use crate::cost;
use crate::dialect::Dialect;
use crate::filter::Conditions;
use crate::include;
use crate::overrides::Overrides;
use crate::place;
use crate::plan::{Included, Output, Plan};

/// The alias of the queried table.
const ROW: &str = "t";

/// A table reference from a name, which may be qualified by a database schema and a dot.
pub(crate) fn table(name: &str) -> TableRef {
    use sea_query::IntoTableRef as _;
    match name.split_once('.') {
        Some((schema, table)) => (schema.to_owned(), table.to_owned()).into_table_ref(),
        None => name.to_owned().into_table_ref(),
    }
}

/// A field's column in the rows of an alias.
pub(crate) fn column(schema: &Schema, alias: &str, field: usize) -> Expr {
    Expr::col((alias.to_owned().into_iden(), schema.fields[field].column.clone().into_iden()))
}

/// Builds the statement of a query shape.
pub(crate) fn plan<D: Dialect>(query: &Asked, overrides: &Overrides) -> Plan {
    let mut builder = Select::<D>::new(query, overrides);
    let condition = builder.condition();
    builder.filter(&condition);
    let fields = builder.outputs(&query.fields);
    let includes = builder.includes();
    let sort = query.sort.iter().map(|sort| builder.shown(sort.field)).collect();
    let keys = query.keys.iter().map(|key| builder.shown(*key)).collect();
    let versions = if query.versions { builder.versions() } else { Vec::new() };
    let total = builder.total(&condition);
    let single = is_of_one_row(query);
    if !single {
        builder.order();
        builder.page();
    }
    let id = builder.columns.get(&query.schema.id).copied();
    let (text, values) = builder.statement.build(D::Builder::default());
    Plan {
        text: D::finished(text).into(),
        order: args::order(&values),
        fields,
        includes,
        sort,
        keys,
        versions,
        id,
        total,
        cost: cost::of(query),
        single,
        schema: query.schema.clone(),
        links: crate::shape::links(query),
    }
}

struct Select<'a, D> {
    query: &'a Asked,
    overrides: &'a Overrides,
    statement: SelectStatement,
    numbering: Numbering,
    aliases: usize,
    /// The result column of each field that has one.
    columns: HashMap<usize, usize>,
    width: usize,
    dialect: PhantomData<D>,
}

impl<'a, D: Dialect> Select<'a, D> {
    fn new(query: &'a Asked, overrides: &'a Overrides) -> Self {
        let mut statement = Query::select();
        statement.from_as(table(&query.schema.table), ROW.into_iden());
        Self {
            query,
            overrides,
            statement,
            numbering: Numbering::default(),
            aliases: 0,
            columns: HashMap::new(),
            width: 0,
            dialect: PhantomData,
        }
    }

    fn condition(&mut self) -> Option<Expr> {
        let filter = &self.query.filter;
        if filter.is_everything() {
            return None;
        }
        let mut conditions = Conditions::<D>::new(&mut self.numbering, &mut self.aliases, self.overrides);
        Some(conditions.of(&self.query.schema, ROW, filter))
    }

    fn filter(&mut self, condition: &Option<Expr>) {
        if let Some(condition) = condition {
            self.statement.and_where(condition.clone());
        }
        if let Some(beyond) = place::beyond::<D>(self.query, ROW, &mut self.numbering, self.overrides) {
            self.statement.and_where(beyond);
        }
    }

    /// Adds a column to the result and returns its position.
    fn add(&mut self, expr: Expr) -> usize {
        self.statement.expr(expr);
        self.width += 1;
        self.width - 1
    }

    /// The result column of a field, and its type.
    fn shown(&mut self, field: usize) -> (usize, FieldType) {
        let field_type = self.query.schema.fields[field].field_type;
        if let Some(column) = self.columns.get(&field) {
            return (*column, field_type);
        }
        let added = self.add(column(&self.query.schema, ROW, field));
        self.columns.insert(field, added);
        (added, field_type)
    }

    fn outputs(&mut self, fields: &[usize]) -> Vec<Output> {
        let mut outputs = Vec::with_capacity(fields.len());
        for (position, field) in fields.iter().enumerate() {
            let (column, field_type) = self.shown(*field);
            let prefix = prefix(&self.query.schema, *field, position == 0);
            outputs.push(Output { prefix, column, field_type, field: *field });
        }
        outputs
    }

    fn includes(&mut self) -> Vec<Included> {
        let mut included = Vec::with_capacity(self.query.includes.len());
        for (position, asked) in self.query.includes.iter().enumerate() {
            let alias = format!("i{position}");
            let target = &asked.link.target;
            let first = position == 0 && self.query.fields.is_empty();
            let mut name = vec![if first { b'{' } else { b',' }];
            json::text(&mut name, &asked.link.name);
            name.push(b':');
            let mut conditions = Conditions::<D>::new(&mut self.numbering, &mut self.aliases, self.overrides);
            let condition = conditions.of(target, &alias, &asked.filter);
            let related = self.overrides.related::<D>(&asked.link, &self.query.schema, (ROW, &alias));
            let joined = related.and(condition);
            included.push(match asked.link.cardinality {
                Cardinality::One => {
                    self.statement.join_as(
                        JoinType::LeftJoin,
                        table(&target.table),
                        alias.clone().into_iden(),
                        joined,
                    );
                    let marker = self.add(column(target, &alias, target.id));
                    let outputs = asked.fields.iter().enumerate().map(|(position, field)| Output {
                        prefix: prefix(target, *field, position == 0),
                        column: self.add(column(target, &alias, *field)),
                        field_type: target.fields[*field].field_type,
                        field: *field,
                    });
                    Included::One { name, marker, fields: outputs.collect(), target: target.clone() }
                }
                Cardinality::Many => {
                    let limit = self.numbering.next_number();
                    let rows = include::many::<D>(asked, &alias, joined, limit);
                    let fields = returned(target, &asked.fields, 0);
                    Included::Many { name, column: self.add(rows), fields, target: target.clone() }
                }
            });
        }
        included
    }

    /// The columns that a row's version is made of: the counter's, or all.
    fn versions(&mut self) -> Vec<Output> {
        match self.query.schema.version {
            Some(version) => self.outputs(&[version]),
            None => {
                let all: Vec<_> = (0..self.query.schema.fields.len()).collect();
                self.outputs(&all)
            }
        }
    }

    fn total(&mut self, condition: &Option<Expr>) -> Option<(usize, bool)> {
        let count = self.query.count?;
        if let (Count::Estimated, None, Some(estimate)) = (count, condition, D::estimate(&self.query.schema))
        {
            return Some((self.add(Expr::cust(estimate)), false));
        }
        let mut counted = Query::select();
        counted.expr(Expr::cust("count(*)")).from_as(table(&self.query.schema.table), ROW.into_iden());
        if let Some(condition) = condition {
            // The same alias inside a subquery refers to the subquery's rows.
            counted.and_where(condition.clone());
        }
        let expr = Expr::SubQuery(None, Box::new(counted.into()));
        Some((self.add(expr), true))
    }

    fn order(&mut self) {
        let backwards = matches!(self.query.position, Position::Before(_));
        for sort in &self.query.sort {
            let field = &self.query.schema.fields[sort.field];
            let by = self.overrides.comparable::<D>(&self.query.schema, ROW, sort.field);
            let descending = sort.descending != backwards;
            let order = if descending { Order::Desc } else { Order::Asc };
            if field.nullable && D::SAY_NULLS {
                let nulls = if descending { NullOrdering::First } else { NullOrdering::Last };
                self.statement.order_by_expr_with_nulls(by, order, nulls);
            } else {
                self.statement.order_by_expr(by, order);
            }
        }
    }

    fn page(&mut self) {
        let limit = self.numbering.next_number();
        self.statement.limit(limit);
        if matches!(self.query.position, Position::Offset(_)) {
            let skip = self.numbering.next_number();
            self.statement.offset(skip);
        }
    }
}

/// Whether a query selects its row by the id, so that neither ORDER BY nor LIMIT is needed.
fn is_of_one_row(query: &Asked) -> bool {
    let names = |filter: &Filter| matches!(filter, Filter::Compare(field, Test::Eq(id)) if *field == query.schema.id && !id.is_null());
    let named = match &query.filter {
        Filter::All(filters) => filters.iter().any(names),
        filter => names(filter),
    };
    named && matches!(query.position, Position::Start)
}

/// The bytes before a field's value in its JSON object.
fn prefix(schema: &Schema, field: usize, first: bool) -> Vec<u8> {
    let mut prefix = vec![if first { b'{' } else { b',' }];
    json::text(&mut prefix, &schema.fields[field].name);
    prefix.push(b':');
    prefix
}

/// The outputs of these fields, for a statement that returns them in this order from a column on.
pub(crate) fn returned(schema: &Schema, fields: &[usize], from: usize) -> Vec<Output> {
    fields
        .iter()
        .enumerate()
        .map(|(position, field)| Output {
            prefix: prefix(schema, *field, position == 0),
            column: from + position,
            field_type: schema.fields[*field].field_type,
            field: *field,
        })
        .collect()
}
