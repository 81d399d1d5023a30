//! The parts of a list request other than its filter: order, fields, includes, page.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use resourceful_contract::{Filter, Sort};

use super::list_parameters::Choices;
use super::{Deleted, ItemRequest, LAST_EVENT_ID, ListRequest, PagePosition, Reader, Selection};
use crate::catalog::LinkedRelation;
use crate::error::Fault;
use crate::nearest::suggest;

/// The most keys a sort may have.
const MAX_SORT_KEYS: usize = 8;
/// The maximum length of `q`, in characters.
const MAX_SEARCH_LENGTH: usize = 200;

/// The parameters of a list that this caller can use, apart from filters.
pub(super) fn list_parameters<'r>(reader: &Reader<'r>) -> Vec<&'r str> {
    let definition = &reader.entry.definition;
    let mut known = vec!["sort", "fields", "include", "limit", "after", "before"];
    known.extend(definition.offset_paging.then_some("page"));
    known.extend(reader.can_search().then_some("q"));
    known.extend(definition.deleted_at.is_some().then_some("deleted"));
    known.extend(definition.list_parameters.iter().map(|parameter| parameter.name.as_str()));
    known
}

/// The same for a stream.
pub(super) fn stream_parameters<'r>(reader: &Reader<'r>) -> Vec<&'r str> {
    let mut known = vec!["fields", LAST_EVENT_ID];
    known.extend(reader.can_search().then_some("q"));
    known.extend(reader.entry.definition.list_parameters.iter().map(|parameter| parameter.name.as_str()));
    known
}

