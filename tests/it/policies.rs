//! Which rows and fields a caller may see and touch, on every path.

use resourceful::access::{Decision, RoleHierarchy, check, elevated, not, rows, same_tenant, when};
use resourceful::prelude::*;
use resourceful::testing::{TestApp, TestResponse};
use serde_json::{Value as Json, json};

use crate::support::TestStorage;

/// Tokens and their actors.
pub(crate) fn actors_by_token() -> Vec<(&'static str, Actor)> {
    vec![
        ("ann", Actor::user("ann").in_tenant("acme", ["admin"])),
        ("abe", Actor::user("abe").in_tenant("acme", ["member"])),
        ("bob", Actor::user("bob").in_tenant("bolt", ["admin"])),
        ("eve", Actor::user("eve")),
        ("op", Actor::user("op").elevated()),
        ("op-in-bolt", Actor::user("op").in_tenant("bolt", ["admin"]).elevated()),
        ("robot", Actor::service("robot").with_scope("projects:read")),
        ("chief", Actor::user("chief").with_role("chief")),
        ("app-of-ann", Actor::user("ann").in_tenant("acme", ["admin"]).limited_to(["projects:read"])),
    ]
}

pub(crate) fn actors() -> BearerTokens {
    actors_by_token()
        .into_iter()
        .fold(BearerTokens::new(), |tokens, (token, actor)| tokens.token(token, actor))
}

fn text(name: &str) -> (String, Json) {
    (name.to_owned(), json!({"type": "string"}))
}

pub(crate) fn model(fields: &[&str]) -> Json {
    let properties: serde_json::Map<_, _> = fields.iter().map(|name| text(name)).collect();
    json!({"type": "object", "properties": properties, "required": fields})
}

/// Projects of tenants, with tasks.
pub(crate) async fn workspace(storage: &TestStorage) -> TestApp {
    let projects = define_dynamic_resource("projects", model(&["code", "org_id", "name"]))
        .adapter(storage.table("projects"))
        .id_field("code")
        .permissions(Permissions::all(signed_in()))
        .preset(multi_tenant("org_id"))
        .filterable(["name"])
        .sortable(["name"])
        .searchable(["name"])
        .relation(has_many("tasks", "tasks").key("project_code"))
        .build()
        .unwrap();
    let tasks = define_dynamic_resource("tasks", model(&["code", "org_id", "project_code", "title"]))
        .adapter(storage.table("tasks"))
        .id_field("code")
        .permissions(Permissions::all(signed_in()))
        .preset(multi_tenant("org_id"))
        .filterable(["title"])
        .relation(belongs_to("project", "projects").key("project_code"))
        .build()
        .unwrap();
    let app = create_app(AppPreset::Testing).authenticator(actors()).resource(projects).resource(tasks);
    let app = TestApp::build(app).await.unwrap();
    for (who, code) in [("ann", "a1"), ("ann", "a2"), ("bob", "b1")] {
        let body = json!({"code": code, "name": format!("plan {code}")});
        let created = app.post("/projects").bearer(who).json(body).await;
        assert_eq!(created.status(), 201, "{created}");
        let task = json!({"code": format!("t-{code}"), "project_code": code, "title": "do"});
        assert_eq!(app.post("/tasks").bearer(who).json(task).await.status(), 201);
    }
    app
}

pub(crate) async fn for_each_storage<F: Future<Output = ()>>(test: impl Fn(TestStorage) -> F) {
    for storage in TestStorage::all().await {
        println!("on {}", storage.name);
        test(storage).await;
    }
}

async fn codes(app: &TestApp, who: &str, path: &str) -> Vec<String> {
    let list = app.get(path).bearer(who).await;
    assert_eq!(list.status(), 200, "{who} {path}: {list}");
    list.items().iter().map(|item| item["code"].as_str().unwrap().to_owned()).collect()
}

/// The bytes of a problem, but for what may differ.
pub(crate) fn comparable_problem(response: &TestResponse) -> (u16, Json) {
    let mut problem = response.json();
    for member in ["instance", "trace_id"] {
        problem[member] = Json::Null;
    }
    (response.status(), problem)
}

