//! What an application does around its changes: on every path, once each, and never by halves.

use std::sync::{Arc, Mutex};

use resourceful::prelude::*;
use resourceful::testing::TestApp;
use resourceful::{AppBuilder, Change, Error, ErrorKind, Hook};
use serde_json::{Map, Value as Json, json};
use tokio::sync::mpsc;

use crate::support::TestStorage;

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, Validate)]
struct Account {
    #[validate(length(min = 1, max = 20))]
    code: String,
    owner: String,
    #[validate(range(min = 0, max = 100))]
    points: i64,
    #[serde(default)]
    level: String,
    version: i64,
}

const WRITES: [Operation; 3] = [Operation::Create, Operation::Update, Operation::Delete];

fn accounts(place: &TestStorage) -> resourceful::ResourceBuilder {
    define_resource::<Account>("accounts")
        .adapter(place.table("accounts"))
        .permissions(Permissions::read(anyone()).write(owner("owner")))
        .id_field("code")
        .version("version")
        .read_only(["level"])
}

fn app_builder(
    place: &TestStorage,
    change: impl FnOnce(resourceful::ResourceBuilder) -> resourceful::ResourceBuilder,
) -> AppBuilder {
    let tokens = BearerTokens::new().token("ada", Actor::user("ada")).token("bob", Actor::user("bob"));
    create_app(AppPreset::Testing).authenticator(tokens).resource(change(accounts(place)).build().unwrap())
}

async fn start(
    place: &TestStorage,
    change: impl FnOnce(resourceful::ResourceBuilder) -> resourceful::ResourceBuilder,
) -> TestApp {
    TestApp::build(app_builder(place, change)).await.unwrap()
}

fn account(code: &str, points: i64) -> Json {
    json!({"code": code, "owner": "ada", "points": points})
}

/// Sets the level that follows from the points, and refuses a number that brings no luck.
fn level(account: &mut Account, change: &mut Change) -> Result<(), Error> {
    if account.points == 13 {
        return Err(Error::new(ErrorKind::Conflict, "unlucky", "Choose another number."));
    }
    let before = change.current().map_or("new", |current| current["level"].as_str().unwrap_or_default());
    account.level = format!("{} after {before}", if account.points < 50 { "low" } else { "high" });
    Ok(())
}

#[tokio::test]
async fn before_hook_sets_fields_on_every_write() {
    for place in TestStorage::all().await {
        let app =
            start(&place, |accounts| accounts.before([Operation::Create, Operation::Update], level)).await;
        let level = |answer: &resourceful::testing::TestResponse| answer.json()["level"].clone();
        let created = app.post("/accounts").bearer("ada").json(account("a", 1)).await;
        assert_eq!((created.status(), level(&created)), (201, json!("low after new")), "{created}");
        let patched = app.patch("/accounts/a").bearer("ada").json(json!({"points": 60})).await;
        assert_eq!(
            (patched.status(), level(&patched)),
            (200, json!("high after low after new")),
            "{patched}"
        );
        let put = app.put("/accounts/a").bearer("ada").json(account("a", 2)).await;
        assert_eq!(put.status(), 200, "{put}");
        assert!(level(&put).as_str().unwrap().starts_with("low after high"), "{put}");
        let put = app.put("/accounts/b").bearer("ada").json(account("b", 99)).await;
        assert_eq!((put.status(), level(&put)), (201, json!("high after new")), "{put}");
        // What was answered is what is stored.
        assert_eq!(app.get("/accounts/b").await.json()["level"], "high after new");
        // A patch that changes nothing is none.
        let tag = app.get("/accounts/b").await.header("etag").map(str::to_owned);
        let same = app.patch("/accounts/b").bearer("ada").json(json!({"points": 99})).await;
        assert_eq!(same.header("etag").map(str::to_owned), tag);
    }
}

