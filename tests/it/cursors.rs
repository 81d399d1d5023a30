//! Cursors and links.

use resourceful::ResourceBuilder;
use resourceful::access::{not, rows};
use resourceful::prelude::*;
use resourceful::testing::TestApp;
use serde_json::{Value, json};

use crate::policies::model;
use crate::support::{EDITOR, READER, TestStorage, create, on_every_storage, shop};

/// Products in which every rating stands for several, and some for none.
async fn seed(app: &TestApp) {
    for index in 0..9_u32 {
        let rating = if index % 3 == 2 { Value::Null } else { json!(f64::from(index % 3)) };
        create(app, &format!("p{index}"), json!({"rating": rating})).await;
    }
}

fn names(list: &[Value]) -> Vec<String> {
    list.iter().map(|item| item["name"].as_str().unwrap().to_owned()).collect()
}

/// Follows one of a page's cursors to the end.
async fn walk(app: &TestApp, query: &str, from: Option<String>, step: &str) -> Vec<Vec<String>> {
    let (parameter, cursor) = if step == "next" { ("after", "next") } else { ("before", "prev") };
    let mut at = from;
    let mut pages = Vec::new();
    loop {
        let place = at.map(|cursor| format!("&{parameter}={cursor}")).unwrap_or_default();
        let page = app.get(&format!("/products?{query}{place}")).await;
        assert_eq!(page.status(), 200, "{page}");
        pages.push(names(&page.items()));
        match page.json()["page"][cursor].as_str() {
            Some(next) => at = Some(next.to_owned()),
            None => return pages,
        }
    }
}

#[tokio::test]
async fn paging_forwards_and_backwards_returns_every_row_once() {
    on_every_storage(|app| async move {
        seed(&app).await;
        for sort in ["id", "-id", "rating", "-rating", "rating,-name", "-rating,name", "name"] {
            let whole = names(&app.get(&format!("/products?limit=10&sort={sort}")).await.items());
            assert_eq!(whole.len(), 9);
            for limit in [1, 2, 4, 9, 10] {
                let query = format!("sort={sort}&limit={limit}");
                let pages = walk(&app, &query, None, "next").await;
                assert_eq!(pages.concat(), whole, "{query}");
                assert!(pages.iter().rev().skip(1).all(|page| page.len() == limit), "{query}");
                if pages.len() < 2 {
                    continue;
                }
                // Back from the last page.
                let mut at = None;
                let mut last = Value::Null;
                for _ in &pages {
                    let place = at.map(|cursor: String| format!("&after={cursor}")).unwrap_or_default();
                    last = app.get(&format!("/products?{query}{place}")).await.json()["page"].clone();
                    at = last["next"].as_str().map(str::to_owned);
                }
                let prev = last["prev"].as_str().unwrap().to_owned();
                let mut back = walk(&app, &query, Some(prev), "prev").await;
                back.reverse();
                let all_but_last = &whole[..whole.len() - pages.last().unwrap().len()];
                assert_eq!(back.concat(), all_but_last, "{query}");
            }
        }
    })
    .await;
}

#[tokio::test]
async fn concurrent_inserts_and_deletes_repeat_and_skip_no_other_row() {
    on_every_storage(|app| async move {
        seed(&app).await;
        let first = app.get("/products?sort=name&limit=3").await;
        let next = first.json()["page"]["next"].as_str().unwrap().to_owned();
        app.delete(&crate::support::path(&first.items()[2])).await;
        create(&app, "p00", json!({})).await;
        create(&app, "p35", json!({})).await;
        let second = app.get(&format!("/products?sort=name&limit=3&after={next}")).await;
        assert_eq!(names(&second.items()), ["p3", "p35", "p4"]);
    })
    .await;
}

#[tokio::test]
async fn cursor_is_valid_only_for_its_own_query() {
    on_every_storage(|app| async move {
        seed(&app).await;
        let page = app.get("/products?limit=2&sort=name&in_stock=true").await.json();
        let cursor = page["page"]["next"].as_str().unwrap().to_owned();
        let mut altered = cursor.clone().into_bytes();
        altered[5] = if altered[5] == b'A' { b'B' } else { b'A' };
        let altered = String::from_utf8(altered).unwrap();
        for (query, cursor) in [
            ("limit=2&sort=name&in_stock=true", altered.as_str()),
            ("limit=2&sort=-name&in_stock=true", &cursor),
            ("limit=2&sort=name", &cursor),
            ("limit=2&sort=name&in_stock=false", &cursor),
            ("limit=2&sort=name&in_stock=true&q=p", &cursor),
            ("limit=2&sort=name&in_stock=true", ""),
            ("limit=2&sort=name&in_stock=true", "AAAA"),
            ("limit=2&sort=name&in_stock=true", "not%20base64"),
        ] {
            for parameter in ["after", "before"] {
                let refused = app.get(&format!("/products?{query}&{parameter}={cursor}")).await;
                assert_eq!(
                    (refused.status(), refused.json()["code"].clone()),
                    (400, json!("invalid-cursor")),
                    "{query} {cursor}"
                );
                assert_eq!(refused.json()["errors"][0]["parameter"], parameter);
            }
        }
        let elsewhere = app.get(&format!("/categories?limit=2&after={cursor}")).await;
        assert_eq!(elsewhere.status(), 400);
        // A page's size and its fields may change on the way.
        let onward =
            app.get(&format!("/products?limit=5&fields=name&sort=name&in_stock=true&after={cursor}")).await;
        assert_eq!(names(&onward.items()), ["p2", "p3", "p4", "p5", "p6"]);
    })
    .await;
}

