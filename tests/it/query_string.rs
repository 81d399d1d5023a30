//! The query string.

use serde_json::json;

use crate::support::{EDITOR, create, names, on_every_storage};

/// Four products that differ in every field.
async fn seed(app: &resourceful::testing::TestApp) {
    let products = [
        (
            "apple",
            json!({"price_cents": 10, "rating": 4.5, "tags": ["red", "green"], "released": "2024-01-01", "weight": "9.5"}),
        ),
        (
            "Banana",
            json!({"price_cents": 20, "status": "live", "tags": ["yellow"], "released": "2024-06-01", "weight": "10.25"}),
        ),
        ("cherry,pie", json!({"price_cents": 30, "rating": 1.0, "in_stock": false, "weight": "0.1"})),
        (
            "100%_d\\ate",
            json!({"price_cents": 40, "rating": 4.5, "status": "retired", "tags": ["red"], "weight": "100"}),
        ),
    ];
    for (index, (name, mut members)) in products.into_iter().enumerate() {
        members["sku"] = json!(index.to_string());
        create(app, name, members).await;
    }
}

/// A query as a client sends it: everything encoded that has to be.
fn encoded(query: &str) -> String {
    query.replace('%', "%25").replace('[', "%5B").replace(']', "%5D").replace(' ', "%20").replace('\\', "%5C")
}

#[tokio::test]
async fn filter_operators_select_matching_items() {
    on_every_storage(|app| async move {
        seed(&app).await;
        for (query, expected) in [
            ("name=apple", "apple"),
            ("name[eq]=apple", "apple"),
            ("name[ne]=apple", "100%_d\\ate Banana cherry,pie"),
            ("price_cents[gt]=20", "100%_d\\ate cherry,pie"),
            ("price_cents[gte]=20", "100%_d\\ate Banana cherry,pie"),
            ("price_cents[lt]=20", "apple"),
            ("price_cents[lte]=20", "Banana apple"),
            ("price_cents[between]=20,30", "Banana cherry,pie"),
            ("price_cents[in]=10,40,50", "100%_d\\ate apple"),
            ("price_cents[in]=", ""),
            ("price_cents[nin]=10,40", "Banana cherry,pie"),
            ("price_cents[nin]=", "100%_d\\ate Banana apple cherry,pie"),
            ("name[contains]=a", "100%_d\\ate Banana apple"),
            ("name[contains]=%", "100%_d\\ate"),
            ("name[contains]=_", "100%_d\\ate"),
            ("name[contains]=\\", "100%_d\\ate"),
            ("name[starts]=B", "Banana"),
            ("name[starts]=b", ""),
            ("name[starts]=1__", ""),
            ("name[ends]=pie", "cherry,pie"),
            ("name[ends]=%pie", ""),
            ("rating=4.5", "100%_d\\ate apple"),
            ("rating[ne]=4.5", "Banana cherry,pie"),
            ("rating[is_null]=true", "Banana"),
            ("rating[is_null]=false", "100%_d\\ate apple cherry,pie"),
            ("in_stock=false", "cherry,pie"),
            ("status=live", "Banana"),
            ("status[in]=live,retired", "100%_d\\ate Banana"),
            ("released[gte]=2024-06-01", "Banana"),
            ("weight[gt]=9.5", "100%_d\\ate Banana"),
            ("weight=10.250", "Banana"),
            ("tags[has]=red", "100%_d\\ate apple"),
            ("tags[overlaps]=green,yellow", "Banana apple"),
            ("name[in]=cherry%2Cpie,apple", "apple cherry,pie"),
            ("name=cherry,pie", "cherry,pie"),
            ("price_cents[gte]=20&price_cents[lt]=40", "Banana cherry,pie"),
            ("dimensions[is_null]=false", ""),
            ("created_at[lt]=2020-01-01T00:00:00Z", ""),
        ] {
            let mut found = names(&app, &format!("/products?limit=10&{}", encoded(query))).await;
            found.sort();
            assert_eq!(found.join(" "), expected, "{query}");
        }
    })
    .await;
}