#[tokio::test]
async fn hook_error_is_returned_and_changes_nothing() {
    for place in TestStorage::all().await {
        let app = start(&place, |accounts| {
            accounts.before([Operation::Create, Operation::Update], level).before(
                [Operation::Delete],
                |account: &mut Account, change: &mut Change| {
                    assert_eq!((change.operation(), change.item()), (Operation::Delete, None));
                    if account.points > 0 {
                        return Err(Error::new(ErrorKind::Conflict, "not-empty", "Spend the points first."));
                    }
                    Ok(())
                },
            )
        })
        .await;
        app.post("/accounts").bearer("ada").json(account("a", 1)).await;
        for (method, path, body) in [
            ("POST", "/accounts", Some(account("b", 13))),
            ("PUT", "/accounts/b", Some(account("b", 13))),
            ("PUT", "/accounts/a", Some(account("a", 13))),
            ("PATCH", "/accounts/a", Some(json!({"points": 13}))),
            ("DELETE", "/accounts/a", None),
        ] {
            let request = app.request(method, path).bearer("ada");
            let refused = match body {
                Some(body) => request.json(body).await,
                None => request.await,
            };
            let code = if method == "DELETE" { "not-empty" } else { "unlucky" };
            assert_eq!(
                (refused.status(), refused.json()["code"].clone()),
                (409, json!(code)),
                "{method} {path}"
            );
        }
        assert_eq!(app.get("/accounts").await.items().len(), 1);
        assert_eq!(app.get("/accounts/a").await.json()["points"], 1);
        app.patch("/accounts/a").bearer("ada").json(json!({"points": 0})).await;
        assert_eq!(app.delete("/accounts/a").bearer("ada").await.status(), 204);
    }
}

#[tokio::test]
async fn hook_runs_after_authorization_and_its_values_are_validated() {
    let seen = Arc::new(Mutex::new(0));
    let counted = seen.clone();
    let place = TestStorage::memory();
    let app = start(&place, |accounts| {
        accounts.before(WRITES, move |account: &mut Account, _: &mut Change| {
            *counted.lock().unwrap() += 1;
            match account.points {
                20 => account.points = 1_000,
                21 => account.owner = "bob".to_owned(),
                22 => (account.code, account.version) = ("elsewhere".to_owned(), 77),
                _ => {}
            }
            Ok(())
        })
    })
    .await;
    let created = app.post("/accounts").bearer("ada").json(account("a", 1)).await.json();
    assert_eq!(*seen.lock().unwrap(), 1);
    // Neither who may not nor what is wrong gets as far as a hook.
    assert_eq!(app.patch("/accounts/a").bearer("bob").json(json!({"points": 2})).await.status(), 403);
    assert_eq!(app.delete("/accounts/a").bearer("bob").await.status(), 403);
    assert_eq!(app.delete("/accounts/a").await.status(), 401);
    assert_eq!(app.patch("/accounts/a").bearer("ada").json(json!({"points": -1})).await.status(), 422);
    assert_eq!(app.post("/accounts").bearer("ada").json(json!({"code": "b"})).await.status(), 422);
    assert_eq!(*seen.lock().unwrap(), 1);
    let patch =
        async |points: i64| app.patch("/accounts/a").bearer("ada").json(json!({"points": points})).await;
    let broken = patch(20).await;
    assert_eq!((broken.status(), broken.json()["errors"][0]["pointer"].clone()), (422, json!("/points")));
    assert_eq!(patch(21).await.status(), 403, "nobody gives a row away, by a hook neither");
    let kept = patch(22).await.json();
    assert_eq!(
        (kept["code"].clone(), kept["version"].clone()),
        (json!("a"), json!(created["version"].as_i64().unwrap() + 1)),
        "not a hook's to set"
    );
}

/// Writes down what it is told.
struct RecordingHook(&'static str, Arc<Mutex<Vec<String>>>);

impl RecordingHook {
    fn note(&self, when: &str, change: &Change) {
        let points = |item: Option<&Map<String, Json>>| {
            item.map_or("-".to_owned(), |item| format!("{}v{}", item["points"], item["version"]))
        };
        let (from, to) = (points(change.current()), points(change.item()));
        let who = change.actor().id().unwrap_or_default();
        let (name, operation) = (self.0, change.operation().name());
        self.1
            .lock()
            .unwrap()
            .push(format!("{name} {when} {operation} {}: {from} to {to} by {who}", change.resource()));
    }
}

impl Hook for RecordingHook {
    fn before<'a>(&'a self, change: &'a mut Change) -> futures::future::BoxFuture<'a, Result<(), Error>> {
        self.note("before", change);
        Box::pin(std::future::ready(Ok(())))
    }

    fn after<'a>(
        &'a self,
        change: &'a Change,
    ) -> futures::future::BoxFuture<'a, Result<(), Box<dyn std::error::Error + Send + Sync>>> {
        self.note("after", change);
        Box::pin(std::future::ready(Ok(())))
    }
}

