//! Who is told of changes: at least once, in the order of each item's changes, whatever fails meanwhile.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use resourceful::AppBuilder;
use resourceful::adapter::Migration;
use resourceful::prelude::*;
use resourceful::testing::TestApp;
use serde_json::json;
use sqlx::Connection as _;

use crate::policies::model;
use crate::support::Place;
use crate::support::kept::EVENTS;

/// What subscribers were told, in order.
#[derive(Clone, Default)]
struct Told(Arc<Mutex<Vec<(String, String, i64)>>>);

impl Told {
    fn note(&self, event: &resourceful::Event) {
        let count = event.data["count"].as_i64().unwrap_or_default();
        self.0.lock().unwrap().push((event.event_type.clone(), event.subject.clone(), count));
    }

    fn said(&self) -> Vec<(String, String, i64)> {
        self.0.lock().unwrap().clone()
    }

    /// Done when so much was told.
    async fn until(&self, count: usize) {
        let enough = async {
            while self.said().len() < count {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), enough).await.expect("nothing more is told");
    }

    fn subjects(&self) -> Vec<String> {
        self.said().into_iter().map(|(_, subject, _)| subject).collect()
    }
}

fn counters(place: &Place) -> Resource {
    let mut shape = model(&["code"]);
    shape["properties"]["count"] = json!({"type": "integer", "default": 0});
    define_dynamic_resource("counters", shape)
        .adapter(place.table("counters"))
        .id_field("code")
        .permissions(Permissions::all(anyone()))
        .version("version")
        .build()
        .unwrap()
}

fn builder(place: &Place) -> AppBuilder {
    let ledger = define_dynamic_resource("ledger", model(&["code", "of"]))
        .adapter(place.table("ledger"))
        .id_field("code")
        .permissions(Permissions::all(anyone()))
        .build()
        .unwrap();
    create_app(AppPreset::Testing).resource(counters(place)).resource(ledger)
}

async fn create(app: &TestApp, code: &str) {
    assert_eq!(app.post("/counters").json(json!({"code": code})).await.status(), 201);
}

async fn count(app: &TestApp, code: &str, count: i64) {
    assert_eq!(app.patch(&format!("/counters/{code}")).json(json!({"count": count})).await.status(), 200);
}

/// Makes everything that waits to be tried again due now.
async fn hurry(place: &Place, app: &TestApp) {
    if place.name == "memory" {
        return;
    }
    let sql = "UPDATE resourceful_events SET due_at = NULL WHERE dead_at IS NULL";
    let name = Uuid::now_v7().simple().to_string();
    place.storage().migrate(&[Migration::new(name, 1, "hurry", sql)], true).await.unwrap();
    app.app().deliver().await.unwrap();
}

#[tokio::test]
async fn subscribers_are_told_of_what_they_want_in_order_and_once() {
    for place in Place::all().await {
        let (all, some, none) = (Told::default(), Told::default(), Told::default());
        let (to_all, to_some, to_none) = (all.clone(), some.clone(), none.clone());
        let app = builder(&place)
            .on("*", move |event, _| {
                to_all.note(&event);
                std::future::ready(Ok(()))
            })
            .on("counters.updated", move |event, delivery| {
                assert_eq!((delivery.attempt(), delivery.subscriber()), (1, "counters.updated"));
                to_some.note(&event);
                std::future::ready(Ok(()))
            })
            .on("ledger.*", move |event, _| {
                to_none.note(&event);
                std::future::ready(Ok(()))
            });
        let app = TestApp::build(app).await.unwrap();
        create(&app, "a").await;
        for number in 1..4 {
            count(&app, "a", number).await;
        }
        app.post("/counters").header("prefer", "dry-run").json(json!({"code": "b"})).await;
        assert!(all.said().is_empty(), "nobody is told inside of a request");
        app.app().deliver().await.unwrap();
        app.app().deliver().await.unwrap();
        let counts = |told: &Told| told.said().into_iter().map(|(_, _, count)| count).collect::<Vec<_>>();
        assert_eq!((counts(&all), counts(&some)), (vec![0, 1, 2, 3], vec![1, 2, 3]), "{}", place.name);
        assert!(none.said().is_empty());
    }
}

