//! Code that runs around changes: a rule, a derived field, a change of another item in the same commit, and a reaction.
//!
//! ```console
//! $ cargo run -p resourceful-examples --bin hooks
//! $ curl -i localhost:3000/products/lamp -X PUT --json '{"id": "lamp", "stock": 3}'    # 201
//! $ curl -i localhost:3000/orders --json '{"product_id": "lamp", "count": 2}'          # 201
//! $ curl -i localhost:3000/products/lamp                                               # 200
//! $ curl -i localhost:3000/orders --json '{"product_id": "lamp", "count": 2}'          # 409
//! ```
//!
//! The order takes two of the three lamps: both rows change in one commit, or neither does. The second order is refused.

use resourceful::prelude::*;
use resourceful::{Change, Error, ErrorKind, Hook};

use futures::future::BoxFuture;

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, Validate)]
struct Product {
    id: String,
    #[validate(range(min = 0))]
    stock: i64,
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, Validate)]
struct Order {
    id: Uuid,
    product_id: String,
    #[validate(range(min = 1))]
    count: i64,
}

/// Takes what is ordered from the stock.
struct TakeFromStock;

impl Hook for TakeFromStock {
    fn before<'a>(&'a self, change: &'a mut Change) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(async move {
            if change.operation() != Operation::Create {
                return Ok(());
            }
            let Some(order) = change.item().cloned() else { return Ok(()) };
            let product = order["product_id"].as_str().unwrap_or_default().to_owned();
            // Two orders at once would both find the stock: the lock makes the second wait for the first.
            change.lock(&format!("stock of {product}")).await?;
            let Some(stock) = change.read("products", &product).await? else { return Ok(()) };
            let left = stock["stock"].as_i64().unwrap_or(0) - order["count"].as_i64().unwrap_or(0);
            if left < 0 {
                return Err(Error::new(ErrorKind::Conflict, "out-of-stock", "Not that many are left."));
            }
            change.update("products", product, serde_json::json!({"stock": left}));
            Ok(())
        })
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let memory = Memory::new();
    let products = define_resource::<Product>("products")
        .adapter(memory.table("products"))
        .permissions(Permissions::all(anyone()))
        .before([Operation::Create], |product: &mut Product, _: &mut Change| {
            product.id = product.id.trim().to_lowercase();
            Ok(())
        })
        .build()?;
    let orders = define_resource::<Order>("orders")
        .adapter(memory.table("orders"))
        .permissions(Permissions::all(anyone()))
        .relation(belongs_to("product", "products"))
        .hook(TakeFromStock)
        .after([Operation::Create], |order: Order, _: Change| async move {
            println!("ordered: {} of {}", order.count, order.product_id);
            Ok(())
        })
        .build()?;
    let port = std::env::var("PORT").unwrap_or_else(|_| "3000".to_owned());
    let app = create_app(AppPreset::Development).resource(products).resource(orders);
    app.serve(format!("127.0.0.1:{port}")).await?;
    Ok(())
}
