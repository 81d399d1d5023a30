//! In which scope an actor acts: the tenant that a request names, and raised rights.

use std::sync::{Arc, Mutex};

use resourceful::access::{Elevation, Membership, Tenancy};
use resourceful::prelude::*;
use resourceful::testing::TestApp;
use serde_json::json;

use crate::policies::model;
use crate::support::TestStorage;

async fn membership(actor: Actor, tenant: String) -> Result<Membership, resourceful::access::CheckError> {
    match (actor.id().unwrap(), tenant.as_str()) {
        ("ada", "acme") => Ok(Membership::Member(vec!["admin".into()])),
        ("ada", "bolt") => Ok(Membership::Member(Vec::new())),
        ("ada", "late") => Ok(Membership::Suspended),
        ("ada", "away") => Err("the table is away".into()),
        ("ada", "mad") => panic!("on purpose"),
        _ => Ok(Membership::None),
    }
}

fn builder(tenancy: Tenancy) -> resourceful::AppBuilder {
    let plans = define_dynamic_resource("plans", model(&["code", "org_id"]))
        .adapter(TestStorage::memory().table("plans"))
        .id_field("code")
        .permissions(Permissions::read(signed_in()).write(tenant_role("admin")))
        .preset(multi_tenant("org_id"))
        .build()
        .unwrap();
    let news = define_dynamic_resource("news", model(&["code"]))
        .adapter(TestStorage::memory().table("news"))
        .id_field("code")
        .permissions(Permissions::read(anyone()).write(nobody()))
        .build()
        .unwrap();
    let tokens = BearerTokens::new()
        .token("ada", Actor::user("ada"))
        .token("bob", Actor::user("bob").in_tenant("bolt", ["admin"]))
        .token("ops", Actor::user("ops").with_role("operator"));
    create_app(AppPreset::Testing).authenticator(tokens).tenancy(tenancy).resource(plans).resource(news)
}

#[tokio::test]
async fn tenant_header_must_name_a_tenant_of_the_actor() {
    let app = TestApp::build(builder(Tenancy::header("x-tenant", membership))).await.unwrap();
    let create = |who: &'static str, tenant: &'static str, code: &'static str| {
        app.post("/plans").bearer(who).header("x-tenant", tenant).json(json!({"code": code}))
    };
    let created = create("ada", "acme", "a").await;
    assert_eq!((created.status(), created.json()["org_id"].clone()), (201, json!("acme")), "{created}");
    assert_eq!(create("ada", "bolt", "b").await.status(), 403, "no admin there");
    for tenant in ["late", "away", "mad", "nowhere", "", "ACME"] {
        // Not even what is open to anyone: the request says that it is about that tenant.
        for path in ["/plans", "/news"] {
            let refused = app.get(path).bearer("ada").header("x-tenant", tenant).await;
            assert_eq!(refused.status(), 403, "{tenant:?}: {refused}");
        }
    }
    let seen = app.get("/plans").bearer("ada").header("x-tenant", "acme").await;
    assert_eq!(seen.header("vary"), Some("authorization, origin, prefer, x-tenant"));
    let twice = app.get("/plans").bearer("ada").header("x-tenant", "acme").header("x-tenant", "bolt").await;
    assert_eq!(twice.status(), 403);
    // There is no default.
    assert_eq!(app.get("/plans").bearer("ada").await.status(), 403);
    // A credential that names its tenant is for that one.
    assert_eq!(create("bob", "bolt", "c").await.status(), 201);
    assert_eq!(create("bob", "acme", "d").await.status(), 403);
    assert_eq!(app.get("/news").header("x-tenant", "acme").await.status(), 200);
    assert_eq!(app.get("/plans").header("x-tenant", "acme").await.status(), 401);
}

#[tokio::test]
async fn subdomain_selects_the_tenant() {
    let app = TestApp::build(builder(Tenancy::subdomain_of("shop.example", membership))).await.unwrap();
    for (host, expected) in [
        ("acme.shop.example", 200),
        ("ACME.shop.example:8443", 200),
        ("evil.shop.example", 403),
        ("shop.example", 403),
        ("acmeshop.example", 403),
        ("acme.shop.example.evil.example", 403),
        ("x.acme.shop.example", 403),
    ] {
        assert_eq!(app.get("/plans").bearer("ada").header("host", host).await.status(), expected, "{host}");
    }
}

#[tokio::test]
async fn elevation_is_recorded_or_denied() {
    let recorded = Arc::new(Mutex::new(Vec::new()));
    let elevation = {
        let recorded = recorded.clone();
        Elevation::by("x-elevate", "operator", move |request| {
            let recorded = recorded.clone();
            async move {
                if request.reason == "fail" {
                    return Err("the record is full".into());
                }
                let line = format!(
                    "{} {} {}: {}",
                    request.actor.id().unwrap(),
                    request.method,
                    request.path,
                    request.reason
                );
                recorded.lock().unwrap().push(line);
                Ok(())
            }
        })
    };
    let app = builder(Tenancy::header("x-tenant", membership)).elevation(elevation);
    let app = TestApp::build(app).await.unwrap();
    app.post("/plans").bearer("ada").header("x-tenant", "acme").json(json!({"code": "a"})).await;
    app.post("/plans").bearer("bob").json(json!({"code": "b"})).await;

    assert_eq!(app.get("/plans").bearer("ops").await.status(), 403);
    let all = app.get("/plans").bearer("ops").header("x-elevate", "ticket 1").await;
    assert_eq!(all.items().len(), 2, "{all}");
    let one =
        app.get("/plans").bearer("ops").header("x-elevate", "ticket 2").header("x-tenant", "bolt").await;
    assert_eq!(one.items().len(), 1, "{one}");
    // Raised rights pass walls, and no permission.
    let write = app.delete("/plans/a").bearer("ops").header("x-elevate", "ticket 3").await;
    assert_eq!(write.status(), 403, "{write}");
    assert_eq!(
        *recorded.lock().unwrap(),
        ["ops GET /plans: ticket 1", "ops GET /plans: ticket 2", "ops DELETE /plans/a: ticket 3"]
    );
    assert_eq!(app.get("/plans").bearer("ops").header("x-elevate", "fail").await.status(), 503);
    for (who, reason) in [("ada", "why not"), ("ops", ""), ("ops", "  ")] {
        let refused =
            app.get("/plans").bearer(who).header("x-elevate", reason).header("x-tenant", "acme").await;
        assert_eq!(refused.status(), 403, "{who} {reason:?}");
    }
    assert_eq!(app.get("/news").header("x-elevate", "nobody").await.status(), 403);
    assert_eq!(recorded.lock().unwrap().len(), 3);
}
