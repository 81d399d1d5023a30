//! The documentation page at `/docs`: Swagger UI, from files embedded in the binary.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, Request};
use axum::response::{Html, IntoResponse as _, Response};
use axum::routing::get;
use http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE};
use http::{HeaderValue, StatusCode};
use utoipa_swagger_ui::Config;

use super::DOCS_PATHS;

/// Content security policy: the page loads only its own files and connects only to its own server. Swagger UI sets
/// styles inline and shows images from `data:` URLs.
const CONTENT_POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; \
     font-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
);

const STYLE: &str = include_str!("page.css");

/// The script that starts Swagger UI: the URL of the document is relative to the page, wherever the application is
/// nested.
const START_SCRIPT: &str = r##"window.addEventListener("load", () => {
  window.ui = SwaggerUIBundle({
    url: new URL("openapi.json", window.location.href.replace(/\/docs\/?([?#].*)?$/, "/")).href,
    dom_id: "#swagger-ui",
    deepLinking: true,
    displayRequestDuration: true,
    filter: true,
    tryItOutEnabled: true,
    persistAuthorization: true,
    defaultModelsExpandDepth: 0,
    docExpansion: "list",
    syntaxHighlight: { theme: "idea" },
    presets: [SwaggerUIBundle.presets.apis],
    layout: "BaseLayout",
  });
});
"##;

pub(super) fn routes(title: &str) -> Router {
    let page: Arc<str> = page(title).into();
    let files = Arc::new(Config::from("openapi.json"));
    Router::new()
        .route(
            DOCS_PATHS[0],
            get(move |_: Request| {
                let page = page.clone();
                async move { ([(CONTENT_SECURITY_POLICY, CONTENT_POLICY)], Html(page.to_string())) }
            }),
        )
        .route(
            DOCS_PATHS[1],
            get(move |Path(file): Path<String>| {
                let files = files.clone();
                async move { asset(&file, files) }
            }),
        )
}

fn page(title: &str) -> String {
    let title = title.replace('&', "&amp;").replace('<', "&lt;");
    // Relative URLs: the page works wherever the application is nested.
    format!(
        r#"<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<link rel="icon" href="docs/favicon-32x32.png">
<link rel="stylesheet" href="docs/swagger-ui.css">
<link rel="stylesheet" href="docs/page.css">
</head>
<body>
<noscript>This page needs JavaScript; the document it shows is <a href="openapi.json">openapi.json</a>.</noscript>
<div id="swagger-ui"></div>
<script src="docs/swagger-ui-bundle.js"></script>
<script src="docs/start.js"></script>
</body>
</html>
"#
    )
}

fn asset(file: &str, config: Arc<Config<'static>>) -> Response {
    let own = |text: &'static str, media_type: &'static str| {
        ([(CONTENT_TYPE, media_type), (CACHE_CONTROL, "public, max-age=3600")], text).into_response()
    };
    match file {
        "page.css" => return own(STYLE, "text/css"),
        "start.js" => return own(START_SCRIPT, "text/javascript"),
        _ => {}
    }
    match utoipa_swagger_ui::serve(file, config) {
        Ok(Some(found)) => {
            let mut response = Response::new(Body::from(found.bytes.into_owned()));
            let headers = response.headers_mut();
            if let Ok(media_type) = HeaderValue::from_str(&found.content_type) {
                headers.insert(CONTENT_TYPE, media_type);
            }
            headers.insert(CACHE_CONTROL, HeaderValue::from_static("public, max-age=3600"));
            response
        }
        _ => StatusCode::NOT_FOUND.into_response(),
    }
}
