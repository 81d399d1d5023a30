//! A resource whose model is known only at run time: a JSON Schema, as it could come from a file or a form.
//!
//! ```console
//! $ cargo run -p resourceful-examples --bin dynamic
//! $ curl -i localhost:3000/tickets --json '{"title": "Broken lamp", "priority": 2}'   # 201
//! $ curl -i localhost:3000/tickets --json '{"title": "Broken lamp", "priority": 9}'   # 422
//! $ curl -i 'localhost:3000/tickets?priority[gte]=2' -g                               # 200
//! $ curl -i localhost:3000/openapi.json                                               # 200
//! ```

use resourceful::prelude::*;
use serde_json::json;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let schema = json!({
        "title": "Ticket",
        "type": "object",
        "required": ["id", "title"],
        "properties": {
            "id": {"type": "string", "format": "uuid"},
            "title": {"type": "string", "minLength": 1, "maxLength": 200},
            "priority": {"type": "integer", "minimum": 1, "maximum": 5, "default": 3},
            "due": {"type": ["string", "null"], "format": "date"},
        },
    });
    let tickets = define_dynamic_resource("tickets", schema)
        .adapter(Memory::new().table("tickets"))
        .permissions(Permissions::all(anyone()))
        .index(["priority"])
        .searchable(["title"])
        .build()?;
    let port = std::env::var("PORT").unwrap_or_else(|_| "3000".to_owned());
    create_app(AppPreset::Development).resource(tickets).serve(format!("127.0.0.1:{port}")).await?;
    Ok(())
}
