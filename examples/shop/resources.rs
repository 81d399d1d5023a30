//! The resources of the shop, and their access rules.

use std::sync::Arc;

use resourceful::AppBuilder;
use resourceful::access::{ElevatedRequest, Elevation, Membership, RoleHierarchy, Tenancy};
use resourceful::access::{elevated, same_tenant};
use resourceful::adapter::Storage;
use resourceful::adapter::Table;
use resourceful::events::Webhooks;
use resourceful::prelude::*;
use resourceful::resource::StateMachine;
use resourceful::{Action, Change, Permission};

/// A company that runs its shop here.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, Validate)]
pub(crate) struct Tenant {
    #[validate(length(min = 1, max = 40))]
    pub(crate) id: String,
    #[validate(length(min = 1, max = 120))]
    pub(crate) name: String,
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, Validate)]
pub(crate) struct Customer {
    pub(crate) id: Uuid,
    pub(crate) tenant_id: String,
    #[validate(length(min = 1, max = 120))]
    pub(crate) name: String,
    #[validate(email)]
    pub(crate) email: String,
    /// What the customer may owe. Admins alone set it.
    #[validate(range(min = 0))]
    pub(crate) credit_cents: i64,
}

/// Categories lie below each other, as deep as somebody likes.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, Validate)]
pub(crate) struct Category {
    pub(crate) id: Uuid,
    pub(crate) tenant_id: String,
    pub(crate) parent_id: Option<Uuid>,
    #[validate(length(min = 1, max = 120))]
    pub(crate) name: String,
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, Validate)]
pub(crate) struct Product {
    pub(crate) id: Uuid,
    pub(crate) tenant_id: String,
    #[validate(length(min = 1, max = 120))]
    pub(crate) name: String,
    #[validate(range(min = 0))]
    pub(crate) price_cents: i64,
    /// What the shop itself pays. It is not there but for admins.
    #[validate(range(min = 0))]
    pub(crate) cost_cents: i64,
    pub(crate) in_stock: bool,
    pub(crate) category_id: Option<Uuid>,
    /// How many there are. It changes by what is delivered (`POST /products/{id}/restock`).
    #[serde(default)]
    pub(crate) stock: i64,
    pub(crate) created_at: DateTime<Utc>,
    pub(crate) updated_at: DateTime<Utc>,
    pub(crate) deleted_at: Option<DateTime<Utc>>,
}

/// What was delivered.
#[derive(Serialize, Deserialize, JsonSchema, Validate)]
pub(crate) struct Restock {
    #[validate(range(min = 1, max = 10_000))]
    quantity: i64,
}

/// An order belongs to the member who took it.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, Validate)]
pub(crate) struct Order {
    pub(crate) id: Uuid,
    pub(crate) tenant_id: String,
    pub(crate) user_id: String,
    pub(crate) customer_id: Uuid,
    pub(crate) status: Status,
    #[validate(length(max = 500))]
    pub(crate) note: Option<String>,
    pub(crate) created_at: DateTime<Utc>,
    pub(crate) updated_at: DateTime<Utc>,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Status {
    Open,
    Paid,
    Shipped,
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, Validate)]
pub(crate) struct OrderLine {
    pub(crate) id: Uuid,
    pub(crate) tenant_id: String,
    pub(crate) order_id: Uuid,
    pub(crate) product_id: Uuid,
    #[validate(range(min = 1, max = 10_000))]
    pub(crate) quantity: i64,
    #[validate(range(min = 0))]
    pub(crate) price_cents: i64,
}

/// The shop application with these tables, without authenticators.
pub(crate) fn shop(preset: AppPreset, table: impl Fn(&str) -> Table) -> Result<AppBuilder, DefinitionErrors> {
    Ok(create_app(preset)
        .info("Shop", "1.0.0")
        .description("Shops of several tenants: what one tenant has, the others do not see.")
        .contact("The shop", "https://shop.example/")
        .license("MIT", "https://opensource.org/license/mit")
        .roles(RoleHierarchy::new().includes("owner", ["admin"]).includes("admin", ["member"]))
        .tenancy(Tenancy::header("x-tenant", async |actor, tenant| Ok(membership(actor.id(), &tenant))))
        .elevation(Elevation::by("x-elevate", "operator", async |request| {
            record_elevation(&request);
            Ok(())
        }))
        .explain(role("operator"))
        .batch(50)
        .on("*", async |event, _| {
            // A shop of your own would send a mail here, or feed a search index.
            println!("event {} {} {} {}", event.id, event.event_type, event.subject, event.sequence);
            Ok(())
        })
        .webhooks(webhooks(table("webhooks").storage()))
        .resource(tenants(table("tenants"))?)
        .resource(customers(table("customers"))?)
        .resource(categories(table("categories"))?)
        .resource(products(table("products"))?)
        .resource(orders(table("orders"))?)
        .resource(lines(table("order_lines"))?))
}

/// Webhook endpoints, which admins manage for their own shop. Events are limited to what an admin may see at the time
/// of delivery. A shop of your own would ask its table of users, and would not allow addresses of its own network.
fn webhooks(storage: &Arc<dyn Storage>) -> Webhooks {
    Webhooks::stored_in(storage, admin(), async |owner| Ok(Some(owner)))
        .private_targets(true)
        .deadline(Duration::from_secs(3))
}