#[tokio::test]
async fn tenants_are_isolated_on_every_path() {
    for_each_storage(|storage| async move {
        let app = workspace(&storage).await;
        assert_eq!(codes(&app, "abe", "/projects").await, ["a1", "a2"]);
        assert_eq!(codes(&app, "bob", "/projects").await, ["b1"]);
        assert_eq!(codes(&app, "op", "/projects").await, ["a1", "a2", "b1"]);
        assert_eq!(codes(&app, "op-in-bolt", "/projects").await, ["b1"]);
        for query in
            ["name%5Bstarts%5D=plan", "q=plan", "sort=-name", "org_id%5Bnin%5D=acme", "tasks.title=do"]
        {
            assert_eq!(codes(&app, "bob", &format!("/projects?{query}")).await, ["b1"], "{query}");
        }
        let body = json!({"filter": {"or": [{"org_id": "acme"}, {"not": {"name": "x"}}]}});
        let asked = app.request("QUERY", "/projects").bearer("bob").json(body).await;
        assert_eq!(asked.items().len(), 1, "{asked}");
        let counted = app.get("/projects").bearer("bob").header("prefer", "count=exact").await;
        assert_eq!(counted.json()["page"]["total"], 1);
        // Who is in no tenant is let in nowhere.
        assert_eq!(app.get("/projects").bearer("eve").await.status(), 403);
        assert_eq!(app.get("/projects").await.status(), 401);

        let absent = comparable_problem(&app.get("/projects/zz").bearer("bob").await);
        assert_eq!(comparable_problem(&app.get("/projects/a1").bearer("bob").await), absent);
        assert_eq!(app.request("HEAD", "/projects/a1").bearer("bob").await.status(), 404);
        let touched = [
            app.patch("/projects/a1").bearer("bob").json(json!({"name": "x"})).await,
            app.delete("/projects/a1").bearer("bob").await,
            app.patch("/projects/a1").bearer("bob").header("if-match", "*").json(json!({})).await,
            app.delete("/projects/a1").bearer("bob").header("if-match", "*").await,
        ];
        for refused in touched {
            assert_eq!(comparable_problem(&refused), absent, "{refused}");
        }
        // PUT would create, under an id that is another tenant's.
        let put = app.put("/projects/a1").bearer("bob").json(json!({"name": "x"})).await;
        assert_eq!(put.status(), 409, "{put}");
        assert_eq!(app.get("/projects/a1").bearer("ann").await.json()["name"], "plan a1");
    })
    .await;
}

#[tokio::test]
async fn request_cannot_reach_another_tenant() {
    for_each_storage(|storage| async move {
        let app = workspace(&storage).await;
        let created = app.get("/projects/b1").bearer("bob").await.json();
        assert_eq!(created["org_id"], "bolt");
        for (method, path) in [("POST", "/projects"), ("PUT", "/projects/b2"), ("PATCH", "/projects/b1")] {
            let body = json!({"code": "b2", "name": "x", "org_id": "acme"});
            let refused = app.request(method, path).bearer("bob").json(body).await;
            assert_eq!(refused.status(), 422, "{method}: {refused}");
            let org = refused.json()["errors"]
                .as_array()
                .unwrap()
                .iter()
                .any(|fault| fault["pointer"] == "/org_id");
            assert!(org, "{method}: {refused}");
        }
        for header in ["x-tenant", "x-tenant-id", "x-organization-id"] {
            let list = app.get("/projects").bearer("bob").header(header, "acme").await;
            assert_eq!(list.items().len(), 1);
        }
        // Raised rights see over the walls, but a row needs a tenant.
        let without_tenant = app.post("/projects").bearer("op").json(json!({"code": "o", "name": "x"})).await;
        assert_eq!(without_tenant.status(), 403, "{without_tenant}");

        // Through relations, either way: a task of bolt that points at a project of acme leads nowhere.
        let stray = json!({"code": "stray", "project_code": "a1", "title": "peek", "org_id": "bolt"});
        app.app().load().rows("tasks", [stray]).unwrap().commit().await.unwrap();
        let peek = app.get("/tasks/stray?include=project").bearer("bob").await;
        assert_eq!(peek.json()["project"], Json::Null, "{peek}");
        let peek = app.get("/tasks?include=project").bearer("bob").await;
        assert!(
            peek.items().iter().all(|task| task["code"] != "stray" || task["project"].is_null()),
            "{peek}"
        );
        assert!(codes(&app, "bob", "/tasks?project.name%5Bcontains%5D=a1").await.is_empty());
        assert_eq!(codes(&app, "ann", "/projects?tasks.title=peek").await, Vec::<String>::new());
        let own = app.get("/projects/a1?include=tasks").bearer("ann").await.json();
        assert_eq!(own["tasks"].as_array().unwrap().len(), 1, "{own}");

        // Nor can one be made: what one may not see is not there to be referred to.
        for key in ["a1", "zz"] {
            let body = json!({"code": "new", "project_code": key, "title": "x"});
            let refused = app.post("/tasks").bearer("bob").json(body).await;
            let moved = app.patch("/tasks/t-b1").bearer("bob").json(json!({"project_code": key})).await;
            for refused in [refused, moved] {
                let problem = refused.json();
                assert_eq!(
                    (refused.status(), problem["code"].clone()),
                    (409, json!("foreign-key")),
                    "{refused}"
                );
                assert_eq!(problem["errors"][0]["pointer"], "/project_code", "{refused}");
            }
        }

        let page = app.get("/projects?limit=1").bearer("ann").await.json();
        let cursor = page["page"]["next"].as_str().unwrap();
        for foreign in ["bob", "abe", "op"] {
            let refused = app.get(&format!("/projects?limit=1&after={cursor}")).bearer(foreign).await;
            assert_eq!(
                (refused.status(), refused.json()["code"].clone()),
                (400, json!("invalid-cursor")),
                "{foreign}"
            );
        }
    })
    .await;
}

