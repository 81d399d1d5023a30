//! The tree preset: items of one resource in a hierarchy.

use futures::future::BoxFuture;
use serde_json::{Map, Value as Json, json};

use crate::resource::Tree;
use crate::{Change, Error, ErrorKind, Fault, Hook, Operation, Preset, ResourceBuilder};

/// Makes a tree of a resource: a nullable field refers to an item's parent, in the same resource.
///
/// `GET /{id}/children` lists the direct children of an item, as any list; `GET /{id}/subtree` returns all its
/// descendants with their depth, as far as the caller may see them. No change makes an item its own descendant, on any
/// path and with any number of concurrent changes (409 `cycle`), or places it below the maximum depth (409 `too-deep`), and
/// an item with children is not deleted (409 `has-children`). These checks do not cover changes by hooks
/// ([`Change::update`] and similar methods) or loaded rows: the application must keep these consistent.
///
/// ```
/// use resourceful::prelude::*;
///
/// #[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, Validate)]
/// struct Category {
///     id: Uuid,
///     name: String,
///     parent_id: Option<Uuid>,
/// }
///
/// let categories = define_resource::<Category>("categories")
///     .adapter(Memory::new().table("categories"))
///     .permissions(Permissions::read(anyone()).write(role("editor")))
///     .preset(tree("parent_id").max_depth(8))
///     .build()?;
/// # let _ = categories;
/// # Ok::<(), DefinitionErrors>(())
/// ```
pub fn tree(parent: impl Into<String>) -> Tree {
    Tree::new(parent)
}

impl Preset for Tree {
    fn name(&self) -> &'static str {
        "tree"
    }

    fn apply(&self, resource: ResourceBuilder) -> ResourceBuilder {
        let validator = TreeValidator { parent: self.parent_field().to_owned(), max_depth: self.levels() };
        resource.tree(self.clone()).hook_last(validator)
    }
}

/// The hook that keeps the tree consistent: the ancestors of every item end at a root.
struct TreeValidator {
    parent: String,
    max_depth: u32,
}

impl Hook for TreeValidator {
    fn before<'a>(&'a self, change: &'a mut Change) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(async move {
            match change.operation() {
                Operation::Delete => self.check_no_children(change).await,
                _ => self.check_ancestors(change).await,
            }
        })
    }
}

impl TreeValidator {
    /// Refuses an item that would be its own descendant, or too deep.
    async fn check_ancestors(&self, change: &Change) -> Result<(), Error> {
        let above = |item: &Map<String, Json>| change.id_in(item, &self.parent);
        let Some(mut ancestor) = change.item().and_then(above) else { return Ok(()) };
        let (id, current) = (change.id(), change.current());
        if current.and_then(above).as_ref() == Some(&ancestor) {
            return Ok(());
        }
        if current.is_some() {
            // Two concurrent moves, each without a cycle by itself, could form one together.
            change.lock(&format!("tree of {}", change.resource())).await?;
        }
        for _ in 1..self.max_depth {
            if id.as_ref() == Some(&ancestor) {
                return Err(self.conflict("cycle", "This would put the item below itself."));
            }
            // A missing item is reported for the reference.
            let Some(item) = change.read(change.resource(), &ancestor).await? else { return Ok(()) };
            match above(&item) {
                Some(parent) => ancestor = parent,
                None => return Ok(()),
            }
        }
        let detail = format!("The tree has {} levels, and this would be below them.", self.max_depth);
        Err(self.conflict("too-deep", &detail))
    }

    /// Refuses to delete an item with children.
    async fn check_no_children(&self, change: &Change) -> Result<(), Error> {
        let Some(id) = change.current().and_then(|item| item.get(change.id_field())) else { return Ok(()) };
        let filter = json!({self.parent.as_str(): id});
        if change.list(change.resource(), filter.clone(), 1).await?.is_empty() {
            return Ok(());
        }
        if !change.lists(change.resource(), filter).await? {
            // The same error as for any foreign key: it does not reveal a child that the caller cannot read.
            let detail = "The item refers to one that is not there, or others still refer to it.";
            return Err(Error::new(ErrorKind::Conflict, "foreign-key", detail));
        }
        let detail = "Other items lie below this one: move or delete them before it.";
        Err(Error::new(ErrorKind::Conflict, "has-children", detail))
    }

    fn conflict(&self, code: &'static str, detail: &str) -> Error {
        let pointer = format!("/{}", self.parent.replace('~', "~0").replace('/', "~1"));
        let fault = Fault::pointer(pointer, code, detail);
        Error::new(ErrorKind::Conflict, code, detail.to_owned()).with_faults(vec![fault])
    }
}
