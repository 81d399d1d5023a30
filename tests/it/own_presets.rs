//! Presets of an application's own: checks of the model, list parameters and scheduled work.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures::future::BoxFuture;
use resourceful::Error;
use resourceful::access::rows;
use resourceful::adapter::FieldType;
use resourceful::cache::QueryCache;
use resourceful::prelude::*;
use resourceful::resource::{
    Change, ListParameter, Model, Preset, PresetFaults, ResourceBuilder, ScheduledHandler, ScheduledWork,
};
use resourceful::testing::TestApp;
use serde_json::{Value as Json, json};

use crate::support::aged_rows::LEASES;
use crate::support::{TestStorage, faults};

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, Validate)]
struct Article {
    id: i64,
    title: String,
    #[serde(default)]
    published_at: Option<DateTime<Utc>>,
}

/// Articles without a time of publication are drafts: editors see them, in lists on request.
#[derive(Debug)]
struct Publishable;

impl Preset for Publishable {
    fn name(&self) -> &'static str {
        "publishable"
    }

    fn apply(&self, resource: ResourceBuilder) -> ResourceBuilder {
        let published = json!({"published_at": {"is_null": false}});
        resource
            .filterable(["published_at"])
            .policy_on([Operation::Read, Operation::List], any_of([rows(published.clone()), role("editor")]))
            .list_parameter(
                ListParameter::new("draft")
                    .description("Drafts too, or they alone.")
                    .by_default(published)
                    .value("include", json!({}))
                    .value("only", json!({"published_at": {"is_null": true}})),
            )
    }

    fn verify(&self, model: &Model<'_>, faults: &mut PresetFaults<'_>) {
        let field = model.field("published_at");
        if !field.is_some_and(|field| field.field_type() == FieldType::DateTime && field.is_nullable()) {
            faults.push(
                "published_at",
                "drafts have no time of publication",
                "published_at: Option<DateTime<Utc>>",
            );
        }
    }
}

fn articles(storage: &TestStorage) -> ResourceBuilder {
    define_resource::<Article>("articles")
        .adapter(storage.table("articles"))
        .permissions(Permissions::read(anyone()).write(role("editor")))
        .index(["title"])
        .preset(bulk())
        .cache(Cache::fresh(Duration::from_secs(60)))
        .preset(Publishable)
}

/// Six articles, of which every second is a draft.
async fn app(storage: &TestStorage) -> TestApp {
    let editor = BearerTokens::new().token("editor", Actor::user("ed").with_role("editor"));
    let app = create_app(AppPreset::Testing)
        .authenticator(editor)
        .query_cache(QueryCache::new())
        .resource(articles(storage).build().unwrap());
    let app = TestApp::build(app).await.unwrap();
    let article = |id: i64| {
        let published_at = (id % 2 == 1).then(Utc::now);
        json!({"id": id, "title": format!("title {id}"), "published_at": published_at})
    };
    app.app().load().rows("articles", (1..=6).map(article)).unwrap().commit().await.unwrap();
    app
}

async fn ids(app: &TestApp, path: &str) -> Vec<i64> {
    let list = app.get(path).bearer("editor").await;
    assert_eq!(list.status(), 200, "{path}: {list}");
    list.items().iter().map(|item| item["id"].as_i64().unwrap()).collect()
}

#[test]
fn preset_reports_faults_of_the_model_with_their_fix() {
    #[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, Validate)]
    struct Plain {
        id: i64,
        published_at: String,
    }
    let errors = define_resource::<Plain>("plain")
        .adapter(Memory::new().table("plain"))
        .permissions(Permissions::all(anyone()))
        .preset(Publishable)
        .build()
        .unwrap_err();
    let fault = errors.faults().iter().find(|fault| fault.field.as_deref() == Some("published_at")).unwrap();
    assert_eq!(fault.help, "published_at: Option<DateTime<Utc>>");
}