#[tokio::test]
async fn sorting_is_by_bytes_with_nulls_after_every_value() {
    on_every_storage(|app| async move {
        seed(&app).await;
        for (sort, expected) in [
            ("name", "100%_d\\ate Banana apple cherry,pie"),
            ("-name", "cherry,pie apple Banana 100%_d\\ate"),
            ("-price_cents", "100%_d\\ate cherry,pie Banana apple"),
            ("rating,-price_cents", "cherry,pie 100%_d\\ate apple Banana"),
            ("-rating,price_cents", "Banana apple 100%_d\\ate cherry,pie"),
            ("weight", "cherry,pie apple Banana 100%_d\\ate"),
            ("status,name", "apple cherry,pie Banana 100%_d\\ate"),
        ] {
            let found = names(&app, &format!("/products?limit=10&sort={sort}")).await;
            assert_eq!(found.join(" "), expected, "{sort}");
        }
    })
    .await;
}

#[tokio::test]
async fn unknown_parameters_and_values_are_rejected_by_name() {
    on_every_storage(|app| async move {
        seed(&app).await;
        for (query, parameter, words) in [
            ("prise_cents[gte]=1", "prise_cents[gte]", "Did you mean `price_cents`?"),
            ("price_cents[gtt]=1", "price_cents[gtt]", "Did you mean `gt"),
            ("price_cents[contains]=1", "price_cents[contains]", "no operator `contains`"),
            ("price_cents=abc", "price_cents", "expected a 64-bit integer"),
            ("price_cents=", "price_cents", "expected a 64-bit integer"),
            ("price_cents=1.5", "price_cents", "expected a 64-bit integer"),
            ("price_cents=99999999999999999999", "price_cents", "expected a 64-bit integer"),
            ("price_cents[between]=1", "price_cents[between]", "two values"),
            ("price_cents[gte=1", "price_cents[gte", "field[operator]=value"),
            ("in_stock=yes", "in_stock", "true or false"),
            ("status=sold", "status", "draft, live, retired"),
            ("rating=NaN", "rating", "a number"),
            ("released=2024-13-01", "released", "YYYY-MM-DD"),
            ("created_at[gt]=2024-01-01", "created_at[gt]", "RFC 3339"),
            ("id=lamp", "id", "UUID"),
            ("note=x", "note", "neither a parameter nor a field to filter by"),
            ("tags=red", "tags", "no operator `eq`"),
            ("rating[is_null]=maybe", "rating[is_null]", "true or false"),
            ("sort=colour", "sort", "not a field to sort by"),
            ("sort=", "sort", "not a field to sort by"),
            ("sort=tags", "sort", "not a field to sort by"),
            ("fields=nmae", "fields", "Did you mean `name`?"),
            ("include=colour", "include", "not a relation"),
            ("category.colour=x", "category.colour", "neither"),
            ("maker.name=x", "maker.name", "neither"),
            ("limit=0", "limit", "from 1"),
            ("limit=-1", "limit", "from 1"),
            ("limit=many", "limit", "from 1"),
            ("limit=2&limit=3", "limit", "once"),
            ("after=a&before=b", "before", "Only one"),
            ("page=1", "page", "no such parameter"),
            ("colour=red", "colour", "neither a parameter nor a field"),
            ("q=", "q", "one word"),
            ("a\0b=1", "a%00b", "UTF-8"),
        ] {
            let query = encoded(query).replace('\0', "%00");
            let refused = app.get(&format!("/products?{query}")).await;
            assert_eq!(refused.status(), 400, "{query}: {refused}");
            let problem = refused.json();
            assert_eq!(problem["code"], "invalid-query", "{query}");
            assert_eq!(problem["errors"][0]["parameter"], parameter, "{query}");
            let detail = problem["errors"][0]["detail"].as_str().unwrap();
            assert!(detail.contains(words), "{query}: {detail}");
        }
        let several = app.get("/products?limit=0&colour=red&sort=x").await;
        assert_eq!(several.json()["errors"].as_array().unwrap().len(), 3);
        let invalid = app.get("/products?name=%FF").await;
        assert_eq!((invalid.status(), &invalid.json()["errors"][0]["parameter"]), (400, &json!("name")));
    })
    .await;
}

