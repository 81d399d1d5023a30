//! The query string form of a request.

use resourceful_contract::Filter;

use super::filter;
use super::filter::{MAX_DEPTH, MAX_NODES, Refusal, Related};
use super::list_parameters::Choices;
use super::parameters;
use super::parameters::Parameter;
use super::select;
use super::select::Draft;
use super::{ItemRequest, ListRequest, Reader, StreamRequest};
use crate::error::Fault;
use crate::nearest::suggest;

/// The position after which a stream continues, for clients that cannot send the header.
pub(crate) const LAST_EVENT_ID: &str = "last_event_id";

pub(super) fn list(reader: &Reader<'_>, query: Option<&str>) -> Result<ListRequest, Vec<Fault>> {
    let mut draft = Draft::default();
    let mut filters = Filters::default();
    let mut faults = Vec::new();
    for parameter in parameters::read(query, &mut faults) {
        let name = parameter.name();
        let outcome = match name {
            "sort" => draft.sort(reader, parameter.items(), name),
            "fields" => draft.fields(reader, parameter.items(), name),
            "include" => draft.include(reader, parameter.items(), name),
            "limit" => parameter
                .single()
                .and_then(|value| draft.limit(reader, parameters::whole_number(value), name)),
            "after" => parameter.single().and_then(|value| draft.after(value, name)),
            "before" => parameter.single().and_then(|value| draft.before(value, name)),
            "page" => parameter.single().and_then(|value| draft.page(reader, value.parse().ok(), name)),
            "q" => parameter.single().and_then(|value| draft.search(reader, value, name)),
            "deleted" => parameter.single().and_then(|value| draft.deleted(reader, value, name)),
            _ if Choices::has(reader, name) => {
                parameter.single().and_then(|value| draft.choices.choose(reader, name, value))
            }
            _ => comparison(reader, &parameter, select::of_list, &mut filters),
        };
        if let Err(fault) = outcome {
            faults.push(fault);
        }
    }
    draft.finish_list(reader, filters.joined(reader), faults)
}

/// Reads the query string of a stream: it takes the filters, `fields` and `q` of a list.
pub(super) fn stream(reader: &Reader<'_>, query: Option<&str>) -> Result<StreamRequest, Vec<Fault>> {
    const OF_LISTS: [&str; 7] = ["sort", "include", "limit", "after", "before", "page", "deleted"];
    let mut draft = Draft::default();
    let mut filters = Filters::default();
    let mut faults = Vec::new();
    for parameter in parameters::read(query, &mut faults) {
        let name = parameter.name();
        let outcome = match name {
            "fields" => draft.fields(reader, parameter.items(), name),
            "q" => parameter.single().and_then(|value| draft.search(reader, value, name)),
            LAST_EVENT_ID => parameter.single().map(drop),
            _ if OF_LISTS.contains(&name) => Err(select::unknown(name, select::of_stream(reader))),
            _ if Choices::has(reader, name) => {
                parameter.single().and_then(|value| draft.choices.choose(reader, name, value))
            }
            _ => comparison(reader, &parameter, select::of_stream, &mut filters),
        };
        if let Err(fault) = outcome {
            faults.push(fault);
        }
    }
    let request = draft.finish_list(reader, filters.joined(reader), faults)?;
    Ok(StreamRequest { filter: request.filter, fields: request.selection.fields })
}

pub(super) fn item(reader: &Reader<'_>, query: Option<&str>) -> Result<ItemRequest, Vec<Fault>> {
    let definition = &reader.entry.definition;
    let mut draft = Draft::default();
    let mut faults = Vec::new();
    for parameter in parameters::read(query, &mut faults) {
        let name = parameter.name();
        let outcome = match name {
            "fields" => draft.fields(reader, parameter.items(), name),
            "include" => draft.include(reader, parameter.items(), name),
            "as_of" if definition.audit.is_some() => {
                parameter.single().and_then(|value| draft.as_of(value, name))
            }
            "deleted" if definition.deleted_at.is_some() => {
                parameter.single().and_then(|value| draft.deleted(reader, value, name))
            }
            _ => Err(parameter.unknown(select::of_item(reader))),
        };
        if let Err(fault) = outcome {
            faults.push(fault);
        }
    }
    if faults.is_empty() { Ok(draft.item()) } else { Err(faults) }
}

/// Separates a relation from a field where all such parameters apply to one row behind the relation.
const ANY: &str = "[any].";

/// The comparisons of a query string: all of them must hold.
#[derive(Default)]
struct Filters {
    own: Vec<Filter>,
    /// By relation: the comparisons that one related row fulfils together.
    of_one_row: Vec<(String, Vec<Filter>)>,
    count: usize,
}

impl Filters {
    fn joined(self, reader: &Reader<'_>) -> Filter {
        let mut all = self.own;
        for (relation, filters) in self.of_one_row {
            all.extend(Related::of(reader, &relation).map(|related| related.with(Filter::All(filters))));
        }
        Filter::All(all)
    }

    fn of(&mut self, relation: &str) -> &mut Vec<Filter> {
        let position = self.of_one_row.iter().position(|(name, _)| name == relation);
        let position = position.unwrap_or_else(|| {
            self.of_one_row.push((relation.to_owned(), Vec::new()));
            self.of_one_row.len() - 1
        });
        &mut self.of_one_row[position].1
    }
}

/// `price[gte]` = `10`, or `status` = `open`; `known` names the parameters beside the fields.
fn comparison(
    reader: &Reader<'_>,
    parameter: &Parameter<'_>,
    known: for<'r> fn(&Reader<'r>) -> Vec<&'r str>,
    filters: &mut Filters,
) -> Result<(), Fault> {
    let name = parameter.name();
    if filters.count == MAX_NODES {
        return Err(Fault::parameter(name, "limit", filter::too_many_nodes()));
    }
    filters.count += 1;
    let refused = |refusal: Refusal| Fault::parameter(name, refusal.code, refusal.detail);
    if let Some((relation, rest)) = name.split_once(ANY) {
        let related = Related::of(reader, relation);
        let related = related.ok_or_else(|| refused(filter::unknown_field(reader, relation)))?;
        let (path, operator) = operator_of(rest).ok_or_else(|| malformed(name))?;
        let filter = filter::comparison(&related.reader, path, operator, &parameter.operand(), MAX_DEPTH - 1);
        filters.of(relation).push(filter.map_err(refused)?);
        return Ok(());
    }
    let (path, operator) = operator_of(name).ok_or_else(|| malformed(name))?;
    if name.ends_with("[]") {
        return Err(parameter.unknown(known(reader)));
    }
    if !name.contains(['.', '[']) && reader.filterable(name).is_none() {
        let detail = format!("`{name}` is neither a parameter nor a field to filter by.");
        let known = known(reader).into_iter().chain(filter::filterable_names(reader));
        return Err(Fault::parameter(name, "unknown", suggest(detail, name, known)));
    }
    let filter =
        filter::comparison(reader, path, operator, &parameter.operand(), MAX_DEPTH).map_err(refused)?;
    filters.own.push(filter);
    Ok(())
}

/// The field and the operator that a parameter names; equality where it names none.
fn operator_of(name: &str) -> Option<(&str, &str)> {
    match name.split_once('[') {
        None => Some((name, "eq")),
        Some((path, rest)) => rest.strip_suffix(']').map(|operator| (path, operator)),
    }
}

fn malformed(name: &str) -> Fault {
    Fault::parameter(name, "syntax", "A filter with an operator is written `field[operator]=value`.")
}
