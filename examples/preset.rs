//! A preset of one's own: articles that are drafts until they are published.
//!
//! ```console
//! $ cargo run -p resourceful-examples --bin preset
//! $ curl -i localhost:3000/articles/news -X PUT --json '{"id": "news", "text": "…"}' -H 'Authorization: Bearer editor'  # 201
//! $ curl -i localhost:3000/articles/news                                                               # 404
//! $ curl -i 'localhost:3000/articles?draft=only' -H 'Authorization: Bearer editor'                     # 200
//! $ curl -i localhost:3000/articles/news/publish -X POST                                               # 401
//! $ curl -i localhost:3000/articles/news/publish -X POST -H 'Authorization: Bearer editor'             # 200
//! $ curl -i localhost:3000/articles/news                                                               # 200
//! ```

use futures::future::BoxFuture;
use resourceful::access::rows;
use resourceful::adapter::FieldType;
use resourceful::prelude::*;
use resourceful::resource::*;
use resourceful::{Error, Permission};
use serde_json::json;

/// Items are drafts until `POST /{id}/publish`; only those who may publish see drafts, in lists by `?draft=include`.
#[derive(Debug)]
struct Publishable {
    by: Permission,
}

impl Preset for Publishable {
    fn name(&self) -> &'static str {
        "publishable"
    }

    fn apply(&self, resource: ResourceBuilder) -> ResourceBuilder {
        let published = json!({"published_at": {"is_null": false}});
        resource
            .claim_field("published_at")
            .read_only(["published_at"])
            .filterable(["published_at"])
            .policy_on([Operation::Read, Operation::List], any_of([rows(published.clone()), self.by.clone()]))
            .action("publish", Action::handled(self.by.clone(), Publish).event("published"))
            .list_parameter(
                ListParameter::new("draft")
                    .by_default(published)
                    .value("include", json!({}))
                    .value("only", json!({"published_at": {"is_null": true}})),
            )
            .scheduled(ScheduledWork::every(Duration::from_secs(3600), "count_drafts", Publish))
    }

    fn verify(&self, model: &Model<'_>, faults: &mut PresetFaults<'_>) {
        let field = model.field("published_at");
        if field.map(|field| (field.field_type(), field.is_nullable())) != Some((FieldType::DateTime, true)) {
            faults.push("published_at", "drafts have no time", "published_at: Option<DateTime<Utc>>");
        }
    }
}

struct Publish;

impl ActionHandler for Publish {
    type Input = NoInput;
    type Output = ();

    fn act<'a>(&'a self, change: &'a mut Change, _: NoInput) -> BoxFuture<'a, Result<(), Error>> {
        if let Some(item) = change.item_mut() {
            item.insert("published_at".to_owned(), json!(Utc::now()));
        }
        Box::pin(async { Ok(()) })
    }
}

impl ScheduledHandler for Publish {
    fn run<'a>(&'a self, change: &'a mut Change) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(async move {
            let drafts = change.list("articles", json!({"published_at": {"is_null": true}}), 1000).await?;
            println!("{} drafts", drafts.len());
            Ok(())
        })
    }
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, Validate)]
struct Article {
    id: String,
    text: String,
    #[serde(default)]
    published_at: Option<DateTime<Utc>>,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let articles = define_resource::<Article>("articles")
        .adapter(Memory::new().table("articles"))
        .permissions(Permissions::read(anyone()).write(role("editor")))
        .preset(Publishable { by: role("editor") })
        .build()?;
    let editor = BearerTokens::new().token("editor", Actor::user("ed").with_role("editor"));
    let port = std::env::var("PORT").unwrap_or_else(|_| "3000".to_owned());
    let app = create_app(AppPreset::Development).resource(articles).authenticator(editor);
    Ok(app.serve(format!("127.0.0.1:{port}")).await?)
}