#[tokio::test]
async fn cursor_of_one_caller_is_invalid_for_another() {
    for place in TestStorage::all().await {
        let app = shop(&place).await;
        for text in ["a", "b", "c"] {
            app.post("/notes").bearer(EDITOR).json(json!({"text": text})).await;
        }
        let page = app.get("/notes?limit=1").bearer(EDITOR).await.json();
        let cursor = page["page"]["next"].as_str().unwrap();
        let own = app.get(&format!("/notes?limit=1&after={cursor}")).bearer(EDITOR).await;
        assert_eq!(own.items()[0]["text"], "b");
        let foreign = app.get(&format!("/notes?limit=1&after={cursor}")).bearer(READER).await;
        assert_eq!((foreign.status(), foreign.json()["code"].clone()), (400, json!("invalid-cursor")));
    }
}

#[tokio::test]
async fn link_header_matches_the_cursors() {
    on_every_storage(|app| async move {
        seed(&app).await;
        let first = app.get("/products?limit=4&sort=name&name%5Bgte%5D=p1").await;
        let links = first.header("link").unwrap().to_owned();
        let next = first.json()["page"]["next"].as_str().unwrap().to_owned();
        assert_eq!(
            links,
            format!(
                "</products?limit=4&sort=name&name%5Bgte%5D=p1&after={next}>; rel=\"next\", \
                 </products?limit=4&sort=name&name%5Bgte%5D=p1>; rel=\"first\""
            )
        );
        let url = links[1..].split('>').next().unwrap().to_owned();
        let second = app.get(&url).await;
        assert_eq!(names(&second.items()), ["p5", "p6", "p7", "p8"]);
        let links = second.header("link").unwrap();
        assert!(links.contains("rel=\"prev\"") && !links.contains("rel=\"next\""), "{links}");
    })
    .await;
}

#[tokio::test]
async fn cursor_reveals_no_row_values() {
    on_every_storage(|app| async move {
        create(&app, "confidential", json!({})).await;
        create(&app, "zebra", json!({})).await;
        let page = app.get("/products?limit=1&sort=name").await.json();
        let cursor = page["page"]["next"].as_str().unwrap();
        use base64::Engine as _;
        let bytes = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(cursor).unwrap();
        assert!(!String::from_utf8_lossy(&bytes).contains("confidential"));
    })
    .await;
}

/// An application that was declared anew meanwhile, over the same rows.
#[tokio::test]
async fn cursor_is_invalidated_by_a_new_field_rule_or_policy() {
    for place in TestStorage::all().await {
        let declared = || {
            define_dynamic_resource("papers", model(&["code", "rank"]))
                .adapter(place.table("papers"))
                .id_field("code")
                .permissions(Permissions::all(anyone()))
                .filterable(["rank"])
                .sortable(["rank"])
        };
        let app_of = async |papers: ResourceBuilder| {
            let app = create_app(AppPreset::Testing).resource(papers.build().unwrap());
            TestApp::build(app.secret("the same before and after, and of 32 bytes")).await.unwrap()
        };
        let before = app_of(declared()).await;
        for (code, rank) in [("a", "1"), ("b", "2"), ("c", "3")] {
            assert_eq!(before.post("/papers").json(json!({"code": code, "rank": rank})).await.status(), 201);
        }
        let page = before.get("/papers?limit=1&sort=rank").await.json();
        let cursor = page["page"]["next"].as_str().unwrap().to_owned();
        let next = format!("/papers?limit=1&sort=rank&after={cursor}");
        assert_eq!(app_of(declared()).await.get(&next).await.items()[0]["code"], "b", "declared the same");
        let hidden = app_of(declared().visible_to(["rank"], role("editor"))).await.get(&next).await;
        assert_eq!(hidden.status(), 400, "{}: {hidden}", place.name);
        assert_eq!(hidden.json()["errors"][0]["parameter"], "sort", "{hidden}");
        let narrowed = app_of(declared().policy(not(rows(json!({"code": "b"}))))).await.get(&next).await;
        assert_eq!(
            (narrowed.status(), narrowed.json()["code"].clone()),
            (400, json!("invalid-cursor")),
            "{}: {narrowed}",
            place.name
        );
    }
}
