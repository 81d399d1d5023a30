//! Who changed what: written with the change, shown to those who may, and chained.

use std::time::Duration;

use resourceful::adapter::Migration;
use resourceful::prelude::*;
use resourceful::testing::{TestApp, TestResponse, policy_matrix};
use resourceful::{AppBuilder, Change, ResourceBuilder};
use serde_json::{Value as Json, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::support::aged_rows::{AUDIT, audit_rows};
use crate::support::{TestStorage, faults};

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, Validate)]
struct Deal {
    id: i64,
    org_id: String,
    name: String,
    cents: i64,
    margin: Option<i64>,
    secret: String,
    #[serde(default)]
    note: String,
}

fn deals(place: &TestStorage) -> ResourceBuilder {
    audited(place, trail())
}

fn trail() -> resourceful::resource::AuditTrail {
    audit().readable_by(tenant_role("auditor")).revertible_by(tenant_role("auditor"))
}

fn audited(place: &TestStorage, trail: resourceful::resource::AuditTrail) -> ResourceBuilder {
    define_resource::<Deal>("deals")
        .adapter(place.table("deals"))
        .permissions(Permissions::all(tenant_member()))
        .preset(multi_tenant("org_id"))
        .preset(bulk())
        .preset(trail)
        .version("version")
        .write_only(["secret"])
        .visible_to(["margin"], tenant_role("auditor"))
}

async fn app_of(resource: ResourceBuilder) -> TestApp {
    TestApp::build(app_builder(resource)).await.unwrap()
}

fn app_builder(resource: ResourceBuilder) -> AppBuilder {
    let of = |name: &'static str, tenant: &'static str, role: &'static str| {
        Actor::user(name).in_tenant(tenant, [role])
    };
    let tokens = BearerTokens::new()
        .token("ada", of("ada", "acme", "member"))
        .token("audrey", of("audrey", "acme", "auditor"))
        .token("bob", of("bob", "bolt", "auditor"));
    create_app(AppPreset::Testing).authenticator(tokens).resource(resource.build().unwrap())
}

async fn create(app: &TestApp, name: &str) -> String {
    let body = json!({"name": name, "cents": 1, "margin": 7, "secret": "s3cret"});
    let created = app.post("/deals").bearer("audrey").header("x-request-id", "r-1").json(body).await;
    assert_eq!(created.status(), 201, "{created}");
    created.header("location").unwrap().to_owned()
}

async fn history(app: &TestApp, path: &str, who: &str) -> TestResponse {
    app.get(&format!("{path}/history")).bearer(who).await
}

fn now() -> String {
    // Entries are exact to the microsecond, and this is between two of them.
    Utc::now().to_rfc3339_opts(chrono::SecondsFormat::Micros, true)
}

#[tokio::test]
async fn every_change_writes_an_audit_entry_with_actor_and_changes() {
    for place in TestStorage::all().await {
        let app = app_of(deals(&place)).await;
        let path = create(&app, "a").await;
        app.patch(&path).bearer("ada").json(json!({"cents": 5, "secret": "another"})).await;
        app.patch(&path).bearer("ada").json(json!({"cents": 5})).await; // changes nothing
        app.patch("/deals/bulk").bearer("ada").json(json!({"items": [{"id": 1, "note": "n"}]})).await;
        let answer = history(&app, &path, "audrey").await;
        assert_eq!(answer.status(), 200, "{}: {answer}", place.name);
        let entries = answer.items();
        let done: Vec<_> = entries.iter().map(|entry| (&entry["operation"], &entry["actor"])).collect();
        let (ada, audrey) = (json!("ada"), json!("audrey"));
        assert_eq!(done, [(&json!("update"), &ada), (&json!("update"), &ada), (&json!("create"), &audrey)]);
        assert_eq!(entries[0]["changes"], json!({"note": {"from": "", "to": "n"}}));
        assert_eq!(entries[1]["changes"], json!({"cents": {"from": 1, "to": 5}, "secret": {}}), "no secret");
        let first = &entries[2];
        assert_eq!((&first["request_id"], &first["tenant"]), (&json!("r-1"), &json!("acme")));
        assert_eq!(first["changes"]["id"], json!({"from": null, "to": 1}));
        assert_eq!(first["changes"]["name"], json!({"from": null, "to": "a"}));

        app.delete(&path).bearer("ada").await;
        let after = history(&app, &path, "audrey").await.items();
        assert_eq!(
            (&after[0]["operation"], &after[0]["changes"]["cents"]),
            (&json!("delete"), &json!({"from": 5, "to": null}))
        );
        assert_eq!(history(&app, &path, "bob").await.status(), 404, "of another tenant, gone or not");
    }
}

