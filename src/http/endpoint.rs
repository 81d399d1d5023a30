//! The endpoints of a resource: one list from which both the routes and the specification are made.

use http::{HeaderName, HeaderValue, Method, StatusCode};

use crate::access::Operation;
use crate::resource::{ActionRef, Definition, Right, Target};

/// One method of one path of a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Endpoint {
    /// `GET /products`
    List,
    /// `QUERY /products` (RFC 10008)
    Query,
    /// `POST /products/query`, for clients that cannot send QUERY
    QueryPost,
    /// `POST /products`
    Create,
    /// `GET /products/{id}`
    Read,
    /// `PATCH /products/{id}`
    Update,
    /// `PUT /products/{id}`
    Replace,
    /// `DELETE /products/{id}`
    Delete,
    /// `GET /products/stream`
    Stream,
    /// `GET /products/{id}/history`
    History,
    /// `GET /products/{id}/children`
    Children,
    /// `GET /products/{id}/subtree`
    Subtree,
    /// `POST /products/bulk`
    BulkCreate,
    /// `PATCH /products/bulk`
    BulkUpdate,
    /// `DELETE /products/bulk`
    BulkDelete,
    /// `POST /products/{id}/{action}` or `POST /products/{action}`
    Action(ActionRef),
}

/// A path of a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Path {
    Collection,
    Query,
    Stream,
    Item,
    Bulk,
    History,
    Children,
    Subtree,
    Action(ActionRef),
}

/// The kind of body that a request carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Body {
    None,
    /// A query in its body form.
    Query,
    /// A new item.
    Create,
    /// A whole item.
    Replace,
    /// A merge patch.
    Update,
    /// New items.
    BulkCreate,
    /// Merge patches of items, or one and a filter.
    BulkUpdate,
    /// Ids of items, or a filter.
    BulkDelete,
    /// The input of an action.
    Action(ActionRef),
}

impl Endpoint {
    /// Every endpoint of a resource.
    pub(crate) fn of(definition: &Definition) -> impl Iterator<Item = Self> {
        let all = [
            Self::List,
            Self::Query,
            Self::QueryPost,
            Self::Create,
            Self::Read,
            Self::Update,
            Self::Replace,
            Self::Delete,
        ];
        let bulk = [Self::BulkCreate, Self::BulkUpdate, Self::BulkDelete].into_iter();
        let bulk = bulk.filter(|_| definition.bulk.is_some());
        let history = definition.audit.as_ref().map(|_| Self::History);
        let tree = definition.tree.map(|_| [Self::Children, Self::Subtree]).into_iter().flatten();
        let stream = definition.has_streams().then_some(Self::Stream);
        let all = all.into_iter().chain(stream).chain(bulk).chain(history).chain(tree);
        all.chain(actions(definition).map(Self::Action))
    }

    pub(crate) fn method(self) -> Method {
        match self {
            Self::List | Self::Stream | Self::Read | Self::History | Self::Children | Self::Subtree => {
                Method::GET
            }
            Self::Query => Method::from_bytes(b"QUERY").expect("QUERY is made of token characters"),
            Self::QueryPost | Self::Create | Self::BulkCreate | Self::Action(_) => Method::POST,
            Self::Update | Self::BulkUpdate => Method::PATCH,
            Self::Replace => Method::PUT,
            Self::Delete | Self::BulkDelete => Method::DELETE,
        }
    }

    pub(crate) const fn path(self) -> Path {
        match self {
            Self::List | Self::Query | Self::Create => Path::Collection,
            Self::QueryPost => Path::Query,
            Self::Stream => Path::Stream,
            Self::Read | Self::Update | Self::Replace | Self::Delete => Path::Item,
            Self::BulkCreate | Self::BulkUpdate | Self::BulkDelete => Path::Bulk,
            Self::History => Path::History,
            Self::Children => Path::Children,
            Self::Subtree => Path::Subtree,
            Self::Action(action) => Path::Action(action),
        }
    }

    /// The right that a caller needs.
    pub(crate) const fn right(self) -> Right {
        Right::Operation(match self {
            Self::List | Self::Query | Self::QueryPost | Self::Stream | Self::Children | Self::Subtree => {
                Operation::List
            }
            Self::Create | Self::BulkCreate => Operation::Create,
            Self::Read => Operation::Read,
            Self::Update | Self::BulkUpdate => Operation::Update,
            Self::Replace => Operation::Replace,
            Self::Delete | Self::BulkDelete => Operation::Delete,
            Self::History => return Right::History,
            Self::Action(action) => return Right::Action(action),
        })
    }

