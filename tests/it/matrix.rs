//! Every path of several applications next to what their declarations say.

use resourceful::access::{Decision, check, not, rows, when};
use resourceful::prelude::*;
use resourceful::testing::{MatrixReport, PolicyMatrix, TestApp, policy_matrix};
use serde_json::json;

use crate::support::TestStorage;
use crate::{field_rules, policies};

/// The callers of the policies' tests.
fn with_callers(mut matrix: PolicyMatrix<'_>) -> PolicyMatrix<'_> {
    matrix = matrix.caller("nobody", Actor::anonymous(), []);
    for (token, actor) in policies::actors_by_token() {
        matrix = matrix.caller(token, actor, [("authorization", format!("Bearer {token}").as_str())]);
    }
    matrix
}

pub(crate) async fn run(app: &TestApp) -> MatrixReport {
    with_callers(policy_matrix(app)).run().await.unwrap()
}

#[tokio::test]
async fn matrix_confirms_tenant_isolation_on_every_path() {
    for storage in TestStorage::all().await {
        let app = policies::workspace(&storage).await;
        // What should not be there: a task of one tenant that points at a project of another, either way.
        let stray = |code: &str, project: &str, org: &str| json!({"code": code, "project_code": project, "title": "do", "org_id": org});
        let strays = [stray("stray-b", "a1", "bolt"), stray("stray-a", "b1", "acme")];
        app.app().load().rows("tasks", strays).unwrap().commit().await.unwrap();
        let report = run(&app).await;
        println!("{}: {report}", storage.name);
        report.assert_passed();
    }
}

#[tokio::test]
async fn matrix_confirms_ownership_on_every_path() {
    for storage in TestStorage::all().await {
        let owned = |name: &str, preset| {
            define_dynamic_resource(name, json!({
                "type": "object",
                "properties": {"id": {"type": "integer"}, "text": {"type": "string"}, "user_id": {"type": ["string", "null"]}},
                "required": ["id", "text"],
            }))
            .adapter(storage.table(name))
            .permissions(Permissions::all(signed_in()))
            .preset(preset)
            // Without anyone to tell, a delete is one statement that decides by itself.
            .events(name != "notes")
            .searchable(["text"])
            .build()
            .unwrap()
        };
        let app = create_app(AppPreset::Testing)
            .authenticator(policies::actors())
            .resource(owned("diaries", owned_by("user_id")))
            .resource(owned("notes", owned_by("user_id").open([Operation::Read, Operation::List])));
        let app = TestApp::build(app).await.unwrap();
        for resource in ["diaries", "notes"] {
            let owners = [json!("eve"), json!("bob"), json!(null), json!(""), json!("EVE")];
            let rows = owners
                .iter()
                .enumerate()
                .map(|(id, owner)| json!({"id": id + 1, "text": format!("t {id}"), "user_id": owner}));
            app.app().load().rows(resource, rows).unwrap().commit().await.unwrap();
        }
        let report = run(&app).await;
        println!("{}: {report}", storage.name);
        report.assert_passed();
    }
}

#[tokio::test]
async fn matrix_confirms_field_rules_on_every_path() {
    for storage in TestStorage::all().await {
        let report = run(&field_rules::staff(&storage).await).await;
        println!("{}: {report}", storage.name);
        report.assert_passed();
    }
}

#[tokio::test]
async fn matrix_confirms_every_kind_of_permission_on_every_path() {
    let live = || rows(json!({"status": "live"}));
    let own = || owner("author");
    let asked = || {
        check("asked", async |asking| match asking.actor.id() {
            Some("eve") => Ok(Decision::allow_where(json!({"author": "bob"}))),
            Some("chief") => Ok(Decision::allow()),
            Some("bob") => Err("away".into()),
            _ => Ok(Decision::deny("no")),
        })
    };
    let mut cases = 0;
    for permissions in [
        Permissions::all(anyone()),
        Permissions::all(nobody()),
        Permissions::all(signed_in()),
        Permissions::read(any_of([own(), live()])).write(own()),
        Permissions::read(all_of([own(), live()])).write(all_of([own(), live()])),
        Permissions::read(not(own())).write(not(live())),
        Permissions::read(live()).list(own()).create(nobody()).update(own()).delete(role("chief")),
        Permissions::read(anyone())
            .list(any_of([role("chief"), own()]))
            .create(signed_in())
            .update(live())
            .delete(asked()),
        Permissions::read(asked()).write(any_of([asked(), own()])),
        Permissions::read(when(|actor| actor.id() != Some("eve"), live())).write(all_of([])),
        Permissions::read(any_of([scope("projects:read"), tenant_role("admin")])).write(tenant_member()),
        Permissions::read(any_of([
            rows(json!({"author": "eve"})),
            rows(json!({"not": {"status": "draft"}})),
        ]))
        .write(not(asked())),
    ] {
        let report = run(&policies::articles_app(&TestStorage::memory(), permissions).await).await;
        cases += report.cases;
        report.assert_passed();
    }
    println!("{cases} cases");
}

#[tokio::test]
async fn matrix_reports_deviations_from_the_declaration() {
    // A caller whom the application takes for another one than is said.
    let app = policies::workspace(&TestStorage::memory()).await;
    let report = policy_matrix(&app)
        .caller("ann", Actor::user("ann").in_tenant("bolt", ["admin"]), [("authorization", "Bearer ann")])
        .run()
        .await
        .unwrap();
    assert!(report.failures.len() > 20, "{report}");
}