#[tokio::test]
async fn history_requires_permission_and_omits_hidden_fields() {
    for place in TestStorage::all().await {
        let app = app_of(deals(&place).visible_to(["note"], tenant_role("nobody"))).await;
        let path = create(&app, "a").await;
        assert_eq!(app.get(&format!("{path}/history")).await.status(), 401);
        assert_eq!(history(&app, &path, "ada").await.status(), 403);
        assert_eq!(history(&app, &path, "bob").await.status(), 404);
        assert_eq!(history(&app, "/deals/77", "audrey").await.status(), 404);
        let entry = history(&app, &path, "audrey").await.items().remove(0);
        assert_eq!(
            (entry["changes"].get("note"), entry["changes"]["margin"]["to"].clone()),
            (None, json!(7))
        );
        for cents in 2..6 {
            app.patch(&path).bearer("ada").json(json!({"cents": cents})).await;
        }
        let first = app.get(&format!("{path}/history?limit=2")).bearer("audrey").await;
        let page = first.json();
        let next = page["page"]["next"].as_str().unwrap();
        let links = format!(
            "<{path}/history?limit=2&after={next}>; rel=\"next\", <{path}/history?limit=2>; rel=\"first\""
        );
        assert_eq!(first.header("link"), Some(&*links));
        let rest = app.get(&format!("{path}/history?limit=9&after={next}")).bearer("audrey").await.json();
        let to = |page: &Json| {
            page["items"]
                .as_array()
                .unwrap()
                .iter()
                .map(|one| one["changes"]["cents"]["to"].as_i64().unwrap())
                .collect::<Vec<_>>()
        };
        assert_eq!((to(&page), to(&rest), &rest["page"]["next"]), (vec![5, 4], vec![3, 2, 1], &json!(null)));
        let other = create(&app, "b").await;
        let foreign = app.get(&format!("{other}/history?after={next}")).bearer("audrey").await;
        assert_eq!(foreign.json()["code"], "invalid-cursor");
        let unknown = app.get(&format!("{path}/history?sort=at")).bearer("audrey").await;
        assert_eq!(unknown.json()["errors"][0]["parameter"], "sort");
    }
}

#[tokio::test]
async fn item_is_read_as_of_a_time_and_reverted() {
    for place in TestStorage::all().await {
        let app = app_of(deals(&place)).await;
        let before = now();
        let path = create(&app, "a").await;
        let created = app.get(&path).bearer("audrey").await.json();
        let first = now();
        app.patch(&path).bearer("ada").json(json!({"cents": 5, "name": "b"})).await;
        let second = now();
        app.patch(&path).bearer("ada").json(json!({"cents": 9})).await;
        let as_of = async |at: &str, who: &str| app.get(&format!("{path}?as_of={at}")).bearer(who).await;
        assert_eq!(as_of(&first, "audrey").await.json(), created, "{}", place.name);
        assert_eq!(as_of(&second, "audrey").await.json()["cents"], 5);
        assert_eq!(as_of(&before, "audrey").await.status(), 404);
        assert_eq!((as_of(&first, "ada").await.status(), as_of(&first, "bob").await.status()), (403, 404));
        let fields = app.get(&format!("{path}?fields=name&as_of={first}")).bearer("audrey").await;
        assert_eq!(fields.json(), json!({"name": "a"}));
        let wrong = as_of("yesterday", "audrey").await;
        assert_eq!((wrong.status(), wrong.json()["errors"][0]["parameter"].clone()), (400, json!("as_of")));

        let revert =
            |at: &str, who: &str| app.post(&format!("{path}/revert")).bearer(who).json(json!({"as_of": at}));
        assert_eq!(revert(&first, "ada").await.status(), 403);
        let never = revert(&before, "audrey").await;
        assert_eq!((never.status(), faults(&never.json())), (422, vec![("/as_of", "range")]));
        assert_eq!(revert(&first, "audrey").header("if-match", "\"1\"").await.status(), 412);
        let dry_run = revert(&first, "audrey").header("prefer", "dry-run").await.json();
        assert_eq!(
            (&dry_run["body"]["cents"], &dry_run["events"][0]["type"]),
            (&json!(1), &json!("deals.updated"))
        );
        let reverted = revert(&first, "audrey").await;
        let item = reverted.json();
        assert_eq!(
            (&item["name"], &item["cents"], reverted.header("etag")),
            (&json!("a"), &json!(1), Some("\"4\""))
        );
        let entry = history(&app, &path, "audrey").await.items().remove(0);
        assert_eq!(
            (&entry["operation"], &entry["changes"]["cents"]),
            (&json!("revert"), &json!({"from": 9, "to": 1}))
        );
        app.delete(&path).bearer("ada").await;
        assert_eq!(as_of(&second, "audrey").await.json()["cents"], 5, "of what is gone as well");
        assert_eq!(as_of(&now(), "audrey").await.status(), 404);
    }
}