/// The same for one item.
pub(super) fn item_parameters(reader: &Reader<'_>) -> Vec<&'static str> {
    let definition = &reader.entry.definition;
    let mut known = vec!["fields", "include"];
    known.extend(definition.audit.is_some().then_some("as_of"));
    known.extend(definition.deleted_at.is_some().then_some("deleted"));
    known
}

/// The fault of an unknown parameter, with the nearest known one.
pub(super) fn unknown_parameter<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Fault {
    let detail = suggest("There is no such parameter here.".to_owned(), name, known);
    Fault::parameter(name, "unknown", detail)
}

/// A list request under construction; each parameter is given at most once.
#[derive(Default)]
pub(super) struct RequestBuilder {
    sort: Option<Vec<Sort>>,
    fields: Option<Vec<usize>>,
    includes: Option<Vec<Arc<LinkedRelation>>>,
    limit: Option<u32>,
    position: Option<PagePosition>,
    search: Option<Filter>,
    deleted: Option<Deleted>,
    as_of: Option<DateTime<Utc>>,
    pub(super) choices: Choices,
}

impl RequestBuilder {
    pub(super) fn sort<'a>(
        &mut self,
        reader: &Reader<'_>,
        keys: impl Iterator<Item = &'a str>,
        name: &str,
    ) -> Result<(), Fault> {
        let mut sort: Vec<Sort> = Vec::new();
        for (position, key) in keys.enumerate() {
            if position == MAX_SORT_KEYS {
                let detail = format!("At most {MAX_SORT_KEYS} sort keys are read.");
                return Err(Fault::parameter(name, "limit", detail));
            }
            let (field, descending) = match key.strip_prefix('-') {
                Some(field) => (field, true),
                None => (key, false),
            };
            let position =
                reader.sortable(field).map_err(|detail| Fault::parameter(name, "unknown", detail))?;
            // A second key on the same field has no effect.
            if !sort.iter().any(|sort| sort.field == position) {
                sort.push(Sort { field: position, descending });
            }
        }
        self.sort = Some(sort);
        Ok(())
    }

    pub(super) fn fields<'a>(
        &mut self,
        reader: &Reader<'_>,
        names: impl Iterator<Item = &'a str>,
        name: &str,
    ) -> Result<(), Fault> {
        let mut fields = Vec::new();
        for field in names {
            fields.push(reader.visible(field).map_err(|detail| Fault::parameter(name, "unknown", detail))?);
        }
        if fields.is_empty() {
            return Err(Fault::parameter(name, "value", "Name one field at least."));
        }
        // In the schema's order, so that equal selections have one representation.
        fields.sort_unstable();
        fields.dedup();
        self.fields = Some(fields);
        Ok(())
    }

    pub(super) fn include<'a>(
        &mut self,
        reader: &Reader<'_>,
        names: impl Iterator<Item = &'a str>,
        name: &str,
    ) -> Result<(), Fault> {
        let mut includes: Vec<Arc<LinkedRelation>> = Vec::new();
        for relation in names {
            let found =
                reader.relation(relation).map_err(|detail| Fault::parameter(name, "unknown", detail))?;
            if !includes.iter().any(|included| Arc::ptr_eq(included, found)) {
                includes.push(found.clone());
            }
        }
        self.includes = Some(includes);
        Ok(())
    }

    /// A number above the resource's maximum is that maximum; zero, a negative or no number is a fault.
    pub(super) fn limit(&mut self, reader: &Reader<'_>, limit: Option<u64>, name: &str) -> Result<(), Fault> {
        let max = reader.entry.definition.max_limit;
        match limit {
            Some(limit @ 1..) => {
                self.limit = Some(u32::try_from(limit).map_or(max, |limit| limit.min(max)));
                Ok(())
            }
            _ => Err(Fault::parameter(name, "range", format!("Must be a whole number from 1 to {max}."))),
        }
    }

    pub(super) fn after(&mut self, cursor: &str, name: &str) -> Result<(), Fault> {
        self.set_position(PagePosition::After(cursor.to_owned()), name)
    }

    pub(super) fn before(&mut self, cursor: &str, name: &str) -> Result<(), Fault> {
        self.set_position(PagePosition::Before(cursor.to_owned()), name)
    }

    pub(super) fn page(&mut self, reader: &Reader<'_>, page: Option<u64>, name: &str) -> Result<(), Fault> {
        if !reader.entry.definition.offset_paging {
            return Err(unknown_parameter(name, list_parameters(reader)));
        }
        match page {
            // Above this, a database's integer could not hold the offset.
            Some(page @ 1..=0xffff_ffff) => self.set_position(PagePosition::Page(page), name),
            _ => Err(Fault::parameter(name, "range", "Must be a whole number from 1.")),
        }
    }

    fn set_position(&mut self, position: PagePosition, name: &str) -> Result<(), Fault> {
        if self.position.is_some() {
            return Err(Fault::parameter(
                name,
                "repeated",
                "Only one of `after`, `before` and `page` can be given, once.",
            ));
        }
        self.position = Some(position);
        Ok(())
    }

    /// Every word must occur in one of the searchable fields.
    pub(super) fn search(&mut self, reader: &Reader<'_>, text: &str, name: &str) -> Result<(), Fault> {
        let searchable = reader.entry.definition.searchable.iter().copied();
        let fields: Vec<_> = searchable.filter(|field| reader.can_reveal(*field)).collect();
        if fields.is_empty() {
            return Err(unknown_parameter(name, list_parameters(reader)));
        }
        let words: Vec<_> = text.split_whitespace().collect();
        if text.contains('\0') || words.is_empty() || text.chars().count() > MAX_SEARCH_LENGTH {
            let detail = format!("Must be one word or more, in at most {MAX_SEARCH_LENGTH} characters.");
            return Err(Fault::parameter(name, "value", detail));
        }
        let words = words.into_iter().map(|word| Filter::Search(fields.clone(), word.to_owned()));
        self.search = Some(Filter::All(words.collect()));
        Ok(())
    }

    pub(super) fn deleted(&mut self, reader: &Reader<'_>, value: &str, name: &str) -> Result<(), Fault> {
        if reader.entry.definition.deleted_at.is_none() {
            return Err(unknown_parameter(name, list_parameters(reader)));
        }
        let deleted = match value {
            "include" => Deleted::Include,
            "only" => Deleted::Only,
            _ => return Err(Fault::parameter(name, "value", "Must be `include` or `only`.")),
        };
        self.deleted = Some(deleted);
        Ok(())
    }

    pub(super) fn as_of(&mut self, value: &str, name: &str) -> Result<(), Fault> {
        let at = DateTime::parse_from_rfc3339(value).map_err(|_| {
            Fault::parameter(name, "value", "Must be a time (RFC 3339), such as 2026-01-31T12:00:00Z.")
        })?;
        self.as_of = Some(at.with_timezone(&Utc));
        Ok(())
    }

    pub(super) fn build_item(self) -> ItemRequest {
        ItemRequest { deleted: self.deleted, as_of: self.as_of, selection: self.selection() }
    }

    pub(super) fn selection(self) -> Selection {
        Selection { fields: self.fields, includes: self.includes.unwrap_or_default() }
    }

    /// The finished request, restricted by the declared list parameters.
    pub(super) fn finish_list(
        self,
        reader: &Reader<'_>,
        filter: Filter,
        faults: Vec<Fault>,
    ) -> Result<ListRequest, Vec<Fault>> {
        let filter = self.choices.restrict(reader, filter);
        self.build(reader, filter, faults)
    }

    /// The finished request, its order made total.
    pub(super) fn build(
        mut self,
        reader: &Reader<'_>,
        filter: Filter,
        faults: Vec<Fault>,
    ) -> Result<ListRequest, Vec<Fault>> {
        if !faults.is_empty() {
            return Err(faults);
        }
        let id = reader.entry.schema.id;
        let mut sort = self.sort.take().unwrap_or_default();
        if !sort.iter().any(|key| key.field == id) {
            // In the direction of the last key, so that one index serves both.
            let descending = sort.last().is_some_and(|key| key.descending);
            sort.push(Sort { field: id, descending });
        }
        Ok(ListRequest {
            filter: match self.search.take() {
                Some(search) => filter.and(search),
                None => filter,
            },
            sort,
            limit: self.limit.unwrap_or(reader.entry.definition.default_limit),
            position: self.position.take().unwrap_or(PagePosition::Start),
            count: None,
            is_in_body: false,
            deleted: self.deleted,
            selection: self.selection(),
        })
    }
}

