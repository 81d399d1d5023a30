//! Declared list parameters: compiled when the application is linked, chosen by a request.

use resourceful_contract::Filter;

use super::{Reader, trusted_filter};
use crate::catalog::{Catalog, ListFilters};
use crate::error::Fault;
use crate::resource::{DefinitionFault, Faults};

/// Compiles the filters of every resource's list parameters, and returns the faults of those that do not fit.
pub(crate) fn compile_list_parameters(catalog: &Catalog) -> Vec<DefinitionFault> {
    let mut all = Vec::new();
    for entry in catalog.entries() {
        let mut faults = Faults::of(entry.definition.name());
        let mut filters = Vec::with_capacity(entry.definition.list_parameters.len());
        for parameter in &entry.definition.list_parameters {
            let mut compile = |filter: &serde_json::Value| {
                trusted_filter(catalog, entry, filter).unwrap_or_else(|fault| {
                    let message = format!("a filter of the list parameter `{}`: {fault}", parameter.name);
                    faults.push(None, message, "correct the filter: it is over the fields of the stored row");
                    Filter::nothing()
                })
            };
            let default = parameter.default.as_ref().map(&mut compile);
            let values = parameter.values.iter().map(|(_, filter)| compile(filter)).collect();
            filters.push(ListFilters { default, values });
        }
        entry.set_list_filters(filters);
        all.extend(faults.into_faults());
    }
    all
}

/// The chosen value of each list parameter of a resource, by position.
#[derive(Debug, Default)]
pub(super) struct Choices(Vec<(usize, usize)>);

impl Choices {
    /// Whether a name is that of a list parameter of the resource.
    pub(super) fn has(reader: &Reader<'_>, name: &str) -> bool {
        reader.entry.definition.list_parameters.iter().any(|parameter| parameter.name == name)
    }

    /// Chooses a value.
    pub(super) fn choose(&mut self, reader: &Reader<'_>, name: &str, value: &str) -> Result<(), Fault> {
        let parameters = &reader.entry.definition.list_parameters;
        let Some(index) = parameters.iter().position(|parameter| parameter.name == name) else {
            return Err(Fault::parameter(name, "unknown", "There is no such parameter here."));
        };
        let values = &parameters[index].values;
        let Some(chosen) = values.iter().position(|(known, _)| known == value) else {
            let known: Vec<_> = values.iter().map(|(known, _)| format!("`{known}`")).collect();
            return Err(Fault::parameter(name, "value", format!("Must be one of {}.", known.join(", "))));
        };
        self.0.push((index, chosen));
        Ok(())
    }

    /// Restricts a list to the chosen values, and to the defaults of the other parameters.
    pub(super) fn restrict(&self, reader: &Reader<'_>, mut filter: Filter) -> Filter {
        for (index, filters) in reader.entry.list_filters().iter().enumerate() {
            let chosen = self.0.iter().find(|(parameter, _)| *parameter == index);
            let restriction = match chosen {
                Some((_, value)) => filters.values.get(*value),
                None => filters.default.as_ref(),
            };
            if let Some(restriction) = restriction.filter(|restriction| !restriction.is_everything()) {
                filter = filter.and(restriction.clone());
            }
        }
        filter
    }
}
