//! An adapter of one's own: a storage that prints every statement and how long it took, around another storage.
//!
//! ```console
//! $ cargo run -p resourceful-examples --bin adapter
//! $ curl -i localhost:3000/notes --json '{"text": "hello"}'   # 201
//! $ curl -i localhost:3000/notes                              # 200
//! ```
//!
//! `adapters/README.md` says what an adapter of another database implements, and how it runs the conformance suite.

use std::sync::Arc;
use std::time::Instant;

use resourceful::adapter::{SqlDialect, Storage, Table};
use resourceful::prelude::*;
use resourceful_contract::{
    Answer, Capabilities, ChangeSet, Committed, Migrated, Migration, Mismatch, NotificationStream, Query,
    Rows, Schema,
};

/// A storage that reports what another one does.
#[derive(Debug)]
struct Timed(Arc<dyn Storage>);

impl Timed {
    async fn timed<T>(
        &self,
        what: String,
        statement: Answer<'_, T>,
    ) -> Result<T, resourceful_contract::StorageError> {
        let started = Instant::now();
        let outcome = statement.await;
        let state = if outcome.is_ok() { "ok" } else { "failed" };
        println!("{} {what}: {state} after {:?}", self.0.name(), started.elapsed());
        outcome
    }
}

impl Storage for Timed {
    fn name(&self) -> &'static str {
        "timed"
    }
    fn dialect(&self) -> Option<SqlDialect> {
        self.0.dialect()
    }
    fn capabilities(&self) -> Capabilities {
        self.0.capabilities()
    }
    fn create_table_if_missing<'a>(&'a self, schema: &'a Arc<Schema>) -> Answer<'a, ()> {
        Box::pin(self.timed(format!("create {}", schema.table), self.0.create_table_if_missing(schema)))
    }
    fn migrate<'a>(&'a self, migrations: &'a [Migration], apply: bool) -> Answer<'a, Migrated> {
        self.0.migrate(migrations, apply)
    }
    fn check<'a>(&'a self, schema: &'a Arc<Schema>) -> Answer<'a, Vec<Mismatch>> {
        self.0.check(schema)
    }
    fn fetch<'a>(&'a self, query: &'a Query, out: &'a mut Vec<u8>) -> Answer<'a, Rows> {
        Box::pin(self.timed(format!("fetch {}", query.schema.table), self.0.fetch(query, out)))
    }
    fn commit(&self, changes: ChangeSet) -> Answer<'_, Committed> {
        let tables = changes.changes.iter().map(|change| change.schema.table.as_str()).collect::<Vec<_>>();
        Box::pin(self.timed(format!("commit {}", tables.join(", ")), self.0.commit(changes)))
    }
    fn notify<'a>(&'a self, channel: &'a str) -> Answer<'a, ()> {
        self.0.notify(channel)
    }
    fn listen<'a>(&'a self, channel: &'a str) -> Answer<'a, Option<Box<dyn NotificationStream>>> {
        self.0.listen(channel)
    }
    fn ready(&self) -> Answer<'_, ()> {
        self.0.ready()
    }
    fn close(&self) -> Answer<'_, ()> {
        self.0.close()
    }
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, Validate)]
struct Note {
    id: Uuid,
    text: String,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let storage: Arc<dyn Storage> = Arc::new(Timed(Memory::new().storage()));
    let notes = define_resource::<Note>("notes")
        .adapter(Table::new(storage, "notes").create_table_if_missing())
        .permissions(Permissions::all(anyone()))
        .build()?;
    let port = std::env::var("PORT").unwrap_or_else(|_| "3000".to_owned());
    let app = create_app(AppPreset::Development).resource(notes);
    app.serve(format!("127.0.0.1:{port}")).await?;
    Ok(())
}
