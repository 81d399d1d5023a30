//! Queries as client libraries write them, and cursors that go from one form of a query to the other.

use resourceful::prelude::*;
use resourceful::testing::TestApp;
use serde_json::{Value, json};

use crate::support::{TestStorage, create, names, on_every_storage, path};

/// The names found by a query string that is encoded already, in order.
async fn found(app: &TestApp, query: &str) -> Vec<String> {
    names(app, &format!("/products?limit=10&sort=name&{query}")).await
}

/// The first fault of an answer: its status, where it is, its code and its words.
fn fault(answer: &resourceful::testing::TestResponse) -> (u16, String, String, String) {
    let fault = &answer.json()["errors"][0];
    let at = fault["parameter"].as_str().or(fault["pointer"].as_str()).unwrap_or_default();
    let text = |member: &str| fault[member].as_str().unwrap_or_default().to_owned();
    (answer.status(), at.to_owned(), text("code"), text("detail"))
}

#[tokio::test]
async fn repeated_list_parameter_is_merged_into_one_list() {
    on_every_storage(|app| async move {
        for (name, cents) in [("Cairo", 1), ("Lagos", 2), ("Quito", 3), ("Washington, D.C.", 4), ("a%2Cb", 5)]
        {
            create(&app, name, json!({"price_cents": cents, "tags": [name]})).await;
        }
        for (query, expected) in [
            ("name%5Bin%5D=Cairo&name%5Bin%5D=Lagos", "Cairo|Lagos"),
            // openapi-fetch leaves brackets as they are.
            ("name[in]=Cairo&name[in]=Lagos&name[in]=Nowhere", "Cairo|Lagos"),
            ("name[in]=Cairo,Lagos", "Cairo|Lagos"),
            // A comma is part of a value, however often it is encoded.
            ("name[in]=Washington%2C%20D.C.&name[in]=Cairo", "Cairo|Washington, D.C."),
            ("name[in]=Washington,+D.C.&name[in]=Cairo", "Cairo|Washington, D.C."),
            ("name[in]=a%252Cb&name[in]=Cairo", "Cairo|a%2Cb"),
            ("name[nin]=Cairo&name[nin]=Washington%2C%20D.C.", "Lagos|Quito|a%2Cb"),
            ("price_cents[between]=2&price_cents[between]=3", "Lagos|Quito"),
            ("tags[overlaps]=Quito&tags[overlaps]=Washington%2C%20D.C.", "Quito|Washington, D.C."),
            // Different parameters are different conditions.
            ("name[in]=Cairo&price_cents[gt]=0&name[in]=Lagos&price_cents[lt]=2", "Cairo"),
        ] {
            assert_eq!(found(&app, query).await.join("|"), expected, "{query}");
        }
        let parts = app.get("/products?fields=id&fields=name&sort=-in_stock&limit=1").await;
        assert_eq!(
            (parts.status(), fault(&parts).1),
            (400, "sort".to_owned()),
            "sorting by it is not declared"
        );
        let parts =
            app.get("/products?fields=name&fields=price_cents&sort=status&sort=-price_cents&limit=1").await;
        assert_eq!(parts.items(), [json!({"name": "a%2Cb", "price_cents": 5})], "{parts}");
        let included = app.get("/products?include=category&include=category&limit=1").await;
        assert!(included.items()[0].as_object().unwrap().contains_key("category"), "{included}");
    })
    .await;
}

#[tokio::test]
async fn repeated_single_value_parameter_is_rejected() {
    on_every_storage(|app| async move {
        create(&app, "lamp", json!({})).await;
        let one = path(&app.get("/products").await.items()[0]);
        for (target, at, words) in [
            ("/products?status=draft&status=live", "status", "`status[in]=a,b`"),
            ("/products?price_cents%5Bgte%5D=1&price_cents%5Bgte%5D=2", "price_cents[gte]", "once"),
            ("/products?rating%5Bis_null%5D=true&rating%5Bis_null%5D=false", "rating[is_null]", "once"),
            ("/products?name%5Bcontains%5D=a&name%5Bcontains%5D=b", "name[contains]", "once"),
            ("/products?tags%5Bhas%5D=a&tags%5Bhas%5D=b", "tags[has]", "once"),
            ("/products?limit=1&limit=1", "limit", "once"),
            ("/products?q=a&q=b", "q", "once"),
            ("/products?after=a&after=b", "after", "once"),
        ] {
            let (status, parameter, code, detail) = fault(&app.get(target).await);
            assert_eq!((status, &*parameter, &*code), (400, at, "repeated"), "{target}");
            assert!(detail.contains(words), "{target}: {detail}");
        }
        let twice = app.post("/products/bulk?mode=partial&mode=atomic").json(json!({"items": []})).await;
        assert_eq!(fault(&twice).1, "mode", "{twice}");
        assert_eq!(app.get(&format!("{one}?fields=id&fields=name")).await.status(), 200);
    })
    .await;
}