#[tokio::test]
async fn one_that_fails_holds_up_its_own_item_and_nothing_else() {
    for place in Place::all().await {
        let told = Told::default();
        let broken = Arc::new(AtomicBool::new(true));
        let (noting, breaks) = (told.clone(), broken.clone());
        let app = builder(&place).on("counters.*", move |event, _| {
            let fails = event.subject == "bad" && breaks.load(Ordering::SeqCst);
            if !fails {
                noting.note(&event);
            }
            std::future::ready(if fails { Err("no".into()) } else { Ok(()) })
        });
        let app = TestApp::build(app).await.unwrap();
        for code in ["bad", "good"] {
            create(&app, code).await;
            count(&app, code, 1).await;
        }
        app.app().deliver().await.unwrap();
        assert_eq!(told.subjects(), ["good", "good"], "{}", place.name);
        count(&app, "good", 2).await;
        app.app().deliver().await.unwrap();
        assert_eq!(told.subjects().len(), 3, "what comes later passes by too");
        broken.store(false, Ordering::SeqCst);
        app.app().deliver().await.unwrap();
        assert_eq!(told.subjects().len(), 3, "it waits before it is tried again");
        if place.name == "memory" {
            continue;
        }
        hurry(&place, &app).await;
        let bad: Vec<_> = told.said().into_iter().filter(|(_, subject, _)| subject == "bad").collect();
        let counts: Vec<_> = bad.iter().map(|(_, _, count)| *count).collect();
        assert_eq!(counts, [0, 1], "in the order of its changes");
    }
}

#[tokio::test]
async fn a_due_time_by_a_clock_that_is_ahead_holds_up_nothing() {
    for place in Place::all().await.into_iter().filter(|place| place.name != "memory") {
        let (told, failed) = (Told::default(), Arc::new(AtomicUsize::new(0)));
        let (noting, fails) = (told.clone(), failed.clone());
        let app = builder(&place).on("counters.*", move |event, delivery| {
            let is_first = delivery.attempt() == 1;
            if is_first {
                fails.fetch_add(1, Ordering::SeqCst);
            } else {
                noting.note(&event);
            }
            std::future::ready(if is_first { Err("no".into()) } else { Ok(()) })
        });
        let app = TestApp::build(app).await.unwrap();
        for code in ["ahead", "waits"] {
            create(&app, code).await;
        }
        app.app().deliver().await.unwrap();
        assert_eq!(failed.load(Ordering::SeqCst), 2, "{}", place.name);
        // The longest pause is 15 minutes, and a half of it more. A time two hours ahead is one that no clock that is right writes.
        for (subject, minutes) in [("ahead", 120), ("waits", 22)] {
            let at = (Utc::now() + chrono::TimeDelta::minutes(minutes))
                .to_rfc3339_opts(chrono::SecondsFormat::Micros, true);
            let sql = format!("UPDATE resourceful_events SET due_at = '{at}' WHERE subject = '{subject}'");
            let name = Uuid::now_v7().simple().to_string();
            place.storage().migrate(&[Migration::new(name, 1, "a due time", sql)], true).await.unwrap();
        }
        app.app().deliver().await.unwrap();
        assert_eq!(told.subjects(), ["ahead"], "{}", place.name);
    }
}

#[tokio::test]
async fn one_that_takes_long_holds_up_nobody_else() {
    for place in Place::all().await {
        let told = Told::default();
        let noting = told.clone();
        let (release, held) = tokio::sync::watch::channel(false);
        let app = builder(&place).on("counters.*", move |event, _| {
            let (noting, mut held) = (noting.clone(), held.clone());
            async move {
                if event.subject == "slow" {
                    held.wait_for(|released| *released).await?;
                }
                noting.note(&event);
                Ok(())
            }
        });
        let app = TestApp::build(app).await.unwrap();
        let background = app.app().background();
        create(&app, "slow").await;
        count(&app, "slow", 1).await;
        // What comes after it began is told of before it ends.
        for number in 0..5 {
            create(&app, &format!("quick {number}")).await;
            told.until(number + 1).await;
        }
        assert!(!told.subjects().contains(&"slow".to_owned()), "{}", place.name);
        release.send(true).unwrap();
        told.until(7).await;
        let slow = told.said().into_iter().filter(|(_, subject, _)| subject == "slow");
        assert_eq!(slow.map(|(_, _, count)| count).collect::<Vec<_>>(), [0, 1]);
        background.stop().await;
    }
}

