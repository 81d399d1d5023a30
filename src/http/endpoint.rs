//! What a resource answers: one list that the routes and the specification are both made of.

use http::{Method, StatusCode};

use crate::resource::{Definition, Operation};

/// One method of one path of a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Endpoint {
    /// `GET /products`
    List,
    /// `QUERY /products` (RFC 10008)
    Query,
    /// `POST /products/query`, for clients that cannot say QUERY
    QueryTwin,
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
}

/// Which path of a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Path {
    Collection,
    Query,
    Item,
}

/// What a request carries.
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
}

impl Endpoint {
    pub(crate) const ALL: [Self; 8] = [
        Self::List,
        Self::Query,
        Self::QueryTwin,
        Self::Create,
        Self::Read,
        Self::Update,
        Self::Replace,
        Self::Delete,
    ];

    pub(crate) fn method(self) -> Method {
        match self {
            Self::List | Self::Read => Method::GET,
            Self::Query => Method::from_bytes(b"QUERY").expect("QUERY is made of token characters"),
            Self::QueryTwin | Self::Create => Method::POST,
            Self::Update => Method::PATCH,
            Self::Replace => Method::PUT,
            Self::Delete => Method::DELETE,
        }
    }

    pub(crate) const fn path(self) -> Path {
        match self {
            Self::List | Self::Query | Self::Create => Path::Collection,
            Self::QueryTwin => Path::Query,
            Self::Read | Self::Update | Self::Replace | Self::Delete => Path::Item,
        }
    }

    /// The operation that the engine runs, and whose permission is needed.
    pub(crate) const fn operation(self) -> Operation {
        match self {
            Self::List | Self::Query | Self::QueryTwin => Operation::List,
            Self::Create => Operation::Create,
            Self::Read => Operation::Read,
            Self::Update => Operation::Update,
            Self::Replace => Operation::Replace,
            Self::Delete => Operation::Delete,
        }
    }

    pub(crate) const fn body(self) -> Body {
        match self {
            Self::List | Self::Read | Self::Delete => Body::None,
            Self::Query | Self::QueryTwin => Body::Query,
            Self::Create => Body::Create,
            Self::Update => Body::Update,
            Self::Replace => Body::Replace,
        }
    }

    /// The status of success; a PUT that creates says 201 instead.
    pub(crate) const fn success(self) -> StatusCode {
        match self {
            Self::Create => StatusCode::CREATED,
            Self::Delete => StatusCode::NO_CONTENT,
            _ => StatusCode::OK,
        }
    }

    /// The endpoint of a path that has this method.
    pub(crate) fn find(path: Path, method: &Method) -> Option<Self> {
        // HEAD is GET without the body (RFC 9110, 9.3.2).
        let method = if method == Method::HEAD { &Method::GET } else { method };
        Self::ALL.into_iter().find(|endpoint| endpoint.path() == path && endpoint.method() == *method)
    }
}

impl Path {
    pub(crate) const ALL: [Self; 3] = [Self::Collection, Self::Query, Self::Item];

    /// What stands in `Allow` for this path.
    pub(crate) fn allow(self) -> String {
        let mut methods: Vec<_> = Endpoint::ALL
            .into_iter()
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
            Self::Item => format!("{prefix}/{name}/{{id}}"),
        }
    }
}