#[tokio::test]
async fn misspelled_parameter_gets_a_suggestion() {
    on_every_storage(|app| async move {
        create(&app, "lamp", json!({})).await;
        let one = path(&app.get("/products").await.items()[0]);
        for (target, at, words) in [
            ("/products?limt=1", "limt", "Did you mean `limit`?"),
            ("/products?sor=name", "sor", "Did you mean `sort`?"),
            ("/products?aftr=x", "aftr", "Did you mean `after`?"),
            ("/products?feilds=name", "feilds", "Did you mean `fields`?"),
            ("/products?prise_cents=1", "prise_cents", "Did you mean `price_cents`?"),
            ("/products?fields%5B%5D=name", "fields[]", "`fields=a&fields=b`"),
            ("/products?name%5Bin%5D%5B%5D=a", "name[in][]", "`name[in]=a&name[in]=b`"),
            (&format!("{one}?feilds=name"), "feilds", "Did you mean `fields`?"),
            (&format!("{one}?fields%5B%5D=name"), "fields[]", "`fields=a,b`"),
            ("/products?name%5B=x", "name[", "field[operator]=value"),
        ] {
            let (status, parameter, _, detail) = fault(&app.get(target).await);
            assert_eq!((status, &*parameter), (400, at), "{target}");
            assert!(detail.contains(words), "{target}: {detail}");
        }
        // What does not exist here is not proposed.
        let (_, _, _, detail) = fault(&app.get("/categories?pgae=1").await);
        assert!(!detail.contains("`page`"), "{detail}");
    })
    .await;
}

#[tokio::test]
async fn invalid_percent_encoding_gets_400() {
    on_every_storage(|app| async move {
        for value in ["%zz", "%", "abc%2", "%E2%82", "100%", "%2", "%%20"] {
            let (status, parameter, code, detail) = fault(&app.get(&format!("/products?name={value}")).await);
            assert_eq!((status, &*parameter, &*code), (400, "name", "encoding"), "{value}: {detail}");
            assert!(detail.contains("%25"), "{detail}");
        }
        assert_eq!(app.get("/products?name=100%25").await.status(), 200);
    })
    .await;
}

