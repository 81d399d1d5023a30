//! Who may do what, on which rows, and who sees which fields.
//!
//! ```console
//! $ cargo run -p resourceful-examples --bin policies
//! $ curl -i localhost:3000/orders --json '{"total_cents": 900}'                                      # 401
//! $ curl -i localhost:3000/orders --json '{"total_cents": 900}' -H 'Authorization: Bearer ada'       # 201
//! $ curl -i localhost:3000/orders --json '{"total_cents": 500}' -H 'Authorization: Bearer bob'       # 201
//! $ curl -i localhost:3000/orders -H 'Authorization: Bearer ada'                                     # 200
//! $ curl -i 'localhost:3000/orders?note=x' -H 'Authorization: Bearer ada'                            # 400
//! $ curl -i localhost:3000/orders -H 'Authorization: Bearer auditor'                                 # 200
//! $ curl -i localhost:3000/orders --json '{"total_cents": 1}' -H 'Authorization: Bearer auditor'     # 403
//! ```
//!
//! Ada and Bob list their own order each, and the auditor both. `note` exists for staff only: for Ada it is an unknown
//! parameter, and in no response.

use resourceful::prelude::*;

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, Validate)]
struct Order {
    id: Uuid,
    customer_id: String,
    total_cents: i64,
    #[serde(default)]
    note: String,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let orders = define_resource::<Order>("orders")
        .adapter(Memory::new().table("orders"))
        // Operations: who may call them at all.
        .permissions(Permissions::read(signed_in()).write(role("customer")))
        // Rows: one's own, and all for auditors. Without a policy, there is no way around it: lists, counts, includes,
        // filters, streams and webhooks obey it alike.
        .preset(owned_by("customer_id").or(role("auditor")))
        // Fields: for those who do not see it, a field does not exist.
        .visible_to(["note"], role("auditor"))
        .filterable(["note"])
        .build()?;
    let tokens = BearerTokens::new()
        .token("ada", Actor::user("ada").with_role("customer"))
        .token("bob", Actor::user("bob").with_role("customer"))
        .token("auditor", Actor::user("eve").with_role("auditor"));
    let port = std::env::var("PORT").unwrap_or_else(|_| "3000".to_owned());
    create_app(AppPreset::Development)
        .resource(orders)
        .authenticator(tokens)
        .serve(format!("127.0.0.1:{port}"))
        .await?;
    Ok(())
}