#[tokio::test]
async fn application_hooks_run_first_and_in_order() {
    for place in TestStorage::all().await {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let diary = |name| RecordingHook(name, lines.clone());
        let own = (diary("first"), diary("second"));
        let app = app_builder(&place, |accounts| accounts.hook(own.0).hook(own.1)).hook(diary("app"));
        let app = TestApp::build(app).await.unwrap();
        let created = app.post("/accounts").bearer("ada").json(account("a", 1)).await.json();
        app.patch("/accounts/a").bearer("ada").json(json!({"points": 2})).await;
        app.delete("/accounts/a").bearer("ada").await;
        let first = created["version"].as_i64().unwrap();
        let [one, changing, two] =
            [(1, first), (2, first), (2, first + 1)].map(|(points, version)| format!("{points}v{version}"));
        let mut expected = Vec::new();
        for (operation, from, to, stored) in
            [("create", "-", &*one, &*one), ("update", &one, &changing, &two), ("delete", &two, "-", "-")]
        {
            for (when, to) in [("before", to), ("after", stored)] {
                for name in ["app", "first", "second"] {
                    expected.push(format!("{name} {when} {operation} accounts: {from} to {to} by ada"));
                }
            }
        }
        assert_eq!(*lines.lock().unwrap(), expected);
    }
}

#[tokio::test]
async fn after_hook_failure_does_not_change_the_response() {
    let (sender, mut receiver) = mpsc::unbounded_channel();
    let place = TestStorage::memory();
    let app = start(&place, |accounts| {
        accounts
            .after(WRITES, async |_: Account, _: Change| Err("the mail is away".into()))
            .after(WRITES, async |_: Account, _: Change| panic!("on purpose"))
            .after(WRITES, move |account: Account, change: Change| {
                sender.send((change.operation(), account.points)).unwrap();
                std::future::ready(Ok(()))
            })
    })
    .await;
    assert_eq!(app.post("/accounts").bearer("ada").json(account("a", 1)).await.status(), 201);
    assert_eq!(app.patch("/accounts/a").bearer("ada").json(json!({"points": 2})).await.status(), 200);
    assert_eq!(app.patch("/accounts/a").bearer("ada").json(json!({"points": 2})).await.status(), 200);
    assert_eq!(app.delete("/accounts/a").bearer("ada").await.status(), 204);
    let mut all = Vec::new();
    while let Ok(one) = receiver.try_recv() {
        all.push(one);
    }
    // Once for each change, and not for the patch that changed nothing.
    assert_eq!(all, [(Operation::Create, 1), (Operation::Update, 2), (Operation::Delete, 2)]);
    assert_eq!(app.app().hook_failures(), 6, "two for each change");
}

#[tokio::test]
async fn client_disconnect_does_not_cancel_after_hooks() {
    let (began, mut begun) = mpsc::unbounded_channel();
    let (ended, mut end) = mpsc::unbounded_channel();
    let gate = Arc::new(tokio::sync::Semaphore::new(0));
    let opened = gate.clone();
    let app = start(&TestStorage::memory(), |accounts| {
        accounts.after([Operation::Create], move |account: Account, _: Change| {
            let (began, ended, gate) = (began.clone(), ended.clone(), opened.clone());
            async move {
                began.send(()).unwrap();
                gate.acquire().await.unwrap().forget();
                ended.send(account.code).unwrap();
                Ok(())
            }
        })
    })
    .await;
    let creating = app.clone();
    let request =
        tokio::spawn(
            async move { creating.post("/accounts").bearer("ada").json(account("a", 1)).await.status() },
        );
    begun.recv().await.unwrap();
    request.abort();
    assert!(request.await.unwrap_err().is_cancelled());
    gate.add_permits(1);
    assert_eq!(end.recv().await.as_deref(), Some("a"));
    assert_eq!(app.get("/accounts/a").await.status(), 200);
}