#[tokio::test]
async fn only_the_owner_writes_publicly_readable_rows() {
    for_each_storage(|storage| async move {
        let mut shape = model(&["code", "text"]);
        shape["properties"]["user_id"] = json!({"type": ["string", "null"]});
        let notes = define_dynamic_resource("notes", shape)
            .adapter(storage.table("notes"))
            .id_field("code")
            .permissions(Permissions::read(anyone()).write(signed_in()))
            .preset(owned_by("user_id").open([Operation::Read, Operation::List]))
            .build()
            .unwrap();
        let app = TestApp::build(create_app(AppPreset::Testing).authenticator(actors()).resource(notes))
            .await
            .unwrap();
        app.app()
            .load()
            .rows("notes", [json!({"code": "none", "text": "t", "user_id": null})])
            .unwrap()
            .commit()
            .await
            .unwrap();
        let created = app.post("/notes").bearer("eve").json(json!({"code": "n", "text": "mine"})).await;
        assert_eq!((created.status(), created.json()["user_id"].clone()), (201, json!("eve")), "{created}");
        assert_eq!(app.get("/notes").await.items().len(), 2);
        for (code, who, expected) in
            [("n", "eve", 200), ("n", "bob", 403), ("none", "eve", 403), ("none", "op", 403)]
        {
            let path = format!("/notes/{code}");
            let patched = app.patch(&path).bearer(who).json(json!({"text": "changed"})).await;
            assert_eq!(patched.status(), expected, "{who} {code}: {patched}");
            let put = app.put(&path).bearer(who).json(json!({"text": "again"})).await;
            assert_eq!(put.status(), expected, "{who} {code}: {put}");
            if expected == 403 {
                assert_eq!(app.delete(&path).bearer(who).await.status(), 403);
                assert_eq!(app.delete(&path).bearer(who).header("if-match", "*").await.status(), 403);
            }
        }
        assert_eq!(app.patch("/notes/n").json(json!({"text": "x"})).await.status(), 401);
        assert_eq!(app.delete("/notes/n").bearer("eve").await.status(), 204);
    })
    .await;
}

fn articles(storage: &TestStorage, permissions: Permissions) -> Resource {
    define_dynamic_resource("articles", model(&["code", "status", "author"]))
        .adapter(storage.table("articles"))
        .id_field("code")
        .permissions(permissions)
        .filterable(["status", "author"])
        .build()
        .unwrap()
}

