//! One application, on every storage there is.

pub(crate) mod aged_rows;
pub(crate) mod gated;
pub(crate) mod models;
pub(crate) mod receiver;
pub(crate) mod unreliable_bus;

use std::future::Future;

use resourceful::adapter::{Migration, Storage};
use resourceful::prelude::*;
use resourceful::testing::TestApp;
use resourceful::{AppBuilder, ResourceBuilder, Sql};

use models::{Category, Note, Product};

pub(crate) const EDITOR: &str = "a token for those who edit";
pub(crate) const READER: &str = "a token for those who read";

/// A place to keep rows, empty, for one run of one test.
#[derive(Clone, Debug)]
pub(crate) struct TestStorage {
    pub(crate) name: &'static str,
    storage: std::sync::Arc<dyn Storage>,
    url: Option<String>,
}

impl TestStorage {
    pub(crate) fn memory() -> Self {
        Self { name: "memory", storage: Memory::new().storage(), url: None }
    }

    pub(crate) async fn sqlite() -> Self {
        let database = Sql::connect("sqlite::memory:").await.expect("SQLite in memory opens");
        Self { name: "sqlite", storage: database.storage(), url: None }
    }

    /// PostgreSQL, where the environment names one: a schema of its own in that database, so that tests do not meet.
    pub(crate) async fn postgres() -> Option<Self> {
        let required =
            std::env::var("RESOURCEFUL_TEST_REQUIRE").is_ok_and(|names| names.contains("postgres"));
        let Ok(url) = std::env::var("TEST_POSTGRES_URL") else {
            assert!(!required, "TEST_POSTGRES_URL must be set: this run requires PostgreSQL");
            println!("not run: on PostgreSQL, for want of TEST_POSTGRES_URL (tests/run sets it)");
            return None;
        };
        let url = create_schema(&url).await;
        let database = Sql::connect(&url).await.expect("PostgreSQL answers at TEST_POSTGRES_URL");
        Some(Self { name: "postgres", storage: database.storage(), url: Some(url) })
    }

    /// The database of a URL, whatever it holds.
    pub(crate) async fn of(name: &'static str, url: &str) -> Self {
        let database = Sql::connect(url).await.expect("the database answers");
        Self { name, storage: database.storage(), url: Some(url.to_owned()) }
    }

    pub(crate) fn storage(&self) -> &std::sync::Arc<dyn Storage> {
        &self.storage
    }

    /// Where another node finds the same rows; `None` where they are in this process alone.
    pub(crate) fn url(&self) -> Option<&str> {
        self.url.as_deref()
    }

    /// Every storage there is, or memory alone where a run has to be quick.
    pub(crate) async fn all() -> Vec<Self> {
        if std::env::var("TEST_STORAGES").is_ok_and(|storages| storages == "memory") {
            return vec![Self::memory()];
        }
        let mut storages = vec![Self::memory(), Self::sqlite().await];
        storages.extend(Self::postgres().await);
        storages
    }

    pub(crate) fn table(&self, name: &str) -> resourceful::adapter::Table {
        resourceful::adapter::Table::new(self.storage.clone(), name).create_table_if_missing()
    }
}

/// The URL of a new schema in a PostgreSQL database.
pub(crate) async fn create_schema(url: &str) -> String {
    let schema = format!("t{}", Uuid::now_v7().simple());
    let storage = Sql::connect(url).await.expect("PostgreSQL answers at TEST_POSTGRES_URL").storage();
    let made = Migration::new(schema.as_str(), 1, "schema", format!("CREATE SCHEMA {schema}"));
    storage.migrate(&[made], true).await.expect("a schema is made");
    storage.close().await.expect("connections end");
    let separator = if url.contains('?') { '&' } else { '?' };
    format!("{url}{separator}options=-c%20search_path%3D{schema}")
}

/// Runs a test on every storage there is.
pub(crate) async fn on_every_storage<F, T>(test: F)
where
    F: Fn(TestApp) -> T,
    T: Future<Output = ()>,
{
    for storage in TestStorage::all().await {
        println!("on {}", storage.name);
        test(shop(&storage).await).await;
    }
    // What is remembered passes what is read.
    test(cached_shop(&TestStorage::memory()).await.through_cache()).await;
    // Many at once pass what one passes.
    test(shop(&TestStorage::memory()).await.through_bulk()).await;
}

/// The application that most tests are about.
pub(crate) async fn shop(storage: &TestStorage) -> TestApp {
    TestApp::build(builder(storage)).await.expect("the shop's declaration holds")
}

/// The same, which remembers what it answers for longer than any test runs.
pub(crate) async fn cached_shop(storage: &TestStorage) -> TestApp {
    TestApp::build(cached_shop_builder(storage)).await.expect("the shop's declaration holds")
}