#[tokio::test]
async fn before_hook_is_rerun_after_a_concurrent_change() {
    for place in TestStorage::all().await {
        // What is asked for is added to what is there: right only on the state that is changed.
        let app = start(&place, |accounts| {
            accounts.before([Operation::Update], |account: &mut Account, change: &mut Change| {
                let there =
                    change.current().and_then(|current| current["points"].as_i64()).unwrap_or_default();
                account.points = there + 1;
                account.level = format!("{:>3}", account.points);
                Ok(())
            })
        })
        .await;
        app.post("/accounts").bearer("ada").json(account("a", 0)).await;
        let add = async |number: i64| {
            let mut status = 409;
            while status == 409 {
                let patch = json!({"points": 100 - number % 2});
                status = app.patch("/accounts/a").bearer("ada").json(patch).await.status();
            }
            status
        };
        let all = futures::future::join_all((0..20).map(add)).await;
        assert!(all.iter().all(|status| *status == 200), "{all:?}");
        assert_eq!(app.get("/accounts/a").await.json()["points"], 20, "{}", place.name);
    }
}

#[test]
fn hook_with_another_item_type_does_not_build() {
    #[derive(Serialize, Deserialize)]
    struct Invoice {
        total: i64,
    }
    let place = TestStorage::memory();
    let faults = accounts(&place)
        .before([Operation::Create], |invoice: &mut Invoice, _: &mut Change| {
            invoice.total += 1;
            Ok(())
        })
        .before([Operation::Create], |any: &mut Map<String, Json>, _: &mut Change| {
            any.clear();
            Ok(())
        })
        .build()
        .unwrap_err();
    assert_eq!(faults.faults().len(), 1, "{faults}");
    let text = faults.to_string();
    assert!(text.contains("Invoice`, and they are `") && text.contains("Account`"), "{text}");
}

/// Accounts whose every change leaves a movement in the same commit.
async fn ledger(place: &TestStorage) -> TestApp {
    let model = json!({
        "type": "object",
        "properties": {
            "id": {"type": "integer"},
            "account_code": {"type": "string"},
            "by": {"type": "integer", "maximum": 90},
            "label": {"type": ["string", "null"]},
        },
        "required": ["id", "account_code", "by"],
    });
    let movements = define_dynamic_resource("movements", model)
        .adapter(place.table("movements"))
        .permissions(Permissions::read(anyone()).write(nobody()))
        .unique(["label"])
        .relation(belongs_to("account", "accounts").key("account_code"))
        .build()
        .unwrap();
    let app = app_builder(place, |accounts| {
        accounts
            .before([Operation::Create, Operation::Update], |account: &mut Account, change: &mut Change| {
                let before =
                    change.current().and_then(|current| current["points"].as_i64()).unwrap_or_default();
                let label = (account.points == 42).then_some("the answer");
                let by = account.points - before;
                change.create("movements", json!({"account_code": account.code, "by": by, "label": label}));
                if change.current().is_some() && account.code != "busy" {
                    change.update("accounts", "busy", json!({"level": account.code}));
                }
                Ok(())
            })
            .before([Operation::Delete], |account: &mut Account, change: &mut Change| {
                for id in 1..=account.points {
                    change.delete("movements", id.to_string());
                }
                Ok(())
            })
            .relation(has_many("movements", "movements").key("account_code"))
    });
    TestApp::build(app.resource(movements)).await.unwrap()
}

async fn movements(app: &TestApp) -> Vec<(String, i64)> {
    let items = app.get("/movements?sort=id").await.items();
    items
        .iter()
        .map(|item| (item["account_code"].as_str().unwrap().to_owned(), item["by"].as_i64().unwrap()))
        .collect()
}

