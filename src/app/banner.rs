//! What a developer reads at start: the address, the documentation page, and a request to try.

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};

use super::App;
use crate::access::Actor;
use crate::authz::permitted_operations;
use crate::http::{Endpoint, Path};

impl App {
    /// The text that `serve` prints in development.
    pub(super) async fn banner(&self, address: SocketAddr) -> String {
        let base = base_url(address);
        let mut text = format!("Listening on {base}\n");
        if self.development.has_docs {
            let _ = writeln!(text, "  documentation  {base}/docs");
        }
        let catalog = &self.state.engine.catalog;
        let permitted = permitted_operations(catalog, &Actor::anonymous()).await;
        let is_open = |rights: &[_]| rights.contains(&Endpoint::List.right());
        // One that needs no credential, if there is one.
        let entries = || catalog.entries().iter().zip(&permitted);
        let entry = entries().find(|(_, permitted)| is_open(&permitted.rights)).or_else(|| entries().next());
        if let Some((entry, permitted)) = entry {
            let path = Path::Collection.template(&self.state.prefix, &entry.definition);
            let credential =
                if is_open(&permitted.rights) { "" } else { " -H 'Authorization: Bearer TOKEN'" };
            let _ = writeln!(text, "  try            curl {base}{path}{credential}");
        }
        text
    }
}

/// The URL at which this machine reaches an address.
fn base_url(address: SocketAddr) -> String {
    let port = address.port();
    match address.ip() {
        ip if ip.is_unspecified() => format!("http://localhost:{port}"),
        IpAddr::V4(ip) => format!("http://{ip}:{port}"),
        IpAddr::V6(ip) => format!("http://[{ip}]:{port}"),
    }
}

#[cfg(test)]
mod tests {
    use crate::access::{Permissions, anyone, signed_in};
    use crate::app::{AppPreset, create_app};
    use crate::resource::{Resource, define_dynamic_resource};

    fn resource(name: &str, permissions: Permissions) -> Resource {
        let schema = serde_json::json!({
            "type": "object", "properties": {"id": {"type": "integer"}}, "required": ["id"],
        });
        define_dynamic_resource(name, schema)
            .adapter(resourceful_memory::Memory::new().table(name))
            .permissions(permissions)
            .build()
            .unwrap()
    }

    #[tokio::test]
    async fn greeting_names_a_request_that_needs_no_credential() {
        let app = create_app(AppPreset::Development)
            .prefix("/v1")
            .resource(resource("secrets", Permissions::all(signed_in())))
            .resource(resource("notes", Permissions::all(anyone())))
            .build()
            .await
            .unwrap();
        let banner = app.banner("0.0.0.0:3000".parse().unwrap()).await;
        let docs = if cfg!(feature = "docs") { "  documentation  http://localhost:3000/docs\n" } else { "" };
        assert_eq!(
            banner,
            format!(
                "Listening on http://localhost:3000\n{docs}  try            curl http://localhost:3000/v1/notes\n"
            )
        );
    }

    #[tokio::test]
    async fn greeting_shows_where_a_token_goes_if_every_resource_needs_one() {
        let app = create_app(AppPreset::Development)
            .docs(false)
            .resource(resource("secrets", Permissions::all(signed_in())))
            .build()
            .await
            .unwrap();
        assert_eq!(
            app.banner("[::1]:80".parse().unwrap()).await,
            "Listening on http://[::1]:80\n  try            curl http://[::1]:80/secrets -H 'Authorization: Bearer TOKEN'\n"
        );
    }
}
