//! Names for paths, made of titles.

use resourceful::prelude::*;
use resourceful::testing::TestApp;
use serde_json::json;

use crate::support::{TestStorage, faults};

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, Validate)]
struct Article {
    id: i64,
    title: String,
    #[serde(default)]
    slug: String,
    #[serde(default)]
    blog: String,
}

#[tokio::test]
async fn slug_is_derived_from_title_or_input_and_unique() {
    for storage in TestStorage::all().await {
        let articles = define_resource::<Article>("articles")
            .adapter(storage.table("articles"))
            .permissions(Permissions::all(anyone()))
            .preset(slug("title").within("blog"))
            .build()
            .unwrap();
        let app = TestApp::build(create_app(AppPreset::Testing).resource(articles)).await.unwrap();
        let post = async |body| app.post("/articles").json(body).await;
        let made = post(json!({"title": "Über die  weiten Räume!"})).await;
        assert_eq!(
            (made.status(), made.json()["slug"].clone()),
            (201, json!("uber-die-weiten-raume")),
            "{made}"
        );
        let given = post(json!({"title": "Other", "slug": "My Own"})).await;
        assert_eq!(given.json()["slug"], "my-own");
        // One that is made is never a clash at a field that was not sent; one that is given is.
        let made = post(json!({"title": "My own"})).await;
        assert_eq!((made.status(), made.json()["slug"].clone()), (201, json!("my-own-2")), "{made}");
        let clash = post(json!({"title": "Third", "slug": "my-own"})).await;
        assert_eq!(clash.status(), 409, "{}: {clash}", storage.name);
        assert!(faults(&clash.json()).contains(&("/slug", "unique")), "{clash}");
        // Text in which there is nothing for a path.
        let wrong = post(json!({"title": "t", "slug": "+++"})).await;
        assert_eq!(wrong.status(), 422, "{wrong}");
        assert!(faults(&wrong.json()).contains(&("/slug", "slug")), "{wrong}");
        for title in ["+++", "***", "???"] {
            let made = post(json!({"title": title})).await;
            assert_eq!(made.status(), 201, "{title}: {made}");
            assert_eq!(made.json()["slug"].as_str().unwrap().len(), 8, "{made}");
        }
        let slugs = [post(json!({"title": "C++"})).await, post(json!({"title": "C#"})).await];
        assert_eq!(slugs.map(|made| made.json()["slug"].clone()), ["c", "c-2"]);
        let put = app.put("/articles/1").json(json!({"title": "Put here"})).await;
        assert_eq!(put.json()["slug"], "put-here", "{put}");
        assert_eq!(post(json!({"title": "My own", "blog": "another"})).await.status(), 201);
        let found = app.get("/articles?slug=my-own&blog=").await.items();
        assert_eq!((found.len(), found[0]["title"].clone()), (1, json!("Other")));
        let again = app.patch("/articles/1").json(json!({"title": "New", "slug": ""})).await;
        assert_eq!(again.json()["slug"], "new");
        assert_eq!(
            app.patch("/articles/1").json(json!({"title": "Newer"})).await.json()["slug"],
            "new",
            "it stays"
        );
    }
    let twice = define_resource::<Article>("articles")
        .adapter(Memory::new().table("articles"))
        .permissions(Permissions::all(anyone()))
        .preset(slug("title").field("blog"))
        .preset(multi_tenant("blog"));
    let errors = twice.build().unwrap_err().to_string();
    assert!(
        errors.contains("the preset `slug` and the preset `multi_tenant` both claim the field `blog`"),
        "{errors}"
    );
}
