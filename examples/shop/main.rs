//! Shops of two tenants behind one API: who may do what, said once.
//!
//! ```console
//! $ cargo run --example shop
//! ```
//!
//! It prints tokens of several people and `curl` lines that show a wall between tenants, an ownership rule, a hidden
//! field, a service's scopes and raised rights. `PORT` moves it to another port, `DATABASE_URL` to another database
//! (`postgres://…`), and `SECRET` (32 bytes or more) lets tokens outlive a restart.

mod people;
mod resources;
mod seed;

use std::env;
use std::error::Error;

use resourceful::prelude::*;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    tracing_subscriber::fmt().with_max_level(tracing::Level::WARN).init();
    let url = env::var("DATABASE_URL").unwrap_or_else(|_| "sqlite://shop.db".to_owned());
    let database = Sql::connect(&url).await?;
    let secret =
        env::var("SECRET").unwrap_or_else(|_| format!("{}{}", Uuid::new_v4().simple(), Uuid::new_v4()));

    let app = resources::shop(|name| database.table(name).create_table_if_missing())?
        .authenticator(people::tokens(&secret))
        .secret(&secret)
        .build()
        .await?;
    if seed::load(&app).await? {
        println!("Two shops were opened.");
    }

    let port = env::var("PORT").unwrap_or_else(|_| "3000".to_owned());
    let base = format!("http://127.0.0.1:{port}");
    println!("The shop is at {base}, its documentation at {base}/docs. The tokens last for a day.\n");
    println!("  export SHOP={base}");
    for person in people::people() {
        println!("  export {}={}", person.variable, people::token(&person, &secret)?);
    }
    for (about, curl) in tour() {
        println!("\n{about}\n  {curl}");
    }
    println!();
    app.serve(format!("127.0.0.1:{port}")).await?;
    Ok(())
}

/// What there is to see, each with the status that it is answered with.
fn tour() -> Vec<(&'static str, String)> {
    let (adas, alans, graces) = (seed::ADAS_ORDER, seed::ALANS_ORDER, seed::GRACES_ORDER);
    let anvil = seed::ANVIL;
    let curl =
        |path: &str, token: &str| format!("curl -i \"$SHOP{path}\" -H \"Authorization: Bearer ${token}\"");
    vec![
        (
            "Acme's admin sees every order of Acme, with its lines (200):",
            curl("/orders?include=lines", "ACME_ADMIN"),
        ),
        (
            "The wall between tenants: an order of Globex is not there for Acme (404).",
            curl(&format!("/orders/{graces}"), "ACME_ADMIN"),
        ),
        (
            "Nor can a line be added to it: nobody can refer to what they do not see (409).",
            format!(
                "{} -H 'Content-Type: application/json' -d '{{\"order_id\":\"{graces}\",\"product_id\":\"{anvil}\",\"quantity\":1,\"price_cents\":1}}'",
                curl("/order_lines", "ACME_ADMIN")
            ),
        ),
        ("The owner of an order: a member sees the orders they took (200).", curl("/orders", "ACME_MEMBER")),
        (
            "What others took is not there (404).",
            format!(
                "{} -X PATCH -H 'Content-Type: application/merge-patch+json' -d '{{\"status\":\"paid\"}}'",
                curl(&format!("/orders/{adas}"), "ACME_MEMBER")
            ),
        ),
        (
            "Their own they see, and do not delete (403).",
            format!("{} -X DELETE", curl(&format!("/orders/{alans}"), "ACME_MEMBER")),
        ),
        (
            "A hidden field: what a product costs the shop is for its admin (200),",
            curl("/products?sort=-cost_cents", "ACME_ADMIN"),
        ),
        (
            "and for nobody else: not shown, and nothing to filter by (400).",
            curl("/products?cost_cents%5Bgt%5D=1", "ACME_MEMBER"),
        ),
        (
            "A service has its scopes: customers, without their addresses (200),",
            curl("/customers", "SERVICE"),
        ),
        ("and no orders (403).", curl("/orders", "SERVICE")),
        (
            "Carol's token names no tenant, so the request does (200),",
            format!("{} -H 'x-tenant: acme'", curl("/products", "CAROL")),
        ),
        (
            "and she is suspended at Globex (403).",
            format!("{} -H 'x-tenant: globex'", curl("/products", "CAROL")),
        ),
        ("An operator has no rights (403),", curl("/tenants", "OPERATOR")),
        (
            "but may raise them for a request, on the record (200).",
            format!("{} -H 'x-elevate: ticket 4711'", curl("/tenants", "OPERATOR")),
        ),
        ("A token that is not good (401):", curl("/products", "SHOP")),
    ]
}