/// Articles by every author in every status, under these permissions.
pub(crate) async fn articles_app(storage: &TestStorage, permissions: Permissions) -> TestApp {
    let app = create_app(AppPreset::Testing).authenticator(actors()).resource(articles(storage, permissions));
    let app = TestApp::build(app).await.unwrap();
    let all = ["eve", "bob"].into_iter().flat_map(|author| {
        ["draft", "live"]
            .map(|status| json!({"code": format!("{author}-{status}"), "status": status, "author": author}))
    });
    app.app().load().rows("articles", all).unwrap().commit().await.unwrap();
    app
}

#[tokio::test]
async fn permission_combinators_combine_row_filters() {
    let live = || rows(json!({"status": "live"}));
    let cases: [(resourceful::Permission, &str, &[&str]); 11] = [
        (any_of([owner("author"), live()]), "eve", &["bob-live", "eve-draft", "eve-live"]),
        (any_of([owner("author"), live()]), "", &["bob-live", "eve-live"]),
        (all_of([owner("author"), live()]), "eve", &["eve-live"]),
        (all_of([rows(json!({"status": "live"})), rows(json!({"status": "draft"}))]), "eve", &[]),
        (
            any_of([rows(json!({"author": "bob"})), rows(json!({"author": "eve"}))]),
            "",
            &["bob-draft", "bob-live", "eve-draft", "eve-live"],
        ),
        (not(live()), "eve", &["bob-draft", "eve-draft"]),
        (not(owner("author")), "eve", &["bob-draft", "bob-live"]),
        (
            any_of([role("chief"), owner("author")]),
            "chief",
            &["bob-draft", "bob-live", "eve-draft", "eve-live"],
        ),
        (when(|actor| actor.id() == Some("eve"), live()), "eve", &["bob-live", "eve-live"]),
        (
            any_of([when(|_| panic!("on purpose"), anyone()), owner("author")]),
            "eve",
            &["eve-draft", "eve-live"],
        ),
        (
            any_of([scope("projects:read"), elevated()]),
            "robot",
            &["bob-draft", "bob-live", "eve-draft", "eve-live"],
        ),
    ];
    for (permission, who, expected) in cases {
        let description = permission.to_string();
        let app = articles_app(&TestStorage::memory(), Permissions::read(permission).write(nobody())).await;
        let mut request = app.get("/articles");
        if !who.is_empty() {
            request = request.bearer(who);
        }
        let found: Vec<_> =
            request.await.items().iter().map(|item| item["code"].as_str().unwrap().to_owned()).collect();
        assert_eq!(found, expected, "{description} for {who:?}");
    }
    for denied in
        [all_of([]), any_of([]), not(anyone()), tenant_member(), tenant_role("admin"), same_tenant("author")]
    {
        let description = denied.to_string();
        let app = articles_app(&TestStorage::memory(), Permissions::read(denied).write(nobody())).await;
        assert_eq!(app.get("/articles").bearer("eve").await.status(), 403, "{description}");
        assert_eq!(app.get("/articles/eve-live").bearer("eve").await.status(), 403, "{description}");
    }
}

#[tokio::test]
async fn write_needs_permission_for_the_row_before_and_after() {
    for_each_storage(|storage| async move {
        let drafts = || rows(json!({"status": "draft"}));
        let permissions = Permissions::read(anyone()).create(drafts()).update(drafts()).delete(drafts());
        let app = articles_app(&storage, permissions).await;
        let article = |code: &str, status: &str| json!({"code": code, "status": status, "author": "x"});
        assert_eq!(app.post("/articles").bearer("eve").json(article("n", "draft")).await.status(), 201);
        assert_eq!(app.post("/articles").bearer("eve").json(article("m", "live")).await.status(), 403);
        assert_eq!(app.put("/articles/m").bearer("eve").json(article("m", "live")).await.status(), 403);
        assert_eq!(app.get("/articles/m").await.status(), 404);
        // Into where one may not write, and out of it.
        assert_eq!(
            app.patch("/articles/n").bearer("eve").json(json!({"status": "live"})).await.status(),
            403
        );
        assert_eq!(
            app.patch("/articles/bob-live").bearer("eve").json(json!({"status": "draft"})).await.status(),
            403
        );
        assert_eq!(app.put("/articles/n").bearer("eve").json(article("n", "live")).await.status(), 403);
        assert_eq!(app.delete("/articles/bob-live").bearer("eve").await.status(), 403);
        assert_eq!(app.get("/articles/n").await.json()["status"], "draft");
        assert_eq!(app.patch("/articles/n").bearer("eve").json(json!({"author": "y"})).await.status(), 200);
        assert_eq!(app.delete("/articles/n").bearer("eve").await.status(), 204);
    })
    .await;
}