#[tokio::test]
async fn whoever_handled_an_event_is_not_told_again_because_another_failed() {
    for place in Place::all().await.into_iter().filter(|place| place.name != "memory") {
        let (told, broken) = (Told::default(), Arc::new(AtomicUsize::new(0)));
        let (noting, breaks) = (told.clone(), broken.clone());
        let app = builder(&place)
            .on("counters.*", move |event, _| {
                noting.note(&event);
                std::future::ready(Ok(()))
            })
            .on("*", move |_, _| {
                let tries = breaks.fetch_add(1, Ordering::SeqCst);
                std::future::ready(if tries < 2 { Err("no".into()) } else { Ok(()) })
            });
        let app = TestApp::build(app).await.unwrap();
        create(&app, "a").await;
        app.app().deliver().await.unwrap();
        hurry(&place, &app).await;
        hurry(&place, &app).await;
        hurry(&place, &app).await;
        assert_eq!((told.subjects().len(), broken.load(Ordering::SeqCst)), (1, 3), "{}", place.name);
    }
}

#[tokio::test]
async fn however_much_waits_for_a_failed_event_the_rest_goes_on() {
    let place = Place::memory();
    let told = Told::default();
    let noting = told.clone();
    let app = builder(&place).on("counters.*", move |event, _| {
        noting.note(&event);
        std::future::ready(if event.subject == "bad" { Err("no".into()) } else { Ok(()) })
    });
    let app = TestApp::build(app).await.unwrap();
    create(&app, "bad").await;
    app.app().deliver().await.unwrap();
    // More than are taken at once.
    for number in 1..=600 {
        count(&app, "bad", number).await;
    }
    create(&app, "good").await;
    app.app().deliver().await.unwrap();
    // On a slow machine the failed one may be due again by now; what waits behind it never is.
    let subjects = told.subjects();
    assert!(subjects.contains(&"good".to_owned()), "{subjects:?}");
    assert!(subjects.iter().filter(|subject| *subject == "bad").count() < 10, "{subjects:?}");
}

#[tokio::test]
async fn what_nobody_can_be_told_of_is_a_dead_letter_that_can_be_replayed() {
    for place in Place::all().await.into_iter().filter(|place| place.name != "memory") {
        let told = Told::default();
        let broken = Arc::new(AtomicBool::new(true));
        let (noting, breaks) = (told.clone(), broken.clone());
        let app = builder(&place).on("counters.*", move |event, delivery| {
            let fails =
                event.subject == "bad" && event.action() == "created" && breaks.load(Ordering::SeqCst);
            if fails && delivery.attempt() % 2 == 0 {
                panic!("a subscriber that panics");
            }
            if !fails {
                noting.note(&event);
            }
            std::future::ready(if fails { Err("the mail server is away".into()) } else { Ok(()) })
        });
        let app = TestApp::build(app).await.unwrap();
        create(&app, "bad").await;
        count(&app, "bad", 1).await;
        app.app().deliver().await.unwrap();
        for _ in 0..9 {
            assert!(app.app().dead_letters(9).await.unwrap().is_empty());
            hurry(&place, &app).await;
        }
        let dead = app.app().dead_letters(9).await.unwrap();
        assert_eq!((dead.len(), dead[0].attempts), (1, 10), "{}", place.name);
        assert_eq!(dead[0].reason, "counters.*: it panicked");
        assert_eq!(dead[0].event.event_type, "counters.created");
        assert_eq!(told.said().len(), 1, "those after it go on");
        broken.store(false, Ordering::SeqCst);
        app.app().deliver().await.unwrap();
        assert_eq!(told.said().len(), 1, "and it is not tried unasked");
        assert_eq!(app.app().replay_dead_letters(&[dead[0].event.id]).await.unwrap(), 1);
        app.app().deliver().await.unwrap();
        assert_eq!(told.said().last().unwrap().0, "counters.created");
        assert!(app.app().dead_letters(9).await.unwrap().is_empty());
    }
}