#[tokio::test]
async fn cursor_works_with_every_form_of_the_same_query() {
    on_every_storage(|app| async move {
        for (name, cents) in [("a", 10), ("b", 20), ("c", 20), ("d", 20), ("e", 30)] {
            create(&app, name, json!({"price_cents": cents, "status": "live"})).await;
        }
        let strings = [
            "status=live&price_cents[gte]=20&price_cents[lt]=30",
            "price_cents[lt]=30&status[eq]=live&price_cents[gte]=20",
        ];
        let filters = [
            json!({"status": "live", "price_cents": {"gte": 20, "lt": 30}}),
            json!({"and": [{"price_cents": {"lt": 30}}, {"and": [{"price_cents": {"gte": 20}}]}, {"status": {"eq": "live"}}]}),
        ];
        let mut cursors = Vec::new();
        for query in strings {
            let page = app.get(&format!("/products?sort=name&limit=1&{query}")).await;
            cursors.push(page.json()["page"]["next"].as_str().unwrap().to_owned());
        }
        for filter in &filters {
            let body = json!({"filter": filter, "sort": ["name"], "limit": 1});
            let page = app.post("/products/query").json(body).await;
            cursors.push(page.json()["page"]["next"].as_str().unwrap().to_owned());
        }
        for cursor in &cursors {
            for query in strings {
                let page = app.get(&format!("/products?sort=name&limit=1&{query}&after={cursor}")).await;
                assert_eq!((page.status(), &page.items()[0]["name"]), (200, &json!("c")), "{page}");
            }
            for filter in &filters {
                let body = json!({"filter": filter, "sort": ["name"], "limit": 1, "after": cursor});
                for (method, target) in [("QUERY", "/products"), ("POST", "/products/query")] {
                    let page = app.request(method, target).json(body.clone()).await;
                    assert_eq!((page.status(), &page.items()[0]["name"]), (200, &json!("c")), "{page}");
                }
            }
        }
        // Another query, though it is made of the same parts.
        for other in [
            json!({"or": [{"status": "live"}, {"price_cents": {"gte": 20, "lt": 30}}]}),
            json!({"status": "live", "price_cents": {"gte": 20, "lte": 30}}),
            json!({"status": "live", "not": {"price_cents": {"gte": 20, "lt": 30}}}),
        ] {
            let body = json!({"filter": other, "sort": ["name"], "limit": 1, "after": cursors[0]});
            let refused = app.post("/products/query").json(body).await;
            let (status, pointer, code, _) = fault(&refused);
            assert_eq!((status, &*pointer, &*code), (400, "/after", "invalid-cursor"), "{refused}");
        }
    })
    .await;
}

#[tokio::test]
async fn cursors_and_links_stay_short_for_any_sort_and_filter() {
    on_every_storage(|app| async move {
        // 120 characters, 480 bytes.
        let long = |last: usize| format!("{}{last}", "🦀".repeat(119));
        for index in 0..4 {
            create(&app, &long(index), json!({"sku": format!("s{index}")})).await;
        }
        let mut at = String::new();
        let mut seen = Vec::new();
        let mut cursor = String::new();
        loop {
            let page = app.get(&format!("/products?sort=-name&limit=1{at}")).await;
            assert_eq!(page.status(), 200, "{page}");
            seen.extend(page.items().iter().map(|item| item["name"].as_str().unwrap().to_owned()));
            let Some(next) = page.json()["page"]["next"].as_str().map(str::to_owned) else { break };
            assert!(next.len() <= 512, "{}", next.len());
            assert!(page.header("link").is_some());
            at = format!("&after={next}");
            if cursor.is_empty() {
                cursor = next;
            }
        }
        assert_eq!(seen, (0..4).rev().map(long).collect::<Vec<_>>());
        let back = app.get(&format!("/products?sort=-name&limit=1{at}")).await;
        let prev = back.json()["page"]["prev"].as_str().unwrap().to_owned();
        let page = app.get(&format!("/products?sort=-name&limit=1&before={prev}")).await;
        assert_eq!(page.items()[0]["name"], long(1), "{page}");
        let body = json!({"sort": ["-name"], "limit": 1, "after": cursor});
        let page = app.post("/products/query").json(body.clone()).await;
        assert_eq!(page.items()[0]["name"], long(2), "{page}");
        // The row at which the page ended says no more where that was.
        let last = app.get("/products?sort=-name&limit=1").await.items()[0].clone();
        app.patch(&path(&last)).json(json!({"name": "other"})).await;
        let gone = app.get(&format!("/products?sort=-name&limit=1&after={cursor}")).await;
        assert_eq!((gone.status(), gone.json()["code"].clone()), (400, json!("invalid-cursor")));
        assert!(fault(&gone).3.contains("has changed, or is gone"), "{gone}");
        let gone = app.post("/products/query").json(body).await;
        assert_eq!(fault(&gone).1, "/after", "{gone}");
        app.patch(&path(&last)).json(json!({"name": long(3)})).await;
        assert_eq!(app.get(&format!("/products?sort=-name&limit=1&after={cursor}")).await.status(), 200);
        app.delete(&path(&last)).await;
        let gone = app.get(&format!("/products?sort=-name&limit=1&after={cursor}")).await;
        assert_eq!(gone.status(), 400);

        let many: Vec<String> = (0..100).map(|index| format!("name[in]=product-number-{index}")).collect();
        let wide = app.get(&format!("/products?limit=1&{}&name[in]={}", many[1..].join("&"), long(0))).await;
        assert_eq!((wide.status(), wide.header("link")), (200, None), "{wide}");
        assert_eq!(wide.items().len(), 1);
    })
    .await;
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, Validate)]
struct Meeting {
    id: i64,
    starts: NaiveTime,
    ends: Option<NaiveTime>,
}