#[tokio::test]
async fn unreadable_rows_are_hidden_from_lists_and_writes() {
    let permissions = Permissions::read(rows(json!({"status": "live"})))
        .list(rows(json!({"author": "eve"})))
        .write(anyone());
    let app = articles_app(&TestStorage::memory(), permissions).await;
    assert_eq!(codes(&app, "eve", "/articles").await, ["eve-live"]);
    assert_eq!(app.get("/articles/bob-live").await.status(), 200);
    assert_eq!(app.get("/articles/eve-draft").await.status(), 404);
    // Open to anyone to change, but what one does not see one does not change.
    let hidden = app.patch("/articles/eve-draft").bearer("eve").json(json!({"author": "x"})).await;
    assert_eq!(hidden.status(), 404, "{hidden}");
    let vanishing = app.patch("/articles/eve-live").bearer("eve").json(json!({"status": "draft"})).await;
    assert_eq!(vanishing.status(), 403, "{vanishing}");
}

#[tokio::test]
async fn checks_run_only_when_needed_and_deny_on_failure() {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    let asked = Arc::new(AtomicUsize::new(0));
    let counting = {
        let asked = asked.clone();
        check("counting", move |asking| {
            asked.fetch_add(1, Ordering::SeqCst);
            async move {
                match asking.actor.id() {
                    Some("eve") => Ok(Decision::allow_where(json!({"author": "eve"}))),
                    Some("bob") => Err("the other service is away".into()),
                    Some("ann") => Ok(Decision::allow_where(json!({"no-such-field": 1}))),
                    Some("abe") => panic!("on purpose"),
                    _ => Ok(Decision::deny("a stranger")),
                }
            }
        })
    };
    let permission = any_of([role("chief"), counting]);
    let app = articles_app(&TestStorage::memory(), Permissions::read(permission).write(nobody())).await;
    assert_eq!(app.get("/articles").bearer("chief").await.items().len(), 4);
    assert_eq!(asked.load(Ordering::SeqCst), 0, "the role said enough");
    assert_eq!(codes(&app, "eve", "/articles").await, ["eve-draft", "eve-live"]);
    assert!(asked.load(Ordering::SeqCst) > 0);
    for who in ["bob", "ann", "abe", "op"] {
        let refused = app.get("/articles").bearer(who).await;
        assert_eq!((refused.status(), refused.json()["code"].clone()), (403, json!("forbidden")), "{who}");
        assert!(!refused.text().contains("stranger") && !refused.text().contains("away"), "{refused}");
    }
    assert_eq!(app.get("/articles").await.status(), 401);
}

#[tokio::test]
async fn role_hierarchy_holds_on_every_path() {
    let storage = TestStorage::memory();
    let app = create_app(AppPreset::Testing)
        .authenticator(actors())
        .roles(RoleHierarchy::new().includes("chief", ["editor"]).includes("editor", ["reader", "chief"]))
        .resource(articles(&storage, Permissions::read(role("reader")).write(role("editor"))));
    let app = TestApp::build(app).await.unwrap();
    assert_eq!(app.get("/articles").bearer("chief").await.status(), 200);
    assert_eq!(
        app.post("/articles")
            .bearer("chief")
            .json(json!({"code": "x", "status": "s", "author": "a"}))
            .await
            .status(),
        201
    );
    assert_eq!(app.get("/articles").bearer("eve").await.status(), 403);
}