#[tokio::test]
async fn events_that_were_delivered_long_ago_go_and_no_others() {
    for place in Place::all().await {
        let app = builder(&place).on("counters.created", |event, _| {
            let outcome = if event.subject == "bad" { Err("away".into()) } else { Ok(()) };
            std::future::ready(outcome)
        });
        let app = TestApp::build(app).await.unwrap();
        let (begun, day) = (chrono::Utc::now(), std::time::Duration::from_secs(24 * 3600));
        for code in ["good", "bad"] {
            create(&app, code).await;
        }
        app.app().deliver().await.unwrap();
        create(&app, "waits").await;
        let left = async || {
            app.app().sweep().await.unwrap();
            app.events().await.into_iter().map(|event| event.subject).collect::<Vec<_>>()
        };
        assert_eq!(left().await, ["good", "bad", "waits"], "{}: all are young", place.name);
        let long_ago = begun - 8 * day;
        assert_eq!(EVENTS.put(&place, begun..begun + day, long_ago + 2 * day).await, 3);
        assert_eq!(left().await, ["good", "bad", "waits"], "{}: not for a week", place.name);
        assert_eq!(EVENTS.put(&place, long_ago..begun, long_ago).await, 3);
        assert_eq!(left().await, ["bad", "waits"], "{}: what nobody was told of stays", place.name);
    }
}

#[tokio::test]
async fn one_node_at_a_time_relays_and_the_next_goes_on() {
    for place in Place::all().await {
        let told = Told::default();
        let node = async || {
            let noting = told.clone();
            let app = builder(&place).on("*", move |event, _| {
                noting.note(&event);
                std::future::ready(Ok(()))
            });
            TestApp::build(app).await.unwrap()
        };
        let (one, other) = (node().await, node().await);
        create(&one, "a").await;
        one.app().deliver().await.unwrap();
        create(&one, "b").await;
        other.app().deliver().await.unwrap();
        assert_eq!(told.subjects(), ["a"], "{}: the first has the lease", place.name);
        one.app().deliver().await.unwrap();
        assert_eq!(told.subjects(), ["a", "b"]);
        if place.name == "memory" {
            continue;
        }
        // The first is gone without a word.
        create(&other, "c").await;
        let sql = "UPDATE resourceful_leases SET expires_at = '2020-01-01T00:00:00+00:00'";
        let name = Uuid::now_v7().simple().to_string();
        place.storage().migrate(&[Migration::new(name, 1, "expire", sql)], true).await.unwrap();
        other.app().deliver().await.unwrap();
        assert_eq!(told.subjects(), ["a", "b", "c"]);
        // And comes back: what it thinks it holds is the other's now.
        create(&one, "d").await;
        one.app().deliver().await.unwrap();
        other.app().deliver().await.unwrap();
        let last: Vec<_> = told.subjects().into_iter().skip(3).collect();
        assert!(!last.is_empty() && last.iter().all(|subject| subject == "d"), "{last:?}");
        other.app().deliver().await.unwrap();
        assert_eq!(told.subjects().len(), 3 + last.len(), "it is marked");
    }
}