#[tokio::test]
async fn as_of_before_expired_audit_entries_is_refused() {
    let day = Duration::from_secs(24 * 3600);
    let micros = |at: DateTime<Utc>| at.to_rfc3339_opts(chrono::SecondsFormat::Micros, true);
    for place in TestStorage::all().await {
        let app = app_of(audited(&place, trail().retention(day))).await;
        let begun = Utc::now();
        let path = create(&app, "a").await;
        let created = Utc::now();
        app.patch(&path).bearer("ada").json(json!({"cents": 2})).await;
        app.patch(&path).bearer("ada").json(json!({"name": "b"})).await;
        let changed = Utc::now();
        app.patch(&path).bearer("ada").json(json!({"cents": 3})).await;
        let long_ago = chrono::SubsecRound::trunc_subsecs(changed, 6) - 2 * day;
        let (first, second) = (long_ago - day, long_ago);
        assert_eq!(AUDIT.put(&place, begun..created, first).await, 1, "{}", place.name);
        assert_eq!(AUDIT.put(&place, created..changed, second).await, 2);
        let as_of = async |at: &str| app.get(&format!("{path}?as_of={at}")).bearer("audrey").await;
        let revert = async |at: &str| {
            app.post(&format!("{path}/revert")).bearer("audrey").json(json!({"as_of": at})).await
        };
        assert_eq!(as_of(&micros(first)).await.json()["cents"], 1, "{}", place.name);
        app.app().sweep().await.unwrap();

        let reported = as_of(&micros(first)).await;
        let problem = reported.json();
        assert_eq!(
            (reported.status(), &problem["errors"][0]["parameter"]),
            (400, &json!("as_of")),
            "{reported}"
        );
        let detail = problem["errors"][0]["detail"].as_str().unwrap();
        let earliest = detail.split_once("the earliest time that can be read is ").unwrap().1;
        let earliest = earliest.trim_end_matches('.');
        let then = as_of(earliest).await.json();
        assert_eq!((&then["cents"], &then["name"]), (&json!(2), &json!("b")), "{}", place.name);
        let refused = revert(&micros(first)).await;
        assert_eq!(
            (refused.status(), faults(&refused.json())),
            (422, vec![("/as_of", "range")]),
            "{refused}"
        );
        assert_eq!(app.get(&path).bearer("ada").await.json()["cents"], 3, "nothing was put back");
        assert_eq!(revert(earliest).await.json()["cents"], 2);
        // Before it was made it was not there, whatever was emptied since.
        assert_eq!(as_of(&micros(first - day)).await.status(), 404);
    }
}

#[tokio::test]
async fn as_of_is_exact_across_hundreds_of_changes() {
    let app = app_of(deals(&TestStorage::memory())).await;
    let path = create(&app, "a").await;
    let first = now();
    for cents in 2..500 {
        app.patch(&path).bearer("ada").json(json!({"cents": cents})).await;
    }
    let last = now();
    app.patch(&path).bearer("ada").json(json!({"cents": 500})).await;
    for (at, cents) in [(first, 1), (last, 499)] {
        let was = app.get(&format!("{path}?as_of={at}")).bearer("audrey").await;
        assert_eq!(was.json()["cents"], cents, "{was}");
    }
}

#[tokio::test]
async fn history_excludes_a_deleted_item_with_the_same_id() {
    for place in TestStorage::all().await {
        let codes = define_dynamic_resource("codes", crate::policies::model(&["code", "body"]))
            .adapter(place.table("codes"))
            .id_field("code")
            .permissions(Permissions::all(signed_in()))
            .preset(audit().readable_by(signed_in()));
        let app = app_of(codes).await;
        let put =
            async |body: &str| app.put("/codes/a").bearer("ada").json(json!({"body": body})).await.status();
        assert_eq!((put("first").await, put("second").await), (201, 200));
        app.delete("/codes/a").bearer("ada").await;
        assert_eq!(put("third").await, 201);
        let entries = app.get("/codes/a/history").bearer("ada").await;
        assert_eq!(entries.items().len(), 1, "{entries}");
        assert_eq!(entries.json()["page"]["next"], json!(null));
    }
}

