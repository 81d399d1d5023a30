//! Builds the SELECT statement of a query.

use std::collections::HashMap;
use std::marker::PhantomData;

use resourceful_contract::{
    Cardinality, Count, FieldType, Filter, Position, Query as Asked, Schema, Test, json,
};
use sea_query::{
    Expr, ExprTrait as _, IntoIden as _, JoinType, NullOrdering, Order, Query, SelectStatement, TableRef,
};

use super::query_cost;
use crate::args;
use crate::args::Numbering;
use crate::column_overrides::Overrides;
use crate::dialect::Dialect;
use crate::filter::Conditions;
use crate::include;
use crate::keyset;
use crate::plan::{IncludedRows, OutputField, Plan};

/// The alias of the queried table.
const TABLE_ALIAS: &str = "t";

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
pub(crate) fn build_plan<D: Dialect>(query: &Asked, overrides: &Overrides) -> Plan {
    let mut builder = Select::<D>::new(query, overrides);
    let condition = builder.condition();
    builder.add_filter(&condition);
    let fields = builder.outputs(&query.fields);
    let includes = builder.add_includes();
    let sort = query.sort.iter().map(|sort| builder.result_column(sort.field)).collect();
    let keys = query.keys.iter().map(|key| builder.result_column(*key)).collect();
    let versions = if query.versions { builder.version_outputs() } else { Vec::new() };
    let total = builder.add_total(&condition);
    let is_single_row = selects_single_row(query);
    if !is_single_row {
        builder.add_order();
        builder.add_limit();
    }
    let id = builder.columns.get(&query.schema.id).copied();
    let (text, values) = builder.statement.build(D::Builder::default());
    Plan {
        text: D::finish_sql(text).into(),
        arg_order: args::argument_order(&values),
        fields,
        includes,
        sort,
        keys,
        versions,
        id,
        total,
        cost: query_cost::estimate(query),
        is_single_row,
        schema: query.schema.clone(),
        links: crate::statement_shape::query_links(query),
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
    column_count: usize,
    dialect: PhantomData<D>,
}

impl<'a, D: Dialect> Select<'a, D> {
    fn new(query: &'a Asked, overrides: &'a Overrides) -> Self {
        let mut statement = Query::select();
        statement.from_as(table(&query.schema.table), TABLE_ALIAS.into_iden());
        Self {
            query,
            overrides,
            statement,
            numbering: Numbering::default(),
            aliases: 0,
            columns: HashMap::new(),
            column_count: 0,
            dialect: PhantomData,
        }
    }

    fn condition(&mut self) -> Option<Expr> {
        let filter = &self.query.filter;
        if filter.is_everything() {
            return None;
        }
        let mut conditions = Conditions::<D>::new(&mut self.numbering, &mut self.aliases, self.overrides);
        Some(conditions.condition(&self.query.schema, TABLE_ALIAS, filter))
    }

    fn add_filter(&mut self, condition: &Option<Expr>) {
        if let Some(condition) = condition {
            self.statement.and_where(condition.clone());
        }
        if let Some(beyond) =
            keyset::beyond_cursor::<D>(self.query, TABLE_ALIAS, &mut self.numbering, self.overrides)
        {
            self.statement.and_where(beyond);
        }
    }

    /// Adds a column to the result and returns its position.
    fn add_column(&mut self, expr: Expr) -> usize {
        self.statement.expr(expr);
        self.column_count += 1;
        self.column_count - 1
    }

    /// The result column of a field, and its type.
    fn result_column(&mut self, field: usize) -> (usize, FieldType) {
        let field_type = self.query.schema.fields[field].field_type;
        if let Some(column) = self.columns.get(&field) {
            return (*column, field_type);
        }
        let added = self.add_column(column(&self.query.schema, TABLE_ALIAS, field));
        self.columns.insert(field, added);
        (added, field_type)
    }

    fn outputs(&mut self, fields: &[usize]) -> Vec<OutputField> {
        let mut outputs = Vec::with_capacity(fields.len());
        for (position, field) in fields.iter().enumerate() {
            let (column, field_type) = self.result_column(*field);
            let prefix = prefix(&self.query.schema, *field, position == 0);
            outputs.push(OutputField { prefix, column, field_type, field: *field });
        }
        outputs
    }

    fn add_includes(&mut self) -> Vec<IncludedRows> {
        let mut included = Vec::with_capacity(self.query.includes.len());
        for (position, asked) in self.query.includes.iter().enumerate() {
            let alias = format!("i{position}");
            let target = &asked.link.target;
            let first = position == 0 && self.query.fields.is_empty();
            let mut name = vec![if first { b'{' } else { b',' }];
            json::text(&mut name, &asked.link.name);
            name.push(b':');
            let mut conditions = Conditions::<D>::new(&mut self.numbering, &mut self.aliases, self.overrides);
            let condition = conditions.condition(target, &alias, &asked.filter);
            let related =
                self.overrides.join_condition::<D>(&asked.link, &self.query.schema, (TABLE_ALIAS, &alias));
            let join_condition = related.and(condition);
            included.push(match asked.link.cardinality {
                Cardinality::One => {
                    self.statement.join_as(
                        JoinType::LeftJoin,
                        table(&target.table),
                        alias.clone().into_iden(),
                        join_condition,
                    );
                    let marker = self.add_column(column(target, &alias, target.id));
                    let outputs = asked.fields.iter().enumerate().map(|(position, field)| OutputField {
                        prefix: prefix(target, *field, position == 0),
                        column: self.add_column(column(target, &alias, *field)),
                        field_type: target.fields[*field].field_type,
                        field: *field,
                    });
                    IncludedRows::One { name, marker, fields: outputs.collect(), target: target.clone() }
                }
                Cardinality::Many => {
                    let limit = self.numbering.next_number();
                    let rows = include::related_rows_subquery::<D>(asked, &alias, join_condition, limit);
                    let fields = output_fields(target, &asked.fields, 0);
                    IncludedRows::Many { name, column: self.add_column(rows), fields, target: target.clone() }
                }
            });
        }
        included
    }

    /// The columns that a row's version is made of: the counter's, or all.
    fn version_outputs(&mut self) -> Vec<OutputField> {
        match self.query.schema.version {
            Some(version) => self.outputs(&[version]),
            None => {
                let all: Vec<_> = (0..self.query.schema.fields.len()).collect();
                self.outputs(&all)
            }
        }
    }

    fn add_total(&mut self, condition: &Option<Expr>) -> Option<(usize, bool)> {
        let count = self.query.count?;
        if let (Count::Estimated, None, Some(estimate)) = (count, condition, D::estimate(&self.query.schema))
        {
            return Some((self.add_column(Expr::cust(estimate)), false));
        }
        let mut counted = Query::select();
        counted
            .expr(Expr::cust("count(*)"))
            .from_as(table(&self.query.schema.table), TABLE_ALIAS.into_iden());
        if let Some(condition) = condition {
            // The same alias inside a subquery refers to the subquery's rows.
            counted.and_where(condition.clone());
        }
        let expr = Expr::SubQuery(None, Box::new(counted.into()));
        Some((self.add_column(expr), true))
    }

    fn add_order(&mut self) {
        let backwards = matches!(self.query.position, Position::Before(_));
        for sort in &self.query.sort {
            let field = &self.query.schema.fields[sort.field];
            let by = self.overrides.comparable::<D>(&self.query.schema, TABLE_ALIAS, sort.field);
            let descending = sort.descending != backwards;
            let order = if descending { Order::Desc } else { Order::Asc };
            if field.nullable && D::EXPLICIT_NULLS {
                let nulls = if descending { NullOrdering::First } else { NullOrdering::Last };
                self.statement.order_by_expr_with_nulls(by, order, nulls);
            } else {
                self.statement.order_by_expr(by, order);
            }
        }
    }

    fn add_limit(&mut self) {
        let limit = self.numbering.next_number();
        self.statement.limit(limit);
        if matches!(self.query.position, Position::Offset(_)) {
            let skip = self.numbering.next_number();
            self.statement.offset(skip);
        }
    }
}

/// Whether a query selects its row by the id, so that neither ORDER BY nor LIMIT is needed.
fn selects_single_row(query: &Asked) -> bool {
    let names = |filter: &Filter| matches!(filter, Filter::Compare(field, Test::Eq(id)) if *field == query.schema.id && !id.is_null());
    let has_id_test = match &query.filter {
        Filter::All(filters) => filters.iter().any(names),
        filter => names(filter),
    };
    has_id_test && matches!(query.position, Position::Start)
}

/// The bytes before a field's value in its JSON object.
fn prefix(schema: &Schema, field: usize, first: bool) -> Vec<u8> {
    let mut prefix = vec![if first { b'{' } else { b',' }];
    json::text(&mut prefix, &schema.fields[field].name);
    prefix.push(b':');
    prefix
}

/// The outputs of these fields, for a statement that returns them in this order from a column on.
pub(crate) fn output_fields(schema: &Schema, fields: &[usize], from: usize) -> Vec<OutputField> {
    fields
        .iter()
        .enumerate()
        .map(|(position, field)| OutputField {
            prefix: prefix(schema, *field, position == 0),
            column: from + position,
            field_type: schema.fields[*field].field_type,
            field: *field,
        })
        .collect()
}