#[tokio::test]
async fn enlisted_changes_are_committed_atomically_with_the_change() {
    for place in TestStorage::all().await {
        let app = ledger(&place).await;
        let post = async |code: &str, points: i64| {
            app.post("/accounts").bearer("ada").json(account(code, points)).await
        };
        for (code, points) in [("busy", 0), ("a", 42)] {
            assert_eq!(post(code, points).await.status(), 201, "{}", place.name);
        }
        let patched = app.patch("/accounts/a").bearer("ada").json(json!({"points": 50})).await;
        assert_eq!(patched.status(), 200, "{patched}");
        let all = [("busy".to_owned(), 0), ("a".to_owned(), 42), ("a".to_owned(), 8)];
        assert_eq!(movements(&app).await, all);
        assert_eq!(app.get("/accounts/busy").await.json()["level"], "a", "an item of the same resource too");

        // The movement clashes, so the account is not there either, and its caller learns nothing of movements.
        let clash = post("b", 42).await;
        assert_eq!((clash.status(), clash.json()["code"].clone()), (409, json!("conflict")), "{clash}");
        assert_eq!(clash.json().get("errors"), None, "{clash}");
        assert_eq!(app.get("/accounts/b").await.status(), 404);
        // The movement breaks its own rules: no fault of the caller.
        assert_eq!(post("c", 95).await.status(), 500);
        assert_eq!(app.patch("/accounts/busy").bearer("ada").json(json!({"points": 95})).await.status(), 500);
        assert_eq!(app.get("/accounts/busy").await.json()["points"], 0);
        assert_eq!(movements(&app).await, all);
        // The account clashes, so there is no movement.
        assert_eq!(post("a", 1).await.json()["code"], "unique");
        assert_eq!(movements(&app).await, all);
    }
}

#[tokio::test]
async fn enlisted_deletes_of_referring_items_are_applied_first() {
    for place in TestStorage::all().await {
        let app = ledger(&place).await;
        app.post("/accounts").bearer("ada").json(account("a", 1)).await;
        app.post("/accounts").bearer("ada").json(account("b", 0)).await;
        app.post("/accounts").bearer("ada").json(account("busy", 0)).await;
        // Its hook deletes the movement that holds it.
        assert_eq!(app.delete("/accounts/a").bearer("ada").await.status(), 204, "{}", place.name);
        let left = [("b".to_owned(), 0), ("busy".to_owned(), 0), ("b".to_owned(), 1)];
        assert_eq!(movements(&app).await, left[..2]);
        // This one's does not, and all stays.
        assert_eq!(app.delete("/accounts/b").bearer("ada").await.status(), 409, "{}", place.name);
        // Nor can it delete what is not there.
        let patched = app.patch("/accounts/b").bearer("ada").json(json!({"points": 1})).await;
        assert_eq!(patched.status(), 200, "{patched}");
        let refused = app.delete("/accounts/b").bearer("ada").await;
        assert_eq!((refused.status(), refused.json()["code"].clone()), (409, json!("conflict")), "{refused}");
        assert_eq!(movements(&app).await, left);
    }
}

#[tokio::test]
async fn concurrent_enlisted_changes_of_one_item_are_all_applied() {
    for place in TestStorage::all().await {
        let app = ledger(&place).await;
        app.post("/accounts").bearer("ada").json(account("busy", 0)).await;
        for number in 0..8 {
            app.post("/accounts").bearer("ada").json(account(&format!("n{number}"), 1)).await;
        }
        let before = app.get("/accounts/busy").await.json()["version"].as_i64().unwrap();
        let change = async |number: i64| {
            let path = format!("/accounts/n{number}");
            let tag = app.get(&path).await.header("etag").unwrap().to_owned();
            // A version is expected of the account, not of what its hook enlists.
            let patch = app.patch(&path).bearer("ada").header("if-match", tag).json(json!({"points": 2}));
            patch.await.status()
        };
        let all = futures::future::join_all((0..8).map(change)).await;
        assert!(all.iter().all(|status| *status == 200), "{}: {all:?}", place.name);
        let after = app.get("/accounts/busy").await.json()["version"].as_i64().unwrap();
        assert_eq!(after - before, 8, "{}", place.name);
        assert_eq!(movements(&app).await.len(), 1 + 8 + 8);
    }
}

