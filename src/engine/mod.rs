//! The one path to the data: every door calls these operations, and each begins with the permission.

mod catalog;
mod create;
mod delete;
mod include;
mod item;
mod list;
mod load;
mod read;
mod related;
mod replace;
mod update;

use std::sync::Arc;

use resourceful_contract::{Value, Version};

use crate::access::{Actor, Decision};
use crate::error::{Error, ErrorKind};
use crate::query::{CursorKey, Reader};
use crate::resource::{Definition, Operation};

pub(crate) use catalog::{Catalog, Entry, LinkedRelation};
pub(crate) use list::{Asked, Page};
pub use load::Loader;

/// Every resource of an application, and what their operations share.
#[derive(Debug)]
pub(crate) struct Engine {
    pub(crate) catalog: Catalog,
    pub(crate) cursors: CursorKey,
}

/// One call of an operation: on which resource, and who asks.
#[derive(Clone, Copy)]
pub(crate) struct Call<'a> {
    pub(crate) engine: &'a Engine,
    pub(crate) entry: &'a Arc<Entry>,
    pub(crate) actor: &'a Actor,
}

/// An item as an operation answers it.
#[derive(Debug)]
pub(crate) struct Item {
    pub(crate) json: Vec<u8>,
    pub(crate) version: Version,
    /// Which part of the item this is, where it is not the whole.
    pub(crate) part: Option<Part>,
}

/// Names a part of an item, for its ETag: the fields shown, and the content where it holds other items too.
#[derive(Debug)]
pub(crate) struct Part(pub(crate) [u8; 16]);

/// What became of a request to put an item somewhere.
#[derive(Debug)]
pub(crate) enum Put {
    Created(Item, Value),
    Changed(Item),
}

/// The versions that a caller expects an item to be in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Expected {
    /// Any, as long as there is an item.
    Any,
    /// One of these; none of them where the caller's tags were never ours.
    OneOf(Vec<Version>),
}

impl Expected {
    pub(crate) fn admits(&self, version: Version) -> bool {
        match self {
            Self::Any => true,
            Self::OneOf(versions) => versions.contains(&version),
        }
    }
}

impl<'a> Call<'a> {
    fn definition(&self) -> &'a Definition {
        &self.entry.definition
    }

    fn reader(&self) -> Reader<'a> {
        Reader { catalog: &self.engine.catalog, entry: self.entry, actor: self.actor }
    }

    /// Refuses what the caller may not do, before anything is read.
    pub(crate) fn authorize(&self, operation: Operation) -> Result<(), Error> {
        match self.definition().permission(operation).decide(self.actor) {
            Decision::Allow => Ok(()),
            Decision::Deny if self.actor.is_anonymous() => {
                Err(Error::new(ErrorKind::Unauthenticated, "unauthenticated", "This needs a credential."))
            }
            Decision::Deny => Err(Error::new(
                ErrorKind::Forbidden,
                "forbidden",
                format!("You may not {} {}.", operation.name(), self.definition().name()),
            )),
        }
    }

    /// Reads an id from a path; a malformed one names nothing, as an absent one does.
    fn id(&self, text: &str) -> Result<Value, Error> {
        let field_type = self.entry.schema.id_field().field_type;
        field_type.parse(text).map_err(|_| Error::not_found())
    }

    /// Refuses a change that names no version, where the resource requires one.
    fn require_expected(&self, expected: Option<&Expected>) -> Result<(), Error> {
        if self.definition().require_if_match && expected.is_none() {
            let detail = "Changes of this resource need If-Match with the item's ETag.";
            return Err(Error::new(ErrorKind::PreconditionRequired, "precondition-required", detail)
                .with_faults(vec![crate::error::Fault::header("If-Match", "required", detail)]));
        }
        Ok(())
    }
}
