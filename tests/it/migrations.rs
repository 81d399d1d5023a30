//! Steps by which a database comes to its shape: once each, together or not at all, by one node at a time.

use std::sync::Arc;

use resourceful::AppBuilder;
use resourceful::adapter::{Migration, Storage};
use resourceful::prelude::*;
use resourceful::testing::TestApp;
use serde_json::json;
use tempfile::TempDir;

use crate::policies::model;

/// A database with a file or a server behind it, and names of its own in it.
struct Database {
    url: String,
    name: String,
    _folder: Option<TempDir>,
}

impl Database {
    fn all() -> Vec<Self> {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}", folder.path().join("test.db").display());
        let mut all = vec![Self { url, name: "notes".to_owned(), _folder: Some(folder) }];
        match std::env::var("TEST_POSTGRES_URL") {
            Ok(url) => {
                all.push(Self { url, name: format!("m{}", Uuid::now_v7().simple()), _folder: None });
            }
            Err(_) => println!(
                "not run: migrations on PostgreSQL, for want of TEST_POSTGRES_URL (tests/run sets it)"
            ),
        }
        all
    }

    /// A connection of a node's own.
    async fn connect(&self) -> Arc<dyn Storage> {
        Sql::connect(&self.url).await.unwrap().storage()
    }

    fn migration(&self, number: u32, name: &str, sql: &str) -> Migration {
        Migration::new(self.name.as_str(), number, name, sql.replace("{table}", &self.name))
    }

    fn first(&self) -> Migration {
        self.migration(
            1,
            "notes",
            "CREATE TABLE {table} (code text PRIMARY KEY, body text NOT NULL); INSERT INTO {table} VALUES ('a', 'first')",
        )
    }

    fn second(&self) -> Migration {
        self.migration(2, "tidy", "UPDATE {table} SET body = body || ', tidied'")
    }

    fn app(&self, storage: &Arc<dyn Storage>, preset: AppPreset, migrations: Vec<Migration>) -> AppBuilder {
        let notes = define_dynamic_resource("notes", model(&["code", "body"]))
            .adapter(resourceful::adapter::Table::new(storage.clone(), self.name.as_str()))
            .id_field("code")
            .permissions(Permissions::all(anyone()))
            .events(false)
            .build()
            .unwrap();
        create_app(preset).secret([7; 32]).migrations(storage, migrations).resource(notes)
    }

    /// Builds the application on a node of its own; its notes, or its faults.
    async fn notes(&self, preset: AppPreset, migrations: Vec<Migration>) -> Result<Vec<String>, String> {
        let storage = self.connect().await;
        let built = TestApp::build(self.app(&storage, preset, migrations)).await;
        let app = built.map_err(|faults| faults.to_string())?;
        let items = app.get("/notes").await.items();
        Ok(items.iter().map(|item| item["body"].as_str().unwrap().to_owned()).collect())
    }
}

#[tokio::test]
async fn migrations_run_once_in_number_order() {
    for database in Database::all() {
        let development = AppPreset::Development;
        // Named in any order.
        let both = vec![database.second(), database.first()];
        assert_eq!(database.notes(development, both.clone()).await.unwrap(), ["first, tidied"]);
        assert_eq!(database.notes(development, both.clone()).await.unwrap(), ["first, tidied"]);
        let mut more = both;
        more.push(database.migration(3, "more", "INSERT INTO {table} VALUES ('b', 'another')"));
        assert_eq!(database.notes(development, more).await.unwrap(), ["first, tidied", "another"]);
    }
}

#[tokio::test]
async fn production_refuses_to_start_with_pending_migrations() {
    for database in Database::all() {
        let production = AppPreset::Production;
        let both = vec![database.first(), database.second()];
        let refused = database.notes(production, both.clone()).await.unwrap_err();
        for expected in ["0001_notes` is not applied", "0002_tidy", "RESOURCEFUL_MIGRATE=1", ".migrate()"] {
            assert!(refused.contains(expected), "{expected}: {refused}");
        }
        let storage = database.connect().await;
        let applied = database.app(&storage, production, both.clone()).migrate().await.unwrap();
        assert_eq!(applied, [database.first().label(), database.second().label()]);
        let again = database.app(&storage, production, both.clone()).migrate().await.unwrap();
        assert!(again.is_empty(), "{again:?}");
        assert_eq!(database.notes(production, both).await.unwrap(), ["first, tidied"]);
    }
}