    pub(crate) const fn body(self) -> Body {
        match self {
            Self::List
            | Self::Stream
            | Self::Read
            | Self::Delete
            | Self::History
            | Self::Children
            | Self::Subtree => Body::None,
            Self::Query | Self::QueryPost => Body::Query,
            Self::Create => Body::Create,
            Self::Update => Body::Update,
            Self::Replace => Body::Replace,
            Self::BulkCreate => Body::BulkCreate,
            Self::BulkUpdate => Body::BulkUpdate,
            Self::BulkDelete => Body::BulkDelete,
            Self::Action(action) => Body::Action(action),
        }
    }

    /// The header that names the accepted media types of its body.
    pub(super) fn accept(self) -> Option<(HeaderName, HeaderValue)> {
        match self {
            // Its method is POST, whatever it means.
            Self::QueryPost => Body::Create.accept(),
            _ => self.body().accept(),
        }
    }

    /// The status of success; a PUT that creates has 201 instead.
    pub(crate) const fn success(self) -> StatusCode {
        match self {
            Self::Create | Self::BulkCreate => StatusCode::CREATED,
            Self::Delete => StatusCode::NO_CONTENT,
            _ => StatusCode::OK,
        }
    }

    /// Whether it changes anything.
    pub(crate) const fn is_write(self) -> bool {
        match self {
            Self::List
            | Self::Query
            | Self::QueryPost
            | Self::Stream
            | Self::Read
            | Self::History
            | Self::Children
            | Self::Subtree => false,
            Self::Create
            | Self::Update
            | Self::Replace
            | Self::Delete
            | Self::BulkCreate
            | Self::BulkUpdate
            | Self::BulkDelete
            | Self::Action(_) => true,
        }
    }

    /// Whether it is about one item, which may not exist.
    pub(crate) const fn has_item(self) -> bool {
        match self {
            Self::Read
            | Self::Update
            | Self::Replace
            | Self::Delete
            | Self::History
            | Self::Children
            | Self::Subtree => true,
            Self::Action(action) => matches!(action.target, Target::Item),
            _ => false,
        }
    }
}

fn actions(definition: &Definition) -> impl Iterator<Item = ActionRef> {
    let actions = definition.actions.iter().enumerate();
    actions.map(|(position, declared)| ActionRef { position, target: declared.action.target })
}

impl Path {
    /// Every path of a resource.
    pub(crate) fn of(definition: &Definition) -> impl Iterator<Item = Self> {
        let bulk = definition.bulk.map(|_| Self::Bulk);
        let stream = definition.has_streams().then_some(Self::Stream);
        let all = [Self::Collection, Self::Query, Self::Item].into_iter().chain(stream).chain(bulk);
        let history = definition.audit.as_ref().map(|_| Self::History);
        let tree = definition.tree.map(|_| [Self::Children, Self::Subtree]).into_iter().flatten();
        all.chain(history).chain(tree).chain(actions(definition).map(Self::Action))
    }

    /// The value of `Allow` for this path.
    pub(crate) fn allow(self, definition: &Definition) -> String {
        let mut methods: Vec<_> = Endpoint::of(definition)
            .filter(|endpoint| endpoint.path() == self)
            .map(|endpoint| endpoint.method().to_string())
            .collect();
        if methods.iter().any(|method| method == "GET") {
            methods.push("HEAD".to_owned());
        }
        methods.push("OPTIONS".to_owned());
        methods.sort();
        methods.join(", ")
    }

    /// The path of a definition under a prefix, as axum and OpenAPI both write it.
    pub(crate) fn template(self, prefix: &str, definition: &Definition) -> String {
        let name = definition.name();
        match self {
            Self::Collection => format!("{prefix}/{name}"),
            Self::Query => format!("{prefix}/{name}/query"),
            Self::Stream => format!("{prefix}/{name}/stream"),
            Self::Item => format!("{prefix}/{name}/{{id}}"),
            Self::Bulk => format!("{prefix}/{name}/bulk"),
            Self::History => format!("{prefix}/{name}/{{id}}/history"),
            Self::Children => format!("{prefix}/{name}/{{id}}/children"),
            Self::Subtree => format!("{prefix}/{name}/{{id}}/subtree"),
            Self::Action(ActionRef { position, target }) => {
                let action = &definition.actions[position].name;
                match target {
                    Target::Item => format!("{prefix}/{name}/{{id}}/{action}"),
                    Target::Collection => format!("{prefix}/{name}/{action}"),
                }
            }
        }
    }
}
