//! The query string form of a request.

use resourceful_contract::Filter;

use super::filter;
use super::filter::{FilterFault, MAX_DEPTH, MAX_NODES, Related};
use super::list_parameters::Choices;
use super::parameters;
use super::parameters::Parameter;
use super::select;
use super::select::RequestBuilder;
use super::{ItemRequest, ListRequest, Reader, StreamRequest};
use crate::error::Fault;
use crate::nearest::suggest;

/// The position after which a stream continues, for clients that cannot send the header.
pub(crate) const LAST_EVENT_ID: &str = "last_event_id";

pub(super) fn list(reader: &Reader<'_>, query: Option<&str>) -> Result<ListRequest, Vec<Fault>> {
    let mut builder = RequestBuilder::default();
    let mut filters = Filters::default();
    let mut faults = Vec::new();
    for parameter in parameters::read(query, &mut faults) {
        let name = parameter.name();
        let outcome = match name {
            "sort" => builder.sort(reader, parameter.items(), name),
            "fields" => builder.fields(reader, parameter.items(), name),
            "include" => builder.include(reader, parameter.items(), name),
            "limit" => parameter
                .single()
                .and_then(|value| builder.limit(reader, parameters::parse_whole_number(value), name)),
            "after" => parameter.single().and_then(|value| builder.after(value, name)),
            "before" => parameter.single().and_then(|value| builder.before(value, name)),
            "page" => parameter.single().and_then(|value| builder.page(reader, value.parse().ok(), name)),
            "q" => parameter.single().and_then(|value| builder.search(reader, value, name)),
            "deleted" => parameter.single().and_then(|value| builder.deleted(reader, value, name)),
            _ if Choices::has(reader, name) => {
                parameter.single().and_then(|value| builder.choices.choose(reader, name, value))
            }
            _ => add_comparison(reader, &parameter, select::list_parameters, &mut filters),
        };
        if let Err(fault) = outcome {
            faults.push(fault);
        }
    }
    builder.finish_list(reader, filters.into_filter(reader), faults)
}

/// Reads the query string of a stream: it takes the filters, `fields` and `q` of a list.
pub(super) fn stream(reader: &Reader<'_>, query: Option<&str>) -> Result<StreamRequest, Vec<Fault>> {
    const LIST_ONLY: [&str; 7] = ["sort", "include", "limit", "after", "before", "page", "deleted"];
    let mut builder = RequestBuilder::default();
    let mut filters = Filters::default();
    let mut faults = Vec::new();
    for parameter in parameters::read(query, &mut faults) {
        let name = parameter.name();
        let outcome = match name {
            "fields" => builder.fields(reader, parameter.items(), name),
            "q" => parameter.single().and_then(|value| builder.search(reader, value, name)),
            LAST_EVENT_ID => parameter.single().map(drop),
            _ if LIST_ONLY.contains(&name) => {
                Err(select::unknown_parameter(name, select::stream_parameters(reader)))
            }
            _ if Choices::has(reader, name) => {
                parameter.single().and_then(|value| builder.choices.choose(reader, name, value))
            }
            _ => add_comparison(reader, &parameter, select::stream_parameters, &mut filters),
        };
        if let Err(fault) = outcome {
            faults.push(fault);
        }
    }
    let request = builder.finish_list(reader, filters.into_filter(reader), faults)?;
    Ok(StreamRequest { filter: request.filter, fields: request.selection.fields })
}

pub(super) fn item(reader: &Reader<'_>, query: Option<&str>) -> Result<ItemRequest, Vec<Fault>> {
    let definition = &reader.entry.definition;
    let mut builder = RequestBuilder::default();
    let mut faults = Vec::new();
    for parameter in parameters::read(query, &mut faults) {
        let name = parameter.name();
        let outcome = match name {
            "fields" => builder.fields(reader, parameter.items(), name),
            "include" => builder.include(reader, parameter.items(), name),
            "as_of" if definition.audit.is_some() => {
                parameter.single().and_then(|value| builder.as_of(value, name))
            }
            "deleted" if definition.deleted_at.is_some() => {
                parameter.single().and_then(|value| builder.deleted(reader, value, name))
            }
            _ => Err(parameter.unknown_parameter(select::item_parameters(reader))),
        };
        if let Err(fault) = outcome {
            faults.push(fault);
        }
    }
    if faults.is_empty() { Ok(builder.build_item()) } else { Err(faults) }
}

/// Separates a relation from a field where all such parameters apply to one row behind the relation.
const ANY: &str = "[any].";

/// The comparisons of a query string: all of them must hold.
#[derive(Default)]
struct Filters {
    direct: Vec<Filter>,
    /// By relation: the comparisons that one related row fulfils together.
    related: Vec<(String, Vec<Filter>)>,
    count: usize,
}

impl Filters {
    fn into_filter(self, reader: &Reader<'_>) -> Filter {
        let mut all = self.direct;
        for (relation, filters) in self.related {
            all.extend(Related::of(reader, &relation).map(|related| related.matching(Filter::All(filters))));
        }
        Filter::All(all)
    }

    fn of(&mut self, relation: &str) -> &mut Vec<Filter> {
        let position = self.related.iter().position(|(name, _)| name == relation);
        let position = position.unwrap_or_else(|| {
            self.related.push((relation.to_owned(), Vec::new()));
            self.related.len() - 1
        });
        &mut self.related[position].1
    }
}

/// `price[gte]` = `10`, or `status` = `open`; `known` names the parameters beside the fields.
fn add_comparison(
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
    let refused = |refusal: FilterFault| Fault::parameter(name, refusal.code, refusal.detail);
    if let Some((relation, rest)) = name.split_once(ANY) {
        let related = Related::of(reader, relation);
        let related = related.ok_or_else(|| refused(filter::unknown_field(reader, relation)))?;
        let (path, operator) = split_operator(rest).ok_or_else(|| malformed_fault(name))?;
        let filter = filter::comparison(&related.reader, path, operator, &parameter.operand(), MAX_DEPTH - 1);
        filters.of(relation).push(filter.map_err(refused)?);
        return Ok(());
    }
    let (path, operator) = split_operator(name).ok_or_else(|| malformed_fault(name))?;
    if name.ends_with("[]") {
        return Err(parameter.unknown_parameter(known(reader)));
    }
    if !name.contains(['.', '[']) && reader.filterable(name).is_none() {
        let detail = format!("`{name}` is neither a parameter nor a field to filter by.");
        let known = known(reader).into_iter().chain(filter::filterable_names(reader));
        return Err(Fault::parameter(name, "unknown", suggest(detail, name, known)));
    }
    let filter =
        filter::comparison(reader, path, operator, &parameter.operand(), MAX_DEPTH).map_err(refused)?;
    filters.direct.push(filter);
    Ok(())
}

/// The field and the operator that a parameter names; equality where it names none.
fn split_operator(name: &str) -> Option<(&str, &str)> {
    match name.split_once('[') {
        None => Some((name, "eq")),
        Some((path, rest)) => rest.strip_suffix(']').map(|operator| (path, operator)),
    }
}

fn malformed_fault(name: &str) -> Fault {
    Fault::parameter(name, "syntax", "A filter with an operator is written `field[operator]=value`.")
}