#[tokio::test]
async fn changed_migration_is_detected_and_nothing_is_applied() {
    for database in Database::all() {
        let development = AppPreset::Development;
        database.notes(development, vec![database.first()]).await.unwrap();
        let mut changed = database.first();
        changed.sql.push_str("; SELECT 1");
        let faults = database.notes(development, vec![changed, database.second()]).await.unwrap_err();
        assert!(faults.contains("0001_notes` was changed after it was applied"), "{faults}");
        // Other line ends are no change.
        let mut checked_out = database.first();
        checked_out.sql = checked_out.sql.replace("; ", ";\n");
        let mut with_crlf = checked_out.clone();
        with_crlf.sql = with_crlf.sql.replace('\n', "\r\n");
        assert_eq!(checked_out.checksum(), with_crlf.checksum());
        assert_eq!(database.notes(development, vec![database.first()]).await.unwrap(), ["first"]);
    }
}

#[tokio::test]
async fn failed_migration_rolls_back_the_whole_run() {
    for database in Database::all() {
        let development = AppPreset::Development;
        let broken = database.migration(
            2,
            "broken",
            "INSERT INTO {table} VALUES ('b', 'x'); INSERT INTO nowhere VALUES (1)",
        );
        let faults = database.notes(development, vec![database.first(), broken]).await.unwrap_err();
        assert!(faults.contains("0002_broken") && faults.contains("nowhere"), "{faults}");
        let storage = database.connect().await;
        let both = [database.first(), database.second()];
        let found = storage.migrate(&both, false).await.unwrap();
        assert_eq!((found.missing, found.changed), (vec![0, 1], vec![]), "nothing is written down");
        // The first one would fail where its table was there already.
        assert_eq!(database.notes(development, both.to_vec()).await.unwrap(), ["first, tidied"]);
    }
}

#[tokio::test]
async fn concurrent_nodes_apply_each_migration_once() {
    for database in Database::all() {
        let both = vec![database.first(), database.second()];
        let nodes =
            futures::future::join_all((0..6).map(|_| database.notes(AppPreset::Development, both.clone())));
        for notes in nodes.await {
            assert_eq!(notes.unwrap(), ["first, tidied"]);
        }
    }
}

#[tokio::test]
async fn duplicate_migration_numbers_are_rejected() {
    let memory = Memory::new().storage();
    let one = |name: &str| Migration::new("shop", 1, name, "CREATE TABLE x (id int)");
    let faults = create_app(AppPreset::Testing).migrations(&memory, [one("a"), one("b")]).build().await;
    let faults = faults.unwrap_err().to_string();
    assert!(faults.contains("`shop 0001_a` and `shop 0001_b` have one number"), "{faults}");
    // Owners do not meet; two lists for one storage are one.
    let other = Migration::new("library", 1, "a", "CREATE TABLE y (id int)");
    let app = create_app(AppPreset::Production).secret([7; 32]);
    let app = app.migrations(&memory, [one("a")]).migrations(&memory, [other]).build().await.unwrap();
    assert_eq!(TestApp::of(app).get("/healthz").await.json()["status"], json!("ok"));
}

/// What a start in production says is what helps.
#[tokio::test]
async fn migrate_env_variable_applies_pending_migrations() {
    const NAME: &str = "migrations::migrate_env_variable_applies_pending_migrations";
    if let Ok(url) = std::env::var("MIGRATION_OF_A_CHILD") {
        let database = Database { url, name: "notes".to_owned(), _folder: None };
        let notes = database.notes(AppPreset::Production, vec![database.first()]).await;
        assert_eq!(notes.unwrap(), ["first"]);
        return;
    }
    let database = Database::all().remove(0);
    let start = |value: &str| {
        let mut child = std::process::Command::new(std::env::current_exe().unwrap());
        child.args(["--exact", NAME]).env("MIGRATION_OF_A_CHILD", &database.url);
        child.env("RESOURCEFUL_MIGRATE", value).output().unwrap().status.success()
    };
    assert!(!start("0"), "unasked it does not start");
    assert!(start("1"));
    assert!(start("0"), "it is applied now");
}