#[tokio::test]
async fn verification_detects_removed_and_altered_entries() {
    for place in TestStorage::all().await.into_iter().filter(|place| place.name != "memory") {
        let app = app_of(deals(&place)).await;
        let path = create(&app, "a").await;
        for cents in 2..6 {
            app.patch(&path).bearer("ada").json(json!({"cents": cents})).await;
        }
        let verdict = app.app().verify_audit().await.unwrap().remove(0);
        assert_eq!((verdict.entries, verdict.broken.clone()), (5, None), "{}", place.name);
        app.patch(&path).bearer("ada").json(json!({"cents": 7})).await;
        let later = app.app().verify_audit().await.unwrap().remove(0);
        assert_eq!((later.entries, later.broken.clone()), (6, None));
        assert!(later.head.is_some() && later.head != verdict.head);

        let mut number = 0;
        let mut tamper = async |sql: &str| {
            number += 1;
            place.storage().migrate(&[Migration::new("tamper", number, "it", sql)], true).await.unwrap();
            app.app().verify_audit().await.unwrap().remove(0).broken.unwrap_or_default()
        };
        let kept = "CREATE TABLE kept AS SELECT * FROM resourceful_audit";
        assert_eq!(tamper(kept).await, "");
        let back = "DELETE FROM resourceful_audit; INSERT INTO resourceful_audit SELECT * FROM kept";
        let altered =
            "UPDATE resourceful_audit SET changes = '{\"cents\":{\"from\":3,\"to\":4000}}' WHERE link = 4";
        assert_eq!(tamper(altered).await, "entry 4 was changed after it was written");
        assert_eq!(tamper(back).await, "");
        assert_eq!(tamper("DELETE FROM resourceful_audit WHERE link = 2").await, "entry 2 is gone");
        assert_eq!(tamper(back).await, "");
        let emptied = "UPDATE resourceful_audit SET actor = 'bob' WHERE link = 6";
        assert_eq!(tamper(emptied).await, "entry 6 was changed after it was written");
        assert_eq!(tamper(back).await, "");
        assert_eq!(
            tamper("DELETE FROM resourceful_audit WHERE link > 4").await,
            "entry 5 and all after it are gone"
        );
    }
}

#[tokio::test]
async fn forged_entry_is_detected_and_does_not_block_sealing() {
    for place in TestStorage::all().await.into_iter().filter(|place| place.name != "memory") {
        let app = app_of(deals(&place)).await;
        let path = create(&app, "a").await;
        let verdict = async || app.app().verify_audit().await.unwrap().remove(0);
        assert_eq!(verdict().await.broken, None);
        for (number, link) in [(1, "2"), (2, "1000"), (3, "0"), (4, "-7")] {
            app.patch(&path).bearer("ada").json(json!({"cents": number + 1})).await;
            let forge = format!(
                "INSERT INTO resourceful_audit (resource, item, operation, at, changes, link, seal) \
                 SELECT resource, item, operation, at, changes, {link}, seal FROM resourceful_audit WHERE link = 1"
            );
            let undo = format!("DELETE FROM resourceful_audit WHERE link = {link}");
            for (name, sql, found) in [("forge", forge, true), ("undo", undo, false)] {
                let step = Migration::new(format!("{name}{number}"), 1, "it", sql);
                place.storage().migrate(&[step], true).await.unwrap();
                app.app().sweep().await.unwrap();
                let broken = verdict().await.broken.unwrap_or_default();
                let reported = format!("entry {link} was never sealed");
                assert_eq!(broken.starts_with(&reported), found, "{} {name}: {broken}", place.name);
            }
        }
        assert_eq!(verdict().await.entries, 5);
    }
}