#[test]
fn invalid_rules_are_reported_at_build() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let build = |resource: Resource| {
        let app = create_app(AppPreset::Testing).resource(resource);
        runtime.block_on(app.build()).unwrap_err().to_string()
    };
    let storage = TestStorage::memory();
    let with = |permission| articles(&storage, Permissions::read(permission).write(nobody()));
    let description = build(with(owner("auhtor")));
    assert!(
        description.contains("owner(\"auhtor\")") && description.contains("Did you mean `author`?"),
        "{description}"
    );
    let description = build(with(any_of([anyone(), rows(json!({"status": {"bigger": 1}}))])));
    assert!(description.contains("no operator `bigger`"), "{description}");
    let secret = define_dynamic_resource("articles", model(&["code", "status", "author"]))
        .adapter(storage.table("secret"))
        .id_field("code")
        .permissions(Permissions::all(anyone()))
        .visible_to(["status"], owner("author"))
        .build()
        .unwrap();
    let description = build(secret);
    assert!(
        description.contains("articles.status") && description.contains("depends on the row"),
        "{description}"
    );
    let unknown = define_dynamic_resource("articles", model(&["code", "status", "author"]))
        .adapter(storage.table("unknown"))
        .id_field("code")
        .permissions(Permissions::all(anyone()))
        .visible_to(["stauts"], anyone())
        .writable_by(["nope"], anyone())
        .fill("nobody", resourceful::resource::Fill::Actor)
        .build()
        .unwrap_err()
        .to_string();
    for setter in [".visible_to(…)", ".writable_by(…)", ".fill(…)"] {
        assert!(unknown.contains(setter), "{unknown}");
    }
}

#[tokio::test]
async fn an_explanation_names_the_rule_that_decided() {
    use resourceful::app::{Outcome, RuleOutcome};
    let app = workspace(&TestStorage::memory()).await;
    let bob = Actor::user("bob").in_tenant("bolt", ["admin"]);
    let why = async |actor: &Actor, operation, id| {
        app.app().explain(actor, "projects", operation, id).await.unwrap()
    };

    let hidden = why(&bob, Operation::Update, Some("a1")).await;
    assert_eq!(hidden.outcome, Outcome::Hidden);
    let tenant_rule = hidden.visibility.iter().find(|step| step.rule == "same_tenant(\"org_id\")").unwrap();
    assert_eq!((tenant_rule.said, tenant_rule.row_matches), (RuleOutcome::AllowWhere, Some(false)));
    assert_eq!(why(&bob, Operation::Read, Some("b1")).await.outcome, Outcome::Allowed);
    assert_eq!(why(&bob, Operation::Read, Some("zz")).await.outcome, Outcome::Absent);
    assert_eq!(why(&bob, Operation::List, None).await.outcome, Outcome::Allowed);
    assert_eq!(why(&Actor::anonymous(), Operation::List, None).await.outcome, Outcome::Unauthenticated);
    let stranger = why(&Actor::user("eve"), Operation::Create, None).await;
    assert_eq!(stranger.outcome, Outcome::Forbidden);
    let last = stranger.operation.last().unwrap();
    assert_eq!((last.said, last.reason.as_deref()), (RuleOutcome::Deny, Some("not in any tenant")));
    assert!(app.app().explain(&bob, "nothing", Operation::List, None).await.is_err());
}

#[tokio::test]
async fn role_table_grants_operations_to_roles() {
    let rights = resourceful::access::RoleTable::new()
        .allow("chief", "articles", Operation::ALL)
        .allow("member", "articles", [Operation::List, Operation::Read])
        .allow("admin", "others", Operation::ALL);
    let app = articles_app(&TestStorage::memory(), Permissions::all(rights.permission())).await;
    let body = || json!({"code": "n", "status": "live", "author": "x"});
    for (who, read, write) in [("chief", 200, 201), ("abe", 200, 403), ("ann", 403, 403), ("eve", 403, 403)] {
        assert_eq!(app.get("/articles").bearer(who).await.status(), read, "{who}");
        assert_eq!(app.get("/articles/eve-live").bearer(who).await.status(), read, "{who}");
        assert_eq!(app.post("/articles").bearer(who).json(body()).await.status(), write, "{who}");
    }
    assert_eq!(app.get("/articles").await.status(), 401);
}

#[tokio::test]
async fn shared_invalid_rule_is_reported_once() {
    let notes = define_dynamic_resource("notes", model(&["code"]))
        .adapter(TestStorage::memory().table("notes"))
        .id_field("code")
        .permissions(Permissions::all(anyone()))
        .policy(rows(json!({"owned_by": "ada"})))
        .build()
        .unwrap();
    let errors = create_app(AppPreset::Testing).resource(notes).build().await.unwrap_err();
    let [fault] = errors.faults() else { panic!("{errors}") };
    assert!(fault.message.contains("owned_by"), "{errors}");
}