pub(crate) fn cached_shop_builder(storage: &TestStorage) -> AppBuilder {
    let declared = [products_builder(storage), categories_builder(storage), notes_builder(storage)];
    declared.into_iter().fold(authenticated_builder(), |app, resource| {
        let cached = resource.cache(Cache::fresh(Duration::from_secs(3600)));
        app.resource(cached.build().expect("what is remembered holds"))
    })
}

fn authenticated_builder() -> AppBuilder {
    create_app(AppPreset::Testing).authenticator(
        BearerTokens::new()
            .token(EDITOR, Actor::user("ed").with_role("editor"))
            .token(READER, Actor::user("rita")),
    )
}

pub(crate) fn builder(storage: &TestStorage) -> AppBuilder {
    authenticated_builder().resource(products(storage)).resource(categories(storage)).resource(notes(storage))
}

pub(crate) fn products(storage: &TestStorage) -> Resource {
    products_builder(storage).build().expect("products hold")
}

fn products_builder(storage: &TestStorage) -> ResourceBuilder {
    define_resource::<Product>("products")
        .adapter(storage.table("products"))
        .permissions(Permissions::all(anyone()))
        .version("version")
        .preset(timestamps())
        .preset(bulk())
        .write_only(["secret"])
        .immutable(["sku"])
        .unique(["sku"])
        .index(["name"])
        .index(["price_cents"])
        .filterable([
            "in_stock",
            "status",
            "tags",
            "rating",
            "weight",
            "released",
            "dimensions",
            "created_at",
            "stock",
        ])
        .sortable(["rating", "status", "released", "weight", "created_at"])
        .searchable(["name", "sku"])
        .relation(belongs_to("category", "categories").key("category_code"))
        .limits(3, 10)
}

/// Ids by the client, and no version counter: ETags are digests.
pub(crate) fn categories(storage: &TestStorage) -> Resource {
    categories_builder(storage).build().expect("categories hold")
}

fn categories_builder(storage: &TestStorage) -> ResourceBuilder {
    define_resource::<Category>("categories")
        .adapter(storage.table("categories"))
        .permissions(Permissions::all(anyone()))
        .id_field("code")
        .preset(bulk())
        .filterable(["region"])
        .sortable(["title"])
        .relation(has_many("products", "products").key("category_code").limit(2))
}

/// Ids by the database, and permissions that ask for someone.
pub(crate) fn notes(storage: &TestStorage) -> Resource {
    notes_builder(storage).build().expect("notes hold")
}

fn notes_builder(storage: &TestStorage) -> ResourceBuilder {
    define_resource::<Note>("notes")
        .adapter(storage.table("notes"))
        .permissions(
            Permissions::read(signed_in()).create(role("editor")).update(role("editor")).delete(nobody()),
        )
        .version("revision")
        .preset(bulk())
        .offset_paging()
        .require_if_match()
        .cache_control("private, max-age=5")
}

/// A product's body, with these members on top.
pub(crate) fn product(name: &str, members: serde_json::Value) -> serde_json::Value {
    let mut body = serde_json::json!({
        "sku": format!("sku-{name}"),
        "name": name,
        "price_cents": 100,
        "in_stock": true,
        "status": "draft",
        "tags": [],
        "weight": "1.5",
        "stock": 1,
        "secret": "s3cret",
    });
    if let (Some(body), Some(members)) = (body.as_object_mut(), members.as_object()) {
        body.extend(members.clone());
    }
    body
}

/// Creates a product and answers it.
pub(crate) async fn create(app: &TestApp, name: &str, members: serde_json::Value) -> serde_json::Value {
    let created = app.post("/products").json(product(name, members)).await;
    assert_eq!(created.status(), 201, "{created}");
    created.json()
}

/// The path of a product.
pub(crate) fn path(product: &serde_json::Value) -> String {
    format!("/products/{}", product["id"].as_str().expect("an id"))
}

/// The names of the items of a list.
pub(crate) async fn names(app: &TestApp, path: &str) -> Vec<String> {
    let list = app.get(path).await;
    assert_eq!(list.status(), 200, "{path}: {list}");
    list.items().iter().map(|item| item["name"].as_str().unwrap_or_default().to_owned()).collect()
}

/// Where a problem's errors are, and their codes.
pub(crate) fn faults(problem: &serde_json::Value) -> Vec<(&str, &str)> {
    let errors = problem["errors"].as_array().expect("a problem with errors");
    errors
        .iter()
        .map(|fault| (fault["pointer"].as_str().expect("a pointer"), fault["code"].as_str().expect("a code")))
        .collect()
}