fn admin() -> Permission {
    tenant_role("admin")
}

/// Callers see their own tenant, and an operator with elevation sees all of them.
fn tenants(table: Table) -> Result<Resource, DefinitionErrors> {
    define_resource::<Tenant>("tenants")
        .adapter(table)
        .permissions(Permissions::read(same_tenant("id")).write(elevated()))
        .id(Id::Client)
        .filterable(["name"])
        .build()
}

/// Members see the customers; services see them with redacted email addresses.
fn customers(table: Table) -> Result<Resource, DefinitionErrors> {
    define_resource::<Customer>("customers")
        .adapter(table)
        .permissions(Permissions::read(any_of([tenant_member(), scope("customers:read")])).write(admin()))
        .preset(multi_tenant("tenant_id"))
        .writable_by(["credit_cents"], tenant_role("owner"))
        .redacted_for(["email"], scope("customers:read"), "hidden@example.com")
        .index(["name"])
        .searchable(["name", "email"])
        .relation(has_many("orders", "orders").key("customer_id"))
        .cache(cache_settings())
        .build()
}

/// Callers who see the products see their categories.
fn categories(table: Table) -> Result<Resource, DefinitionErrors> {
    define_resource::<Category>("categories")
        .adapter(table)
        .permissions(Permissions::read(any_of([tenant_member(), scope("products:read")])).write(admin()))
        .preset(multi_tenant("tenant_id"))
        .preset(tree("parent_id"))
        .relation(has_many("products", "products").key("category_id"))
        .cache(cache_settings())
        .build()
}

/// Members and services see the products; only admins see their costs.
fn products(table: Table) -> Result<Resource, DefinitionErrors> {
    define_resource::<Product>("products")
        .adapter(table)
        .permissions(Permissions::read(any_of([tenant_member(), scope("products:read")])).write(admin()))
        .preset(multi_tenant("tenant_id"))
        .preset(timestamps())
        .preset(bulk())
        .preset(idempotency())
        .preset(soft_delete())
        .preset(audit().readable_by(admin()).revertible_by(admin()))
        .version("version")
        .read_only(["stock"])
        .action(
            "restock",
            Action::on_item(admin(), |product: &mut Product, restock: Restock, _: &mut Change| {
                product.stock += restock.quantity;
                product.in_stock = true;
                Ok(())
            })
            .event("restocked")
            .description("Counts what was delivered."),
        )
        .visible_to(["cost_cents"], admin())
        .index(["name"])
        .index(["price_cents"])
        .index(["category_id"])
        .searchable(["name"])
        .filterable(["cost_cents", "in_stock"])
        .sortable(["cost_cents"])
        .relation(belongs_to("category", "categories"))
        .relation(has_many("lines", "order_lines").key("product_id"))
        .cache(cache_settings().tag("catalog"))
        .build()
}

/// An order is accessible to the member who took it, and to admins.
fn orders(table: Table) -> Result<Resource, DefinitionErrors> {
    define_resource::<Order>("orders")
        .adapter(table)
        .permissions(Permissions::all(tenant_member()).delete(admin()))
        .preset(multi_tenant("tenant_id"))
        .preset(owned_by("user_id").or(admin()))
        .preset(timestamps())
        .preset(idempotency())
        .preset(audit().readable_by(admin()))
        .version("version")
        .states(
            StateMachine::of("status", "open")
                .transition("pay", ["open"], "paid", tenant_member())
                .transition("ship", ["paid"], "shipped", admin()),
        )
        .index(["status", "created_at"])
        .filterable(["note"])
        .relation(belongs_to("customer", "customers"))
        .relation(has_many("lines", "order_lines").key("order_id"))
        .presence(true)
        .cache(cache_settings())
        .build()
}

/// A line is accessible to the same callers as its order.
fn lines(table: Table) -> Result<Resource, DefinitionErrors> {
    define_resource::<OrderLine>("order_lines")
        .adapter(table)
        .permissions(Permissions::all(tenant_member()))
        .policy(any_of([admin(), owner("order.user_id")]))
        .preset(multi_tenant("tenant_id"))
        .index(["order_id"])
        .index(["product_id"])
        .filterable(["quantity", "price_cents"])
        .relation(belongs_to("order", "orders"))
        .relation(belongs_to("product", "products"))
        .cache(cache_settings())
        .build()
}

/// Cache settings: responses are fresh for 30 seconds, and served stale for five minutes more while they are
/// revalidated.
fn cache_settings() -> Cache {
    Cache::fresh(Duration::from_secs(30)).stale(Duration::from_secs(300))
}

/// Tenant membership, for users whose token does not contain it. A shop of your own would ask a table.
fn membership(user: Option<&str>, tenant: &str) -> Membership {
    match (user, tenant) {
        (Some("carol"), "acme") => Membership::Member(vec!["member".into()]),
        (Some("carol"), "globex") => Membership::Suspended,
        _ => Membership::None,
    }
}

/// Records each request with elevation, here in the log.
fn record_elevation(request: &ElevatedRequest) {
    let who = request.actor.id().unwrap_or_default();
    tracing::warn!(
        who,
        reason = request.reason,
        method = request.method,
        path = request.path,
        "raised rights"
    );
}
