//! What hooks read beside the item that is changed, and the locks by which it holds until the commit.

use std::time::Duration;

use futures::future::{BoxFuture, join_all};
use resourceful::prelude::*;
use resourceful::testing::{TestApp, TestResponse};
use resourceful::{Change, Error, ErrorKind, Hook, ResourceBuilder};
use serde_json::json;

use crate::support::aged_rows::LEASES;
use crate::support::{TestStorage, faults};

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, Validate)]
struct Booking {
    id: i64,
    room: String,
    #[serde(default)]
    note: String,
}

/// As many bookings of a room as it has seats.
struct Seats {
    seats: u32,
    locks: bool,
}

impl Hook for Seats {
    fn before<'a>(&'a self, change: &'a mut Change) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(async move {
            let Some(room) = change.item().and_then(|item| item["room"].as_str()).map(str::to_owned) else {
                return Ok(());
            };
            if self.locks {
                change.lock(&format!("seats of {room}")).await?;
            }
            let taken = change.list("bookings", json!({"room": room}), 100).await?;
            let own = change.id();
            let others = taken.iter().filter(|one| own != Some(one["id"].to_string())).count();
            if others >= self.seats as usize {
                return Err(Error::new(ErrorKind::Conflict, "full", "The room is full."));
            }
            Ok(())
        })
    }
}

fn bookings(storage: &TestStorage) -> ResourceBuilder {
    define_resource::<Booking>("bookings")
        .adapter(storage.table("bookings"))
        .permissions(Permissions::all(anyone()))
        .index(["room"])
        .preset(bulk())
}

async fn app_of(resource: ResourceBuilder) -> TestApp {
    let resource = resource.build().unwrap();
    TestApp::build(create_app(AppPreset::Testing).resource(resource).batch(10)).await.unwrap()
}

#[tokio::test]
async fn hook_reads_see_earlier_changes_of_the_same_commit() {
    for storage in TestStorage::all().await {
        let app = app_of(
            bookings(&storage).id(resourceful::resource::Id::Client).hook(Seats { seats: 2, locks: true }),
        )
        .await;
        let post =
            async |id: i64, room: &str| app.post("/bookings").json(json!({"id": id, "room": room})).await;
        for id in 1..3 {
            assert_eq!(post(id, "a").await.status(), 201, "{}", storage.name);
        }
        let full = post(3, "a").await;
        assert_eq!((full.status(), full.json()["code"].clone()), (409, json!("full")), "{}", storage.name);
        // In one request each sees those before it.
        let item = |id: i64, room: &str| json!({"id": id, "room": room});
        let many = app
            .post("/bookings/bulk")
            .json(json!({"items": [item(4, "b"), item(5, "b"), item(6, "b")]}))
            .await;
        assert_eq!((many.status(), faults(&many.json())), (409, vec![("/items/2", "full")]), "{many}");
        // One goes and another comes.
        let operations = json!({"operations": [
            {"operation": "delete", "resource": "bookings", "id": 1},
            {"operation": "create", "resource": "bookings", "body": item(7, "a")},
            {"operation": "update", "resource": "bookings", "id": 2, "body": {"room": "b"}},
            {"operation": "create", "resource": "bookings", "body": item(8, "a")},
        ]});
        let batch = app.post("/batch").json(operations).await;
        assert_eq!(batch.status(), 200, "{}: {batch}", storage.name);
        let operations = json!({"operations": [
            {"operation": "create", "resource": "bookings", "body": item(9, "b")},
            {"operation": "update", "resource": "bookings", "id": 8, "body": {"room": "b"}},
        ]});
        let batch = app.post("/batch").json(operations).await;
        assert_eq!((batch.status(), batch.json()["code"].clone()), (409, json!("full")), "{batch}");
        assert_eq!(app.get("/bookings?room=b").await.items().len(), 1, "{}", storage.name);
    }
}