impl Reader<'_> {
    fn can_search(&self) -> bool {
        self.entry.definition.searchable.iter().any(|field| self.can_reveal(*field))
    }

    fn sortable(&self, name: &str) -> Result<usize, String> {
        let is_legal =
            |position: usize| self.entry.definition.sortable[position] && self.can_reveal(position);
        let fields = &self.entry.schema.fields;
        self.entry.schema.position(name).filter(|position| is_legal(*position)).ok_or_else(|| {
            let known = fields.iter().enumerate().filter(|(position, _)| is_legal(*position));
            suggest(
                format!("`{name}` is not a field to sort by."),
                name,
                known.map(|(_, field)| field.name.as_str()),
            )
        })
    }

    fn visible(&self, name: &str) -> Result<usize, String> {
        let schema = &self.entry.schema;
        let is_legal = |position: usize| !schema.fields[position].hidden && self.is_visible(position);
        schema.position(name).filter(|position| is_legal(*position)).ok_or_else(|| {
            let known = schema.visible().filter(|position| self.is_visible(*position));
            suggest(
                format!("`{name}` is not a field."),
                name,
                known.map(|position| schema.fields[position].name.as_str()),
            )
        })
    }

    fn relation(&self, name: &str) -> Result<&Arc<LinkedRelation>, String> {
        let visible = |relation: &&Arc<LinkedRelation>| {
            self.can_follow(relation)
                && self.visibilities.of(relation.target).is_some_and(|visibility| visibility.rows.is_some())
        };
        let links = &self.entry.links;
        links.iter().filter(visible).find(|relation| relation.link.name == name).ok_or_else(|| {
            let known = links.iter().filter(visible).map(|relation| relation.link.name.as_str());
            suggest(format!("`{name}` is not a relation to include."), name, known)
        })
    }
}
