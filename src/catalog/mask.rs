//! Field masks: the fields that one caller may read and write.

use std::sync::Arc;

/// Field mask: the fields that one caller may read and write; all of them where the resource has no field rules.
#[derive(Clone, Debug)]
pub(crate) struct Mask(Option<Arc<FieldRestrictions>>);

/// The fields that a mask restricts.
#[derive(Debug, Default)]
pub(crate) struct FieldRestrictions {
    pub(crate) unreadable: Vec<usize>,
    /// Every field of `unreadable`, and those that the caller may read but not write.
    pub(crate) unwritable: Vec<usize>,
    pub(crate) redacted: Vec<(usize, Arc<str>)>,
}

impl Mask {
    /// No restriction.
    pub(crate) const fn unrestricted() -> Self {
        Self(None)
    }

    pub(crate) fn of(restricted: FieldRestrictions) -> Self {
        Self(Some(Arc::new(restricted)))
    }

    /// Whether the field exists for this caller at all.
    pub(crate) fn is_visible(&self, field: usize) -> bool {
        self.0.as_ref().is_none_or(|mask| !mask.unreadable.contains(&field))
    }

    /// Whether the field's value may be revealed, by a response or by which rows match and in which order.
    pub(crate) fn can_reveal(&self, field: usize) -> bool {
        self.is_visible(field)
            && self.0.as_ref().is_none_or(|mask| mask.redacted.iter().all(|(redacted, _)| *redacted != field))
    }

    /// Whether the caller may set the field; never true for a field that the caller does not see.
    pub(crate) fn can_write(&self, field: usize) -> bool {
        self.0.as_ref().is_none_or(|mask| !mask.unwritable.contains(&field))
    }

    /// The redacted fields, with their substitute values.
    pub(crate) fn redacted(&self) -> &[(usize, Arc<str>)] {
        self.0.as_ref().map_or(&[], |mask| &mask.redacted)
    }

    /// Whether this caller sees the actual value of every field.
    pub(crate) fn is_fully_readable(&self) -> bool {
        self.0.as_ref().is_none_or(|mask| mask.unreadable.is_empty() && mask.redacted.is_empty())
    }
}
