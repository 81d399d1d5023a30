//! The seed rows of two shops.

use resourceful::Error;
use resourceful::prelude::*;

use super::resources::{Category, Customer, Order, OrderLine, Product, Status, Tenant};

/// A customer of Acme's.
pub(crate) const ROAD_RUNNER: Uuid = id(1, 2);
/// A product of Acme's.
pub(crate) const ANVIL: Uuid = id(2, 1);
/// A category of Acme's, and one that lies two levels below it.
pub(crate) const GEAR: Uuid = id(5, 1);
pub(crate) const HEAVY_TRAPS: Uuid = id(5, 3);
/// An order of Acme's that its admin took.
pub(crate) const ADAS_ORDER: Uuid = id(3, 1);
/// An order of Acme's that its member took.
pub(crate) const ALANS_ORDER: Uuid = id(3, 2);
/// An order of Globex's.
pub(crate) const GRACES_ORDER: Uuid = id(3, 5);

const fn id(kind: u128, number: u128) -> Uuid {
    Uuid::from_u128(0x0190_0000_0000_7000_8000_0000_0000_0000 | (kind << 32) | number)
}

/// Loads the rows, once.
pub(crate) async fn load(app: &App) -> Result<bool, Error> {
    if app.count("tenants").await? > 0 {
        return Ok(false);
    }
    let tenants = [("acme", "Acme"), ("globex", "Globex")];
    let tenants = tenants.map(|(id, name)| Tenant { id: id.to_owned(), name: name.to_owned() });
    app.load()
        .rows("tenants", tenants)?
        .rows("customers", customers())?
        .rows("categories", categories())?
        .rows("products", products())?
        .rows("orders", orders())?
        .rows("order_lines", lines())?
        .commit()
        .await?;
    Ok(true)
}

fn customers() -> impl Iterator<Item = Customer> {
    let of = |(number, (tenant, name)): (u128, (&str, &str))| Customer {
        id: id(1, number),
        tenant_id: tenant.to_owned(),
        name: name.to_owned(),
        email: format!("{}@example.org", name.to_lowercase().replace(' ', ".")),
        credit_cents: 50_000,
    };
    let named = [
        ("acme", "Wile Coyote"),
        ("acme", "Road Runner"),
        ("acme", "Sam Sheepdog"),
        ("globex", "Frank Grimes"),
        ("globex", "Hank Scorpio"),
    ];
    (1..).zip(named).map(of)
}

fn categories() -> impl Iterator<Item = Category> {
    let of = |(number, (tenant, name, parent)): (u128, (&str, &str, Option<u128>))| Category {
        id: id(5, number),
        tenant_id: tenant.to_owned(),
        parent_id: parent.map(|parent| id(5, parent)),
        name: name.to_owned(),
    };
    let named = [
        ("acme", "Gear", None),
        ("acme", "Traps", Some(1)),
        ("acme", "Heavy traps", Some(2)),
        ("acme", "Food", None),
        ("globex", "Leisure", None),
    ];
    (1..).zip(named).map(of)
}

fn products() -> impl Iterator<Item = Product> {
    let of = |(number, (tenant, name, price_cents, category)): (u128, (&str, &str, i64, u128))| Product {
        id: id(2, number),
        tenant_id: tenant.to_owned(),
        name: name.to_owned(),
        price_cents,
        cost_cents: price_cents * 3 / 5,
        in_stock: number % 3 != 0,
        category_id: (category > 0).then(|| id(5, category)),
        stock: if number % 3 == 0 { 0 } else { 10 },
        deleted_at: None,
        created_at: seed_time(),
        updated_at: seed_time(),
    };
    let named = [
        ("acme", "Anvil", 4_900, 3),
        ("acme", "Rocket skates", 12_900, 1),
        ("acme", "Giant magnet", 8_900, 2),
        ("acme", "Bird seed", 900, 4),
        ("globex", "Hammock", 5_900, 5),
        ("globex", "Doomsday device", 99_900, 0),
    ];
    (1..).zip(named).map(of)
}

fn orders() -> impl Iterator<Item = Order> {
    let of = |(number, (tenant, user, customer, status)): (u128, (&str, &str, u128, Status))| Order {
        id: id(3, number),
        tenant_id: tenant.to_owned(),
        user_id: user.to_owned(),
        customer_id: id(1, customer),
        status,
        note: (number % 2 == 0).then(|| "leave it at the cliff".to_owned()),
        created_at: seed_time(),
        updated_at: seed_time(),
    };
    let named = [
        ("acme", "ada", 1, Status::Paid),
        ("acme", "alan", 1, Status::Open),
        ("acme", "alan", 2, Status::Shipped),
        ("acme", "ada", 3, Status::Open),
        ("globex", "grace", 4, Status::Paid),
        ("globex", "gil", 5, Status::Open),
    ];
    (1..).zip(named).map(of)
}

fn lines() -> impl Iterator<Item = OrderLine> {
    let of = |(number, (order, product, quantity)): (u128, (u128, u128, i64))| OrderLine {
        id: id(4, number),
        tenant_id: if order < 5 { "acme" } else { "globex" }.to_owned(),
        order_id: id(3, order),
        product_id: id(2, product),
        quantity,
        price_cents: quantity * 1_000,
    };
    let named =
        [(1, 1, 2), (1, 2, 1), (2, 4, 10), (2, 1, 1), (3, 3, 1), (4, 2, 2), (5, 5, 4), (6, 6, 1), (6, 5, 2)];
    (1..).zip(named).map(of)
}

/// The creation time of the seed rows.
fn seed_time() -> DateTime<Utc> {
    DateTime::from_timestamp(1_767_225_600, 0).unwrap_or_default()
}
