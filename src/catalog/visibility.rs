//! Visibility: the rows and fields of resources that one caller may read.

use super::entry::Entry;
use super::mask::Mask;
use super::row_filter::RowFilter;

/// One caller's visibility of one resource.
#[derive(Clone, Debug)]
pub(crate) struct Visibility {
    /// The readable rows; `None` where the caller may read none.
    pub(crate) rows: Option<RowFilter>,
    /// The subset of these rows that lists show.
    pub(crate) listed: Option<RowFilter>,
    pub(crate) mask: Mask,
}

/// One caller's visibility of the requested resource and of its related resources.
#[derive(Clone, Debug)]
pub(crate) struct Visibilities {
    pub(crate) resource: usize,
    pub(crate) requested: Visibility,
    pub(crate) related: Vec<(usize, Visibility)>,
}

impl Visibilities {
    /// Full visibility of one resource.
    pub(crate) fn unrestricted(entry: &Entry) -> Self {
        let all = Some(RowFilter::unrestricted());
        let requested = Visibility { rows: all.clone(), listed: all, mask: Mask::unrestricted() };
        Self { resource: entry.position, requested, related: Vec::new() }
    }

    /// Visibility of the requested resource.
    pub(crate) const fn requested(&self) -> &Visibility {
        &self.requested
    }

    /// Visibility of one resource; `None` where nothing may be seen, or where it was not determined in advance.
    pub(crate) fn of(&self, resource: usize) -> Option<&Visibility> {
        if resource == self.resource {
            return Some(&self.requested);
        }
        self.related.iter().find(|(position, _)| *position == resource).map(|(_, visibility)| visibility)
    }
}