#[tokio::test]
async fn limit_is_capped_at_the_maximum() {
    on_every_storage(|app| async move {
        for index in 0..12 {
            create(&app, &format!("p{index:02}"), json!({})).await;
        }
        for (query, limit, items) in
            [("", 3, 3), ("limit=2", 2, 2), ("limit=11", 10, 10), ("limit=4294967296", 10, 10)]
        {
            let list = app.get(&format!("/products?{query}")).await;
            assert_eq!(
                (&list.json()["page"]["limit"], list.items().len()),
                (&json!(limit), items),
                "{query}"
            );
        }
    })
    .await;
}

#[tokio::test]
async fn fields_select_a_part_of_each_item() {
    on_every_storage(|app| async move {
        let created = create(&app, "lamp", json!({})).await;
        let list = app.get("/products?fields=name,id").await;
        assert_eq!(list.items(), [json!({"id": created["id"], "name": "lamp"})]);
        let item = app.get(&format!("{}?fields=name", crate::support::path(&created))).await;
        assert_eq!(item.json(), json!({"name": "lamp"}));
        let refused = app.get(&format!("{}?limit=1", crate::support::path(&created))).await;
        assert_eq!((refused.status(), &refused.json()["errors"][0]["parameter"]), (400, &json!("limit")));
    })
    .await;
}

#[tokio::test]
async fn a_search_finds_every_word_in_any_searchable_field() {
    on_every_storage(|app| async move {
        seed(&app).await;
        assert_eq!(names(&app, "/products?q=BANANA").await, ["Banana"]);
        assert_eq!(names(&app, "/products?q=pie+cherry").await, ["cherry,pie"]);
        assert_eq!(names(&app, "/products?q=pie+apple").await, Vec::<String>::new());
        assert_eq!(names(&app, "/products?q=%25_").await, ["100%_d\\ate"]);
        let refused = app.get("/categories?q=x").await;
        assert_eq!((refused.status(), &refused.json()["errors"][0]["parameter"]), (400, &json!("q")));
    })
    .await;
}

#[tokio::test]
async fn total_is_returned_only_when_preferred() {
    on_every_storage(|app| async move {
        seed(&app).await;
        let plain = app.get("/products?limit=1").await;
        assert_eq!((plain.json()["page"].get("total"), plain.header("preference-applied")), (None, None));
        let counted =
            app.get("/products?limit=1&price_cents%5Bgt%5D=10").header("prefer", "count=exact").await;
        assert_eq!(counted.json()["page"]["total"], 3);
        assert_eq!(counted.json()["page"]["total_kind"], "exact");
        assert_eq!(counted.header("preference-applied"), Some("count=exact"));
        let beyond = app.get("/products?price_cents=1").header("prefer", "count=exact").await;
        assert_eq!(beyond.json()["page"]["total"], 0);
        let estimated = app.get("/products").header("prefer", "wait=5, count=estimated").await;
        assert!(estimated.json()["page"]["total"].is_u64(), "{estimated}");
        assert_eq!(
            estimated.header("preference-applied").unwrap(),
            format!("count={}", estimated.json()["page"]["total_kind"].as_str().unwrap())
        );
    })
    .await;
}

#[tokio::test]
async fn page_numbers_need_opt_in() {
    on_every_storage(|app| async move {
        for index in 1..=5 {
            app.post("/notes").bearer(EDITOR).json(json!({"text": index.to_string()})).await;
        }
        let page = app.get("/notes?page=2&limit=2").bearer(EDITOR).await;
        let texts: Vec<_> = page.items().iter().map(|item| item["text"].clone()).collect();
        assert_eq!(texts, [json!("3"), json!("4")]);
        let next = page.json()["page"]["next"].as_str().unwrap().to_owned();
        let following = app.get(&format!("/notes?limit=2&after={next}")).bearer(EDITOR).await;
        assert_eq!(following.items()[0]["text"], "5");
        for wrong in ["0", "-1", "x", "99999999999999999999"] {
            let refused = app.get(&format!("/notes?page={wrong}")).bearer(EDITOR).await;
            assert_eq!(refused.status(), 400, "{wrong}");
        }
    })
    .await;
}