/// Stands around every operation, and behaves as its account's code says.
struct AroundHook(&'static str, Arc<Mutex<Vec<String>>>);

impl Hook for AroundHook {
    fn around<'a>(
        &'a self,
        change: &'a Change,
        next: resourceful::resource::Next<'a>,
    ) -> futures::future::BoxFuture<'a, Result<(), Error>> {
        Box::pin(async move {
            let note = |what: &str| {
                let line = format!("{} {what} {}", self.0, change.operation().name());
                self.1.lock().unwrap().push(line);
            };
            note("before");
            match self.0 {
                "closed" => {
                    return Err(Error::new(ErrorKind::Conflict, "closed", "Come back in the morning."));
                }
                "lazy" => return Ok(()),
                _ => {}
            }
            let outcome = next.run().await;
            note(if outcome.is_ok() { "after" } else { "failed" });
            assert_ne!(self.0, "panics", "on purpose");
            if self.0 == "late" {
                return Err(Error::new(ErrorKind::Conflict, "late", "Too late."));
            }
            outcome
        })
    }
}

async fn app_with_around_hooks(
    place: &TestStorage,
    names: &[&'static str],
) -> (TestApp, Arc<Mutex<Vec<String>>>) {
    let lines = Arc::new(Mutex::new(Vec::new()));
    let app = app_builder(place, |accounts| {
        names.iter().fold(accounts, |accounts, name| accounts.hook(AroundHook(name, lines.clone())))
    });
    (TestApp::build(app).await.unwrap(), lines)
}

#[tokio::test]
async fn around_hook_wraps_each_operation() {
    for place in TestStorage::all().await {
        let (app, lines) = app_with_around_hooks(&place, &["outer", "inner"]).await;
        let around = |operation: &str, end: &str| {
            ["outer before", "inner before", &format!("inner {end}"), &format!("outer {end}")]
                .map(|line| format!("{line} {operation}"))
        };
        assert_eq!(app.post("/accounts").bearer("ada").json(account("a", 1)).await.status(), 201);
        assert_eq!(app.patch("/accounts/a").bearer("ada").json(json!({"points": 2})).await.status(), 200);
        assert_eq!(app.patch("/accounts/a").bearer("ada").json(json!({"points": -2})).await.status(), 422);
        assert_eq!(app.put("/accounts/a").bearer("ada").json(account("a", 3)).await.status(), 200);
        assert_eq!(app.delete("/accounts/a").bearer("ada").await.status(), 204);
        assert_eq!(app.delete("/accounts/a").await.status(), 401, "nobody gets here who may not");
        let expected = [
            around("create", "after"),
            around("update", "after"),
            around("update", "failed"),
            around("replace", "after"),
            around("delete", "after"),
        ];
        assert_eq!(*lines.lock().unwrap(), expected.concat());
    }
}

#[tokio::test]
async fn around_hook_can_refuse_only_before_the_commit() {
    for place in TestStorage::all().await {
        let (closed, _) = app_with_around_hooks(&place, &["outer", "closed", "inner"]).await;
        let refused = closed.post("/accounts").bearer("ada").json(account("a", 1)).await;
        assert_eq!((refused.status(), refused.json()["code"].clone()), (409, json!("closed")));
        assert_eq!(closed.get("/accounts/a").await.status(), 404);
        // One that does neither is a fault of the application's.
        let (lazy, _) = app_with_around_hooks(&place, &["lazy"]).await;
        assert_eq!(lazy.post("/accounts").bearer("ada").json(account("a", 1)).await.status(), 500);
        assert_eq!(lazy.get("/accounts/a").await.status(), 404);
        // What is committed stays so, and its caller is told so.
        for (name, code) in [("late", "a"), ("panics", "b")] {
            let (late, _) = app_with_around_hooks(&place, &[name]).await;
            let created = late.post("/accounts").bearer("ada").json(account(code, 1)).await;
            assert_eq!(created.status(), 201, "{name}");
            assert_eq!(late.get(&format!("/accounts/{code}")).await.status(), 200, "{name}");
        }
    }
}
