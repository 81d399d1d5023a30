//! The examples' own declarations, next to what the matrix makes of them.

#[path = "../../examples/atlas/resources.rs"]
mod atlas;
#[path = "../../examples/shop/people.rs"]
mod people;
#[path = "../../examples/shop/resources.rs"]
mod resources;
#[path = "../../examples/shop/seed.rs"]
#[expect(dead_code, reason = "the example names some of its rows in what it prints")]
pub(crate) mod seed;

use resourceful::AppBuilder;
use resourceful::prelude::*;
use resourceful::testing::{MatrixReport, TestApp, policy_matrix};

use crate::support::TestStorage;

const SECRET: &str = "a secret of tests, as long as one must be";

/// Who each token stands for, said once more: not by the claims that the shop itself reads.
fn actor(variable: &str) -> Actor {
    let member = |name: &str, tenant: &str, role: &str| {
        Actor::user(name.to_owned()).in_tenant(tenant.to_owned(), [role.to_owned()])
    };
    match variable {
        "ACME_ADMIN" => member("ada", "acme", "owner"),
        "ACME_MEMBER" => member("alan", "acme", "member"),
        "GLOBEX_ADMIN" => member("grace", "globex", "admin"),
        "GLOBEX_MEMBER" => member("gil", "globex", "member"),
        "SERVICE" => Actor::service("exporter")
            .with_scope("customers:read")
            .with_scope("products:read")
            .in_tenant("acme", Vec::<String>::new()),
        "OPERATOR" => Actor::user("olga").with_role("operator"),
        "CAROL" => Actor::user("carol"),
        other => panic!("{other} is nobody the tests know"),
    }
}

/// The shop with its first rows.
pub(crate) async fn shop(place: &TestStorage) -> TestApp {
    shop_with(place, |builder| builder).await
}

/// The shop, each of whose people gets a document of their own.
pub(crate) async fn documented_shop() -> TestApp {
    shop_with(&TestStorage::memory(), |builder| builder.document_by_caller(true)).await
}

pub(crate) async fn shop_with(place: &TestStorage, change: impl FnOnce(AppBuilder) -> AppBuilder) -> TestApp {
    let builder = resources::shop(AppPreset::Development, |name| place.table(name)).unwrap();
    let app = TestApp::build(change(builder.authenticator(people::tokens(SECRET)))).await.unwrap();
    assert!(seed::load(app.app()).await.unwrap());
    app
}

/// The atlas without its rows.
pub(crate) async fn empty_atlas(place: &TestStorage) -> TestApp {
    TestApp::build(atlas::atlas(|name| place.table(name)).unwrap()).await.unwrap()
}

/// The token of one of the shop's people.
pub(crate) fn token(variable: &str) -> String {
    let people = people::people();
    let person = people.iter().find(|person| person.variable == variable).expect("somebody of the shop");
    people::token(person, SECRET).unwrap()
}

async fn shop_matrix(place: &TestStorage) -> MatrixReport {
    let app = shop_with(place, |builder| builder.document_by_caller(true)).await;
    // What it remembers is held against the declaration, too; one storage is enough for that.
    let app = if place.name == "memory" { app.through_cache() } else { app };
    let mut matrix = policy_matrix(&app).caller("nobody", Actor::anonymous(), []);
    for person in people::people() {
        let credential = format!("Bearer {}", people::token(&person, SECRET).unwrap());
        let own = ("authorization", credential.as_str());
        let who = actor(person.variable);
        let raised = ("x-elevate", "a test");
        let at_acme = ("x-tenant", "acme");
        matrix = match person.variable {
            "CAROL" => {
                matrix.caller("CAROL at Acme", who.clone().in_tenant("acme", ["member"]), [own, at_acme])
            }
            "OPERATOR" => {
                let elevated = who.clone().elevated();
                let placed = elevated.clone().in_tenant("acme", Vec::<String>::new());
                matrix.caller("OPERATOR raised", elevated, [own, raised]).caller(
                    "OPERATOR raised at Acme",
                    placed,
                    [own, raised, at_acme],
                )
            }
            _ => matrix,
        };
        matrix = matrix.caller(person.variable, who, [own]);
    }
    matrix.run().await.unwrap()
}

/// Some countries of each continent, with their largest cities.
async fn some_atlas(place: &TestStorage) -> TestApp {
    let editor = Actor::user("atlas").with_role("editor");
    let tokens = BearerTokens::new().token("edits", editor).token("reads", Actor::user("rita"));
    let builder = atlas::atlas(|name| place.table(name)).unwrap().authenticator(tokens);
    let app = TestApp::build(builder).await.unwrap();
    let codes = ["IS", "LI", "AD", "MC", "SM", "BT"];
    let countries = read::<atlas::Country>("countries.csv");
    let countries = countries.into_iter().filter(|country| codes.contains(&country.code.as_str()));
    let cities = read::<atlas::City>("cities.csv");
    let cities = cities.into_iter().filter(|city| codes.contains(&city.country_code.as_str())).take(30);
    let load = app.app().load().rows("countries", countries).unwrap().rows("cities", cities).unwrap();
    assert!(load.commit().await.unwrap() > codes.len());
    app
}

fn read<M: serde::de::DeserializeOwned>(file: &str) -> Vec<M> {
    let path = format!("{}/examples/data/{file}", env!("CARGO_MANIFEST_DIR"));
    csv::Reader::from_path(path).unwrap().deserialize().collect::<Result<_, _>>().unwrap()
}

async fn atlas_matrix(place: &TestStorage) -> MatrixReport {
    let app = some_atlas(place).await;
    let editor = Actor::user("atlas").with_role("editor");
    policy_matrix(&app)
        .caller("nobody", Actor::anonymous(), [])
        .caller("editor", editor, [("authorization", "Bearer edits")])
        .caller("reader", Actor::user("rita"), [("authorization", "Bearer reads")])
        .run()
        .await
        .unwrap()
}

#[tokio::test]
async fn shop_and_atlas_pass_the_policy_matrix() {
    for place in TestStorage::all().await {
        let (shop, atlas) = (shop_matrix(&place).await, atlas_matrix(&place).await);
        println!("{}: shop {shop}{}: atlas {atlas}", place.name, place.name);
        shop.assert_passed();
        atlas.assert_passed();
        assert!(shop.cases + atlas.cases >= 20_000, "{} cases", shop.cases + atlas.cases);
    }
}