#[tokio::test]
async fn list_parameter_selects_rows_in_lists_queries_and_pages() {
    for storage in TestStorage::all().await {
        let app = app(&storage).await;
        for _ in 0..2 {
            // Twice: the second time from the cache.
            assert_eq!(ids(&app, "/articles").await, [1, 3, 5], "{}", storage.name);
            assert_eq!(ids(&app, "/articles?draft=include").await, [1, 2, 3, 4, 5, 6]);
            assert_eq!(ids(&app, "/articles?draft=only").await, [2, 4, 6]);
            assert_eq!(ids(&app, "/articles?draft=only&title=title%204").await, [4]);
        }
        // A query in a body, and the pages that links lead to.
        let query =
            app.post("/articles/query").bearer("editor").json(json!({"draft": "only", "limit": 2})).await;
        let found: Vec<_> = query.items().iter().map(|item| item["id"].clone()).collect();
        assert_eq!(found, [json!(2), json!(4)]);
        let next = query.json()["page"]["next"].as_str().unwrap().to_owned();
        assert_eq!(ids(&app, &format!("/articles?draft=only&limit=2&after={next}")).await, [6]);
        // A cursor belongs to the value that it was made with.
        let other = app.get(&format!("/articles?draft=include&limit=2&after={next}")).bearer("editor").await;
        assert_eq!(other.status(), 400, "{other}");
        let counted = app.get("/articles?draft=only").bearer("editor").header("prefer", "count=exact").await;
        assert_eq!(counted.json()["page"]["total"], 3);
    }
}

#[tokio::test]
async fn list_parameter_admits_no_rows_beyond_the_policy() {
    for storage in TestStorage::all().await {
        let app = app(&storage).await;
        let anonymous = app.get("/articles?draft=include").await;
        assert_eq!(anonymous.items().len(), 3, "{}: {anonymous}", storage.name);
        assert_eq!(app.get("/articles?draft=only").await.items(), Vec::<Json>::new());
        assert_eq!(app.get("/articles/2").await.status(), 404);
    }
}

#[tokio::test]
async fn list_parameter_does_not_restrict_bulk_changes_by_filter() {
    for storage in TestStorage::all().await {
        let app = app(&storage).await;
        let body = json!({"filter": {"id": {"lte": 2}}, "patch": {"title": "changed"}, "max_affected": 10});
        let changed = app.patch("/articles/bulk").bearer("editor").json(body).await;
        assert_eq!(changed.status(), 200, "{}: {changed}", storage.name);
        assert_eq!(ids(&app, "/articles?draft=include&title=changed").await, [1, 2]);
    }
}

#[tokio::test]
async fn stream_with_a_list_parameter_sends_what_the_list_shows() {
    let storage = TestStorage::memory();
    let app = app(&storage).await;
    let mut published = app.get("/articles/stream").bearer("editor").stream().await.unwrap();
    let mut drafts = app.get("/articles/stream?draft=only").bearer("editor").stream().await.unwrap();
    assert_eq!(published.next().await.unwrap().name, "ready");
    assert_eq!(drafts.next().await.unwrap().name, "ready");
    let update = app.patch("/articles/2").bearer("editor").json(json!({"title": "draft"})).await;
    assert_eq!(update.status(), 200, "{update}");
    let update = app.patch("/articles/1").bearer("editor").json(json!({"title": "public"})).await;
    assert_eq!(update.status(), 200, "{update}");
    app.app().deliver().await.unwrap();
    assert_eq!(drafts.next().await.unwrap().data["subject"], "2");
    assert_eq!(published.next().await.unwrap().data["subject"], "1");
}

#[tokio::test]
async fn unknown_value_of_a_list_parameter_is_refused() {
    let app = app(&TestStorage::memory()).await;
    let problem = app.get("/articles?draft=maybe").await;
    let fault = &problem.json()["errors"][0];
    assert_eq!(
        (problem.status(), &fault["parameter"], &fault["code"]),
        (400, &json!("draft"), &json!("value"))
    );
    assert_eq!(problem.json()["errors"][0]["detail"], "Must be one of `include`, `only`.");
    let problem = app.get("/articles?drafts=only").await;
    assert!(problem.json()["errors"][0]["detail"].as_str().unwrap().contains("`draft`"), "{problem}");
    // One item is not a list.
    assert_eq!(app.get("/articles/1?draft=include").await.status(), 400);
    let problem = app.post("/articles/query").json(json!({"draft": 1})).await;
    assert_eq!((problem.status(), faults(&problem.json())), (400, vec![("/draft", "type")]));
}

#[tokio::test]
async fn openapi_document_has_the_list_parameter() {
    let app = app(&TestStorage::memory()).await;
    let document = app.get("/openapi.json").await.json();
    let parameters = document["paths"]["/articles"]["get"]["parameters"].as_array().unwrap();
    let resolve = |parameter: &Json| match parameter["$ref"].as_str() {
        Some(reference) => document.pointer(&reference[1..]).unwrap().clone(),
        None => parameter.clone(),
    };
    let draft = parameters.iter().map(resolve).find(|parameter| parameter["name"] == "draft").unwrap();
    assert_eq!(draft["schema"], json!({"type": "string", "enum": ["include", "only"]}));
    assert_eq!(draft["description"], "Drafts too, or they alone.");
}