#[tokio::test]
async fn times_of_day_are_compared_by_value() {
    for storage in TestStorage::all().await {
        let meetings = define_resource::<Meeting>("meetings")
            .adapter(storage.table("meetings"))
            .permissions(Permissions::all(anyone()))
            .filterable(["starts", "ends"])
            .sortable(["starts"]);
        let app =
            TestApp::build(create_app(AppPreset::Testing).resource(meetings.build().unwrap())).await.unwrap();
        for (starts, ends) in
            [("10:00:00", json!("11:30:00")), ("09:15:30.250", json!(null)), ("23:59:59", json!(null))]
        {
            let created = app.post("/meetings").json(json!({"starts": starts, "ends": ends})).await;
            assert_eq!(created.status(), 201, "{created}");
        }
        for (query, expected) in [
            ("starts=10:00", vec!["10:00:00"]),
            ("starts=10:00:00", vec!["10:00:00"]),
            ("starts=10:00:00.000", vec!["10:00:00"]),
            ("starts=09:15:30.25", vec!["09:15:30.250"]),
            ("starts[in]=10:00,23:59:59.0", vec!["10:00:00", "23:59:59"]),
            ("starts[lt]=10:00", vec!["09:15:30.250"]),
            ("starts[between]=10:00,23:59:59", vec!["10:00:00", "23:59:59"]),
            ("ends=11:30", vec!["10:00:00"]),
        ] {
            let list = app.get(&format!("/meetings?sort=starts&{query}")).await;
            let starts: Vec<Value> = list.items().iter().map(|item| item["starts"].clone()).collect();
            assert_eq!(starts, expected, "{query} on {}: {list}", storage.name);
        }
        let body = app.post("/meetings/query").json(json!({"filter": {"starts": "10:00"}})).await;
        assert_eq!(body.items().len(), 1, "{body}");
        let wrong = app.get("/meetings?starts=25:00").await;
        assert_eq!((wrong.status(), fault(&wrong).1), (400, "starts".to_owned()), "{wrong}");
    }
}

#[tokio::test]
async fn any_filter_matches_all_conditions_on_one_related_row() {
    on_every_storage(|app| async move {
        for code in ["a", "b", "c"] {
            app.post("/categories").json(json!({"code": code, "title": code})).await;
        }
        for (name, cents, category) in
            [("p1", 10, "a"), ("p2", 90, "a"), ("p3", 90, "b"), ("p1 too", 90, "b")]
        {
            create(&app, name, json!({"price_cents": cents, "category_code": category, "status": "live"}))
                .await;
        }
        let codes = |list: resourceful::testing::TestResponse| {
            assert_eq!(list.status(), 200, "{list}");
            list.items().iter().map(|item| item["code"].as_str().unwrap().to_owned()).collect::<String>()
        };
        for (query, expected) in [
            // Of any two rows.
            ("products.name[starts]=p1&products.price_cents=90", "ab"),
            ("products[any].name[starts]=p1&products[any].price_cents=90", "b"),
            ("products[any].name=p1&products[any].price_cents=90", ""),
            ("products[any].name=p1&products[any].price_cents=10&code=a", "a"),
        ] {
            let encoded = query.replace('[', "%5B").replace(']', "%5D");
            assert_eq!(
                codes(app.get(&format!("/categories?sort=title&{encoded}")).await),
                expected,
                "{query}"
            );
        }
        for (filter, expected) in [
            (json!({"products": {"any": {"name": {"starts": "p1"}, "price_cents": 90}}}), "b"),
            (json!({"products": {"any": {"or": [{"name": "p2"}, {"price_cents": 10}]}}}), "a"),
            // There is a row for which it does not hold; a category without rows has none.
            (json!({"products": {"any": {"not": {"price_cents": 90}}}}), "a"),
            (json!({"not": {"products": {"any": {"price_cents": 90}}}}), "c"),
            (json!({"products": {"any": {}}}), "ab"),
        ] {
            let body = json!({"filter": filter, "sort": ["title"]});
            assert_eq!(codes(app.post("/categories/query").json(body).await), expected, "{filter}");
        }
        for (filter, at) in [
            (json!({"products": {"any": {"name": "p1"}, "none": {}}}), "/filter/products"),
            (json!({"products": {"any": {"nmae": "p1"}}}), "/filter/products/any/nmae"),
            (json!({"category": {"any": {"title": "a"}}}), "/filter/category/any"),
        ] {
            let refused = app.post("/categories/query").json(json!({"filter": filter})).await;
            assert_eq!((refused.status(), fault(&refused).1), (400, at.to_owned()), "{refused}");
        }
        for method in ["DELETE", "PATCH"] {
            let filter = json!({"products": {"any": {"name": "nothing"}}});
            let mut body = json!({"filter": filter, "max_affected": 1});
            if method == "PATCH" {
                body["patch"] = json!({"title": "x"});
            }
            let none = app.request(method, "/categories/bulk").json(body).await;
            assert_eq!(none.status(), 200, "{method}: {none}");
        }
        let refused = app.get("/categories?nowhere%5Bany%5D.name=x").await;
        assert_eq!(refused.status(), 400, "{refused}");
    })
    .await;
}