#[tokio::test]
async fn hook_lock_holds_until_commit() {
    for storage in TestStorage::all().await {
        let app = app_of(bookings(&storage).events(false).hook(Seats { seats: 3, locks: true })).await;
        for round in 0..4 {
            let room = format!("room {round}");
            let post = || async { app.post("/bookings").json(json!({"room": room})).await };
            let answers: Vec<TestResponse> = join_all((0..8).map(|_| post())).await;
            let made = answers.iter().filter(|answer| answer.status() == 201).count();
            let refused: Vec<_> = answers.iter().filter(|answer| answer.status() != 201).collect();
            assert_eq!(made, 3, "{}: {refused:?}", storage.name);
            for answer in refused {
                assert_eq!(
                    (answer.status(), answer.json()["code"].clone()),
                    (409, json!("full")),
                    "{answer}"
                );
            }
        }
        // Several in one commit, in whatever order they were asked for.
        for round in 0..6 {
            let both = [format!("left {round}"), format!("right {round}")];
            let many = |rooms: Vec<&String>| {
                let items: Vec<_> = rooms.into_iter().map(|room| json!({"room": room})).collect();
                let request = app.post("/bookings/bulk").json(json!({"items": items}));
                async move { request.await }
            };
            let one = || many(vec![&both[0], &both[1]]);
            let other = || many(vec![&both[1], &both[0]]);
            let answers =
                join_all([one(), other()]).await.into_iter().chain(join_all([other(), one()]).await);
            let statuses: Vec<_> = answers.map(|answer| answer.status()).collect();
            let made = statuses.iter().filter(|status| **status == 201).count();
            let refused = statuses.iter().filter(|status| **status == 409).count();
            assert_eq!((made, refused), (3, 1), "{}: {statuses:?}", storage.name);
        }
        // Locks that nobody has taken for a day go.
        let (now, day) = (Utc::now(), Duration::from_secs(24 * 3600));
        for (age, left) in [(Duration::ZERO, 16), (day / 2, 16), (2 * day, 0)] {
            LEASES.put(&storage, now - 3 * day..now + day, now - age).await;
            app.app().sweep().await.unwrap();
            assert_eq!(LEASES.put(&storage, now - 3 * day..now + day, now).await, left, "{}", storage.name);
        }
    }
}

#[tokio::test]
async fn last_hook_sees_changes_of_all_other_hooks() {
    struct Noted;
    impl Hook for Noted {
        fn before<'a>(&'a self, change: &'a mut Change) -> BoxFuture<'a, Result<(), Error>> {
            let note = change.item().map(|item| item["note"].clone());
            let outcome = if note == Some(json!("set")) { Ok(()) } else { Err(refused()) };
            Box::pin(std::future::ready(outcome))
        }
    }
    fn refused() -> Error {
        Error::new(ErrorKind::Conflict, "early", "Too early.")
    }
    let set = |booking: &mut Booking, _: &mut Change| {
        booking.note = "set".to_owned();
        Ok(())
    };
    let resource = bookings(&TestStorage::memory()).hook_last(Noted).before([Operation::Create], set);
    assert_eq!(app_of(resource).await.post("/bookings").json(json!({"room": "a"})).await.status(), 201);
    let resource = bookings(&TestStorage::memory()).hook(Noted).before([Operation::Create], set);
    assert_eq!(app_of(resource).await.post("/bookings").json(json!({"room": "a"})).await.status(), 409);
}

#[tokio::test]
async fn invalid_hook_read_is_500_without_details() {
    for asked in ["nothing", "bookings"] {
        struct Asks(&'static str);
        impl Hook for Asks {
            fn before<'a>(&'a self, change: &'a mut Change) -> BoxFuture<'a, Result<(), Error>> {
                Box::pin(async move { change.list(self.0, json!({"nowhere": 1}), 1).await.map(drop) })
            }
        }
        let app = app_of(bookings(&TestStorage::memory()).hook(Asks(asked))).await;
        let answer = app.post("/bookings").json(json!({"room": "a"})).await;
        assert_eq!((answer.status(), answer.json()["code"].clone()), (500, json!("internal")), "{answer}");
    }
}
