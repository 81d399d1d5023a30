//! A resource with validation, in memory.
//!
//! ```console
//! $ cargo run -p resourceful-examples --bin quickstart
//! $ curl -i localhost:3000/products --json '{"name": "Lamp", "price_cents": 4900}'   # 201
//! $ curl -i 'localhost:3000/products?name[starts]=la&sort=-price_cents' -g           # 200
//! $ curl -i localhost:3000/products --json '{"name": "", "price_cents": -1}'         # 422
//! $ curl -i 'localhost:3000/products?nmae=Lamp'                                      # 400
//! ```
//!
//! The last two responses are problems that name what is wrong: open `/docs` for all of the API.

use resourceful::prelude::*;

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, Validate)]
struct Product {
    id: Uuid,
    #[validate(length(min = 1, max = 120))]
    name: String,
    #[validate(range(min = 0))]
    price_cents: i64,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let products = define_resource::<Product>("products")
        .adapter(Memory::new().table("products"))
        .permissions(Permissions::all(anyone()))
        .index(["name"])
        .index(["price_cents"])
        .build()?;
    let port = std::env::var("PORT").unwrap_or_else(|_| "3000".to_owned());
    create_app(AppPreset::Development).resource(products).serve(format!("127.0.0.1:{port}")).await?;
    Ok(())
}