#[tokio::test]
async fn any_filter_sees_only_related_rows_the_caller_may_list() {
    crate::policies::for_each_storage(|storage| async move {
        let boxes = define_dynamic_resource("boxes", crate::policies::model(&["code"]))
            .adapter(storage.table("boxes"))
            .id_field("code")
            .permissions(Permissions::all(signed_in()))
            .relation(has_many("things", "things").key("box"));
        let things = define_dynamic_resource("things", crate::policies::model(&["code", "box", "label", "user_id"]))
            .adapter(storage.table("things"))
            .id_field("code")
            .permissions(Permissions::all(signed_in()))
            .policy(owner("user_id"))
            .visible_to(["label"], role("chief"))
            .filterable(["label", "user_id"]);
        let tokens = BearerTokens::new()
            .token("ada", Actor::user("ada"))
            .token("chief", Actor::user("ada").with_role("chief"));
        let app = create_app(AppPreset::Testing).authenticator(tokens);
        let app = app.resource(boxes.build().unwrap()).resource(things.build().unwrap());
        let app = TestApp::build(app).await.unwrap();
        let rows = ["a", "b", "c"].map(|code| json!({"code": code}));
        app.app().load().rows("boxes", rows).unwrap().commit().await.unwrap();
        let thing = |code: &str, storage: &str, label: &str, who: &str| {
            json!({"code": code, "box": storage, "label": label, "user_id": who})
        };
        let rows = [thing("1", "a", "red", "ada"), thing("2", "b", "red", "bob"), thing("3", "b", "blue", "ada")];
        app.app().load().rows("things", rows).unwrap().commit().await.unwrap();
        let found = async |who: &str, filter: Value| {
            let list = app.post("/boxes/query").bearer(who).json(json!({"filter": filter})).await;
            assert_eq!(list.status(), 200, "{list}");
            list.items().iter().map(|item| item["code"].as_str().unwrap().to_owned()).collect::<String>()
        };
        assert_eq!(found("chief", json!({"things": {"any": {"label": "red"}}})).await, "a");
        assert_eq!(found("chief", json!({"things": {"any": {"not": {"label": "blue"}}}})).await, "a");
        assert_eq!(found("chief", json!({"things": {"any": {}}})).await, "ab");
        assert_eq!(found("chief", json!({"not": {"things": {"any": {"label": "red"}}}})).await, "bc");
        // The label does not exist for others, and nothing tells whether anybody else has a thing.
        let hidden = json!({"filter": {"things": {"any": {"label": "red"}}}});
        assert_eq!(app.post("/boxes/query").bearer("ada").json(hidden).await.status(), 400);
        assert_eq!(app.get("/boxes?things%5Bany%5D.label=red").bearer("ada").await.status(), 400);
        assert_eq!(found("ada", json!({"things": {"any": {"user_id": "bob"}}})).await, "");
    })
    .await;
}