#[test]
fn list_parameters_that_cannot_work_are_faults() {
    let build = |parameter| {
        articles(&TestStorage::memory()).list_parameter(parameter).build().unwrap_err().to_string()
    };
    let valued = |name: &str| ListParameter::new(name).value("a", json!({}));
    assert!(build(valued("limit")).contains("`limit` has the name of a field, or of a parameter"));
    assert!(build(valued("title")).contains("`title` has the name of a field"));
    assert!(build(valued("Draft")).contains("cannot be the name of a list parameter"));
    assert!(build(ListParameter::new("state")).contains("has no values"));
    // The preset's own parameter, a second time.
    assert!(build(valued("draft")).contains("both claim the parameter `draft`"));
}

#[tokio::test]
async fn filter_of_a_list_parameter_is_verified_when_the_application_is_built() {
    let parameter = ListParameter::new("state").value("x", json!({"titel": "x"}));
    let articles = articles(&TestStorage::memory()).list_parameter(parameter).build().unwrap();
    let errors = create_app(AppPreset::Testing).resource(articles).build().await.unwrap_err();
    assert!(errors.to_string().contains("a filter of the list parameter `state`"), "{errors}");
    assert!(!errors.is_retryable());
}

/// Publishes one draft at each run, and counts its runs.
struct PublishNext {
    runs: Arc<AtomicUsize>,
    fails: bool,
}

impl ScheduledHandler for PublishNext {
    fn run<'a>(&'a self, change: &'a mut Change) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(async move {
            self.runs.fetch_add(1, Ordering::Relaxed);
            let drafts = change.list("articles", json!({"published_at": {"is_null": true}}), 1).await?;
            if let Some(draft) = drafts.first() {
                change.update("articles", draft["id"].to_string(), json!({"published_at": Utc::now()}));
            }
            if self.fails {
                Err(Error::new(resourceful::ErrorKind::Conflict, "not-today", "Not today."))
            } else {
                Ok(())
            }
        })
    }
}

async fn scheduled(storage: &TestStorage, fails: bool) -> (TestApp, Arc<AtomicUsize>) {
    let runs = Arc::<AtomicUsize>::default();
    let work = PublishNext { runs: runs.clone(), fails };
    let work = ScheduledWork::every(Duration::from_secs(3600), "publish", work);
    let articles = articles(storage).scheduled(work).build().unwrap();
    (TestApp::build(create_app(AppPreset::Testing).resource(articles)).await.unwrap(), runs)
}

#[tokio::test]
async fn scheduled_work_runs_once_per_interval_for_all_nodes() {
    for storage in TestStorage::all().await {
        let (one, runs) = scheduled(&storage, false).await;
        let (other, other_runs) = scheduled(&storage, false).await;
        let draft = |id: i64| json!({"id": id, "title": "draft", "published_at": null});
        one.app().load().rows("articles", (1..=4).map(draft)).unwrap().commit().await.unwrap();
        // Both nodes look at once, and again.
        let (first, second) = tokio::join!(one.app().sweep(), other.app().sweep());
        first.unwrap();
        second.unwrap();
        other.app().sweep().await.unwrap();
        one.app().sweep().await.unwrap();
        assert_eq!(one.get("/articles").await.items().len(), 1, "{}: one draft was published", storage.name);
        // The change is an event like any other.
        assert_eq!(one.events().await.len(), 1);
        // An hour later.
        let now = Utc::now();
        let hour = chrono::TimeDelta::minutes(61);
        LEASES.put(&storage, now - hour..now + hour, now - hour).await;
        one.app().sweep().await.unwrap();
        assert_eq!(one.get("/articles").await.items().len(), 2, "{}", storage.name);
        assert!(runs.load(Ordering::Relaxed) + other_runs.load(Ordering::Relaxed) >= 2);
    }
}

#[tokio::test]
async fn scheduled_work_that_fails_commits_nothing_and_runs_again() {
    for storage in TestStorage::all().await {
        let (app, runs) = scheduled(&storage, true).await;
        let draft = json!({"id": 1, "title": "draft", "published_at": null});
        app.app().load().rows("articles", [draft]).unwrap().commit().await.unwrap();
        app.app().sweep().await.unwrap();
        app.app().sweep().await.unwrap();
        assert_eq!(runs.load(Ordering::Relaxed), 2, "{}", storage.name);
        assert_eq!(app.get("/articles").await.items(), Vec::<Json>::new());
    }
}
