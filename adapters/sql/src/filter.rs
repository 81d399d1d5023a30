//! Translates filters to SQL conditions.
//!
//! Conditions are three-valued in SQL and two-valued here. A comparison with null is null, which a WHERE, an AND
//! and an OR all treat as false; a NOT would turn it into null again, so a negation is written `IS NOT TRUE`.

use resourceful_contract::{FieldType, Filter, Schema, Test};
use sea_query::{Expr, IntoIden as _, Query};

use crate::args::Numbering;
use crate::column_overrides::Overrides;
use crate::dialect::Dialect;
use crate::select::{column, table};

/// Builds conditions on the rows of one alias, and numbers arguments in the order in which [`Shape`](crate::statement_shape::Shape)
/// lists them.
pub(crate) struct Conditions<'a, D> {
    numbering: &'a mut Numbering,
    /// Number of aliases used so far, so that no two are the same.
    aliases: &'a mut usize,
    overrides: &'a Overrides,
    dialect: std::marker::PhantomData<D>,
}

impl<'a, D: Dialect> Conditions<'a, D> {
    pub(crate) fn new(
        numbering: &'a mut Numbering,
        aliases: &'a mut usize,
        overrides: &'a Overrides,
    ) -> Self {
        Self { numbering, aliases, overrides, dialect: std::marker::PhantomData }
    }

    pub(crate) fn condition(&mut self, schema: &Schema, alias: &str, filter: &Filter) -> Expr {
        match filter {
            Filter::All(filters) => self.combine(schema, alias, filters, true),
            Filter::Any(filters) => self.combine(schema, alias, filters, false),
            Filter::Not(inner) => {
                let inner = self.condition(schema, alias, inner);
                D::template("($1) IS NOT TRUE", [inner])
            }
            Filter::Compare(field, test) => self.test_condition(schema, alias, *field, test),
            Filter::Related(by, inner) => {
                let link = &by.0;
                *self.aliases += 1;
                let target_alias = format!("r{}", self.aliases);
                let inner = self.condition(&link.target, &target_alias, inner);
                let mut related = Query::select();
                related
                    .expr(Expr::cust("1"))
                    .from_as(table(&link.target.table), target_alias.clone().into_iden())
                    .and_where(self.overrides.join_condition::<D>(link, schema, (alias, &target_alias)))
                    .and_where(inner);
                D::exists(related)
            }
            Filter::Search(fields, _) => {
                let tests: Vec<_> = fields
                    .iter()
                    .map(|field| {
                        let text = self.overrides.searchable::<D>(schema, alias, *field);
                        let (pattern, ascii_term) = (self.numbering.next(), self.numbering.next());
                        D::matches_search(text, pattern, ascii_term)
                    })
                    .collect();
                combine::<D>(tests, false)
            }
        }
    }

    fn combine(&mut self, schema: &Schema, alias: &str, filters: &[Filter], all: bool) -> Expr {
        let parts = filters.iter().map(|filter| self.condition(schema, alias, filter)).collect();
        combine::<D>(parts, all)
    }

    /// The next argument of the statement, in the form in which a field is compared with it.
    fn comparable_argument(&mut self, schema: &Schema, field: usize) -> Expr {
        let value = self.numbering.next();
        self.overrides.comparable_value::<D>(schema, field, value)
    }

    fn is_in(&mut self, column: Expr, schema: &Schema, field: usize, values: usize) -> Expr {
        let field_type = schema.fields[field].field_type;
        if !matches!(field_type, FieldType::Float | FieldType::Float32) {
            let list = self.numbering.next();
            return D::is_in(column, self.overrides.comparable_list::<D>(schema, field, list), field_type);
        }
        let tests = (0..values).map(|_| D::template("$1 = $2", [column.clone(), self.numbering.next()]));
        D::template("($1)", [combine::<D>(tests.collect(), false)])
    }

    fn test_condition(&mut self, schema: &Schema, alias: &str, field: usize, test: &Test) -> Expr {
        let searchable = self.overrides.searchable::<D>(schema, alias, field);
        let comparable = self.overrides.comparable::<D>(schema, alias, field);
        match test {
            Test::Eq(_) => D::template("$1 = $2", [comparable, self.comparable_argument(schema, field)]),
            Test::Ne(_) => {
                let same = D::is_not_distinct(comparable, self.comparable_argument(schema, field));
                D::template("NOT ($1)", [same])
            }
            Test::Gt(_) => D::template("$1 > $2", [comparable, self.comparable_argument(schema, field)]),
            Test::Gte(_) => D::template("$1 >= $2", [comparable, self.comparable_argument(schema, field)]),
            Test::Lt(_) => D::template("$1 < $2", [comparable, self.comparable_argument(schema, field)]),
            Test::Lte(_) => D::template("$1 <= $2", [comparable, self.comparable_argument(schema, field)]),
            Test::Between(..) => {
                let (from, to) =
                    (self.comparable_argument(schema, field), self.comparable_argument(schema, field));
                D::template("($1 >= $2 AND $3 <= $4)", [comparable.clone(), from, comparable, to])
            }
            Test::In(values) => self.is_in(comparable, schema, field, values.len()),
            Test::NotIn(values) => {
                let is_in = self.is_in(comparable, schema, field, values.len());
                D::template("($1) IS NOT TRUE", [is_in])
            }
            Test::Contains(_) => D::contains(searchable, self.numbering.next()),
            Test::Starts(_) => D::starts_with(searchable, self.numbering.next()),
            Test::Ends(_) => D::ends_with(searchable, self.numbering.next()),
            Test::IsNull(true) => D::template("$1 IS NULL", [column(schema, alias, field)]),
            Test::IsNull(false) => D::template("$1 IS NOT NULL", [column(schema, alias, field)]),
            Test::Has(_) | Test::Overlaps(_) => D::overlaps(searchable, self.numbering.next()),
        }
    }
}

/// The conjunction or disjunction of conditions; an empty conjunction holds for every row, an empty disjunction for none.
///
/// Joined in halves: a chain of a thousand conditions would be a tree a thousand levels deep, which SQLite refuses.
pub(crate) fn combine<D: Dialect>(mut parts: Vec<Expr>, all: bool) -> Expr {
    match parts.len() {
        0 => Expr::cust(if all { "1 = 1" } else { "1 = 0" }),
        1 => parts.remove(0),
        length => {
            let second = combine::<D>(parts.split_off(length / 2), all);
            let template = if all { "($1) AND ($2)" } else { "($1) OR ($2)" };
            D::template(template, [combine::<D>(parts, all), second])
        }
    }
}