#[tokio::test]
async fn what_follows_from_an_event_happens_once_however_often_it_comes() {
    for place in Place::all().await {
        let tries = Arc::new(AtomicUsize::new(0));
        let made = Arc::new(AtomicUsize::new(0));
        let (counted, making) = (tries.clone(), made.clone());
        let app = builder(&place).on("counters.created", move |event, delivery| {
            let (counted, making) = (counted.clone(), making.clone());
            async move {
                for _ in 0..3 {
                    let code = format!("of {} {}", event.subject, counted.fetch_add(1, Ordering::SeqCst));
                    let entry = json!({"code": code, "of": event.subject});
                    let now = delivery.once(|change| change.create("ledger", entry)).await?;
                    making.fetch_add(usize::from(now), Ordering::SeqCst);
                }
                Ok(())
            }
        });
        let app = TestApp::build(app).await.unwrap();
        create(&app, "a").await;
        create(&app, "b").await;
        app.app().deliver().await.unwrap();
        assert_eq!((tries.load(Ordering::SeqCst), made.load(Ordering::SeqCst)), (6, 2), "{}", place.name);
        assert_eq!(app.app().count("ledger").await.unwrap(), 2);
        let types: HashMap<String, usize> =
            app.events().await.into_iter().fold(HashMap::new(), |mut all, event| {
                *all.entry(event.event_type).or_default() += 1;
                all
            });
        assert_eq!(types["ledger.created"], 2, "with its own events");
    }
}

#[tokio::test]
async fn a_transaction_that_commits_late_is_not_skipped_and_holds_up_nobody() {
    let Some(place) = Place::postgres().await else { return };
    let told = Told::default();
    let noting = told.clone();
    let app = builder(&place).on("counters.*", move |event, _| {
        noting.note(&event);
        std::future::ready(Ok(()))
    });
    let app = TestApp::build(app).await.unwrap();
    create(&app, "a").await;
    app.app().deliver().await.unwrap();
    // Takes a number in the outbox, holds the item's row, and stays open.
    let mut slow = sqlx::PgConnection::connect(place.url().unwrap()).await.unwrap();
    let mut open = slow.begin().await.unwrap();
    for statement in [
        "UPDATE counters SET count = 5, version = version + 1 WHERE code = 'a'",
        "INSERT INTO resourceful_events (id, type, resource, subject, time, data, attempts)
         VALUES (gen_random_uuid(), 'counters.updated', 'counters', 'a', now(), '{\"code\":\"a\",\"count\":5}', 0)",
    ] {
        sqlx::query(statement).execute(&mut *open).await.unwrap();
    }
    for number in 0..5 {
        create(&app, &format!("n{number}")).await;
    }
    app.app().deliver().await.unwrap();
    assert_eq!(told.subjects().len(), 6, "the others are told of meanwhile: {:?}", told.said());
    open.commit().await.unwrap();
    count(&app, "a", 6).await;
    app.app().deliver().await.unwrap();
    let of_a: Vec<_> = told.said().into_iter().filter(|(_, subject, _)| subject == "a").collect();
    let counts: Vec<_> = of_a.into_iter().map(|(_, _, count)| count).collect();
    assert_eq!(counts, [0, 5, 6], "with an earlier number, and in the order of the commits");
}

/// A node that writes and one that relays know of each other through the database alone.
#[tokio::test]
async fn a_node_that_relays_hears_of_what_another_one_wrote() {
    for place in Place::all().await {
        let (said, mut heard) = tokio::sync::mpsc::unbounded_channel();
        let relays = builder(&place).on("*", move |event, _| {
            let _ = said.send(event.subject.clone());
            std::future::ready(Ok(()))
        });
        let relays = TestApp::build(relays).await.unwrap();
        let writes = TestApp::build(builder(&place)).await.unwrap();
        let background = relays.app().background();
        create(&writes, "a").await;
        assert_eq!(heard.recv().await.as_deref(), Some("a"), "{}", place.name);
        create(&writes, "b").await;
        assert_eq!(heard.recv().await.as_deref(), Some("b"));
        background.stop().await;
    }
}

#[tokio::test]
async fn a_bell_is_heard_by_who_listens_where_the_database_has_one() {
    let Some(place) = Place::postgres().await else { return };
    let other = Sql::connect(place.url().unwrap()).await.unwrap().storage();
    let mut bell = other.listen("a bell").await.unwrap().expect("PostgreSQL has bells");
    place.storage().notify("another").await.unwrap();
    place.storage().notify("a bell").await.unwrap();
    bell.rung().await.unwrap();
    assert!(Memory::new().storage().listen("a bell").await.unwrap().is_none());
}