#[tokio::test]
async fn expired_entries_are_cleared_and_the_chain_stays_valid() {
    let (day, minute) = (Duration::from_secs(24 * 3600), Duration::from_secs(60));
    // Less than a day is a day.
    for (kept, retention) in [(Duration::from_secs(1), day), (10 * day, 10 * day)] {
        for place in TestStorage::all().await {
            let app = app_of(audited(&place, trail().retention(kept))).await;
            let begun = Utc::now();
            let path = create(&app, "a").await;
            let created = Utc::now();
            app.patch(&path).bearer("ada").json(json!({"cents": 2})).await;
            let changed = Utc::now();
            app.patch(&path).bearer("ada").json(json!({"cents": 3})).await;
            AUDIT.put(&place, created..changed, created - retention + minute).await;
            AUDIT.put(&place, begun..created, created - retention - minute).await;
            app.app().sweep().await.unwrap();

            let reported = history(&app, &path, "audrey").await.items();
            let cents: Vec<_> =
                reported.iter().map(|entry| entry["changes"]["cents"]["to"].clone()).collect();
            assert_eq!(cents, [3, 2], "{}: those that are young", place.name);
            let emptied = &audit_rows(&place).await[0];
            let changes = emptied["changes"].as_str().unwrap();
            assert!(changes.starts_with("digest:") && changes.len() < 80, "{emptied}");
            assert_eq!(
                (&emptied["actor"], &emptied["request"], &emptied["address"]),
                (&Json::Null, &Json::Null, &Json::Null)
            );
            let verdict = app.app().verify_audit().await.unwrap().remove(0);
            assert_eq!((verdict.entries, verdict.broken), (3, None), "{}: the chain holds", place.name);

            // Somebody for whom a day is enough empties what was to be kept for ten.
            if retention > day {
                let hasty = app_of(audited(&place, trail().retention(day))).await;
                hasty.app().sweep().await.unwrap();
                let verdict = app.app().verify_audit().await.unwrap().remove(0);
                assert_eq!(verdict.broken.as_deref(), Some("entry 2 was emptied before its retention ended"));
            }
        }
    }
}

#[tokio::test]
async fn entry_records_the_peer_address_and_ignores_forwarded_headers() {
    let app = app_builder(deals(&TestStorage::memory())).build().await.unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let server = tokio::spawn(app.serve_until(listener, async move { _ = stopped.await }));
    let send = async |line: &str, body: &str| {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!(
            "{line} HTTP/1.1\r\nhost: x\r\nconnection: close\r\nauthorization: Bearer audrey\r\n\
             x-forwarded-for: 203.0.113.9\r\nforwarded: for=203.0.113.9\r\nx-real-ip: 203.0.113.9\r\n\
             content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    };
    let body = json!({"name": "a", "cents": 1, "margin": 7, "secret": "s3cret"}).to_string();
    let created = send("POST /deals", &body).await;
    assert!(created.starts_with("HTTP/1.1 201"), "{created}");
    let reported = send("GET /deals/1/history", "").await;
    assert!(reported.contains("\"address\":\"127.0.0.1\""), "{reported}");
    stop.send(()).unwrap();
    server.await.unwrap().unwrap();
}

#[tokio::test]
async fn audit_entry_is_committed_atomically_with_its_change() {
    for place in TestStorage::all().await {
        let resource = deals(&place).unique(["name"]).before(
            [Operation::Create],
            |deal: &mut Deal, change: &mut Change| {
                if deal.name == "copied" {
                    change.create("deals", json!({"name": "a", "cents": 2, "secret": "s"}));
                }
                Ok(())
            },
        );
        let app = app_of(resource).await;
        create(&app, "a").await;
        let body = json!({"name": "copied", "cents": 1, "secret": "s"});
        assert_eq!(app.post("/deals").bearer("ada").json(body).await.status(), 409, "{}", place.name);
        assert_eq!(app.app().verify_audit().await.unwrap()[0].entries, 1);
        assert_eq!(app.events().await.len(), 1);
    }
}

#[tokio::test]
async fn policy_matrix_passes_for_history_and_as_of() {
    for place in TestStorage::all().await {
        let app = app_of(deals(&place).visible_to(["note"], tenant_role("nobody")).policy_on(
            [Operation::Read, Operation::List],
            resourceful::access::rows(json!({"cents": {"lt": 100}})),
        ))
        .await;
        for name in ["a", "b"] {
            create(&app, name).await;
        }
        app.app().load().rows("deals", [json!({"id": 9, "org_id": "acme", "name": "hidden", "cents": 500, "margin": 1, "secret": "s"})]).unwrap().commit().await.unwrap();
        let mut matrix = policy_matrix(&app).caller("nobody", Actor::anonymous(), []);
        for (token, tenant, role) in
            [("ada", "acme", "member"), ("audrey", "acme", "auditor"), ("bob", "bolt", "auditor")]
        {
            let actor = Actor::user(token).in_tenant(tenant, [role]);
            matrix = matrix.caller(token, actor, [("authorization", format!("Bearer {token}").as_str())]);
        }
        matrix.run().await.unwrap().assert_passed();
    }
}
