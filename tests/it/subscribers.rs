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
use crate::support::TestStorage;
use crate::support::aged_rows::EVENTS;

/// What subscribers were told, in order.
#[derive(Clone, Default)]
struct DeliveredEvents(Arc<Mutex<Vec<(String, String, i64)>>>);

impl DeliveredEvents {
    fn record(&self, event: &resourceful::Event) {
        let count = event.data["count"].as_i64().unwrap_or_default();
        self.0.lock().unwrap().push((event.event_type.clone(), event.subject.clone(), count));
    }

    fn recorded(&self) -> Vec<(String, String, i64)> {
        self.0.lock().unwrap().clone()
    }

    /// Done when so much was told.
    async fn wait_for(&self, count: usize) {
        let enough = async {
            while self.recorded().len() < count {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), enough).await.expect("nothing more is told");
    }

    fn subjects(&self) -> Vec<String> {
        self.recorded().into_iter().map(|(_, subject, _)| subject).collect()
    }
}

fn counters(storage: &TestStorage) -> Resource {
    let mut shape = model(&["code"]);
    shape["properties"]["count"] = json!({"type": "integer", "default": 0});
    define_dynamic_resource("counters", shape)
        .adapter(storage.table("counters"))
        .id_field("code")
        .permissions(Permissions::all(anyone()))
        .version("version")
        .build()
        .unwrap()
}

fn builder(storage: &TestStorage) -> AppBuilder {
    let ledger = define_dynamic_resource("ledger", model(&["code", "of"]))
        .adapter(storage.table("ledger"))
        .id_field("code")
        .permissions(Permissions::all(anyone()))
        .build()
        .unwrap();
    create_app(AppPreset::Testing).resource(counters(storage)).resource(ledger)
}

async fn create(app: &TestApp, code: &str) {
    assert_eq!(app.post("/counters").json(json!({"code": code})).await.status(), 201);
}

async fn count(app: &TestApp, code: &str, count: i64) {
    assert_eq!(app.patch(&format!("/counters/{code}")).json(json!({"count": count})).await.status(), 200);
}

/// Makes everything that waits to be tried again due now.
async fn make_all_due(storage: &TestStorage, app: &TestApp) {
    if storage.name == "memory" {
        return;
    }
    let sql = "UPDATE resourceful_events SET due_at = NULL WHERE dead_at IS NULL";
    let name = Uuid::now_v7().simple().to_string();
    storage.storage().migrate(&[Migration::new(name, 1, "hurry", sql)], true).await.unwrap();
    app.app().deliver().await.unwrap();
}

#[tokio::test]
async fn subscribers_receive_matching_events_once_and_in_order() {
    for storage in TestStorage::all().await {
        let (all, some, none) =
            (DeliveredEvents::default(), DeliveredEvents::default(), DeliveredEvents::default());
        let (to_all, to_some, to_none) = (all.clone(), some.clone(), none.clone());
        let app = builder(&storage)
            .on("*", move |event, _| {
                to_all.record(&event);
                std::future::ready(Ok(()))
            })
            .on("counters.updated", move |event, delivery| {
                assert_eq!((delivery.attempt(), delivery.subscriber()), (1, "counters.updated"));
                to_some.record(&event);
                std::future::ready(Ok(()))
            })
            .on("ledger.*", move |event, _| {
                to_none.record(&event);
                std::future::ready(Ok(()))
            });
        let app = TestApp::build(app).await.unwrap();
        create(&app, "a").await;
        for number in 1..4 {
            count(&app, "a", number).await;
        }
        app.post("/counters").header("prefer", "dry-run").json(json!({"code": "b"})).await;
        assert!(all.recorded().is_empty(), "nobody is told inside of a request");
        app.app().deliver().await.unwrap();
        app.app().deliver().await.unwrap();
        let counts = |delivered: &DeliveredEvents| {
            delivered.recorded().into_iter().map(|(_, _, count)| count).collect::<Vec<_>>()
        };
        assert_eq!((counts(&all), counts(&some)), (vec![0, 1, 2, 3], vec![1, 2, 3]), "{}", storage.name);
        assert!(none.recorded().is_empty());
    }
}

#[tokio::test]
async fn failed_event_blocks_only_its_own_item() {
    for storage in TestStorage::all().await {
        let delivered = DeliveredEvents::default();
        let broken = Arc::new(AtomicBool::new(true));
        let (recorder, breaks) = (delivered.clone(), broken.clone());
        let app = builder(&storage).on("counters.*", move |event, _| {
            let fails = event.subject == "bad" && breaks.load(Ordering::SeqCst);
            if !fails {
                recorder.record(&event);
            }
            std::future::ready(if fails { Err("no".into()) } else { Ok(()) })
        });
        let app = TestApp::build(app).await.unwrap();
        for code in ["bad", "good"] {
            create(&app, code).await;
            count(&app, code, 1).await;
        }
        app.app().deliver().await.unwrap();
        assert_eq!(delivered.subjects(), ["good", "good"], "{}", storage.name);
        count(&app, "good", 2).await;
        app.app().deliver().await.unwrap();
        assert_eq!(delivered.subjects().len(), 3, "what comes later passes by too");
        broken.store(false, Ordering::SeqCst);
        app.app().deliver().await.unwrap();
        assert_eq!(delivered.subjects().len(), 3, "it waits before it is tried again");
        if storage.name == "memory" {
            continue;
        }
        make_all_due(&storage, &app).await;
        let bad: Vec<_> =
            delivered.recorded().into_iter().filter(|(_, subject, _)| subject == "bad").collect();
        let counts: Vec<_> = bad.iter().map(|(_, _, count)| *count).collect();
        assert_eq!(counts, [0, 1], "in the order of its changes");
    }
}

#[tokio::test]
async fn due_time_from_a_fast_clock_delays_nothing() {
    for storage in TestStorage::all().await.into_iter().filter(|storage| storage.name != "memory") {
        let (delivered, failed) = (DeliveredEvents::default(), Arc::new(AtomicUsize::new(0)));
        let (recorder, fails) = (delivered.clone(), failed.clone());
        let app = builder(&storage).on("counters.*", move |event, delivery| {
            let is_first = delivery.attempt() == 1;
            if is_first {
                fails.fetch_add(1, Ordering::SeqCst);
            } else {
                recorder.record(&event);
            }
            std::future::ready(if is_first { Err("no".into()) } else { Ok(()) })
        });
        let app = TestApp::build(app).await.unwrap();
        for code in ["ahead", "waits"] {
            create(&app, code).await;
        }
        app.app().deliver().await.unwrap();
        assert_eq!(failed.load(Ordering::SeqCst), 2, "{}", storage.name);
        // The longest pause is 15 minutes, and a half of it more. A time two hours ahead is one that no clock that is right writes.
        for (subject, minutes) in [("ahead", 120), ("waits", 22)] {
            let at = (Utc::now() + chrono::TimeDelta::minutes(minutes))
                .to_rfc3339_opts(chrono::SecondsFormat::Micros, true);
            let sql = format!("UPDATE resourceful_events SET due_at = '{at}' WHERE subject = '{subject}'");
            let name = Uuid::now_v7().simple().to_string();
            storage.storage().migrate(&[Migration::new(name, 1, "a due time", sql)], true).await.unwrap();
        }
        app.app().deliver().await.unwrap();
        assert_eq!(delivered.subjects(), ["ahead"], "{}", storage.name);
    }
}

#[tokio::test]
async fn slow_event_does_not_block_other_items() {
    for storage in TestStorage::all().await {
        let delivered = DeliveredEvents::default();
        let recorder = delivered.clone();
        let (release, held) = tokio::sync::watch::channel(false);
        let app = builder(&storage).on("counters.*", move |event, _| {
            let (recorder, mut held) = (recorder.clone(), held.clone());
            async move {
                if event.subject == "slow" {
                    held.wait_for(|released| *released).await?;
                }
                recorder.record(&event);
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
            delivered.wait_for(number + 1).await;
        }
        assert!(!delivered.subjects().contains(&"slow".to_owned()), "{}", storage.name);
        release.send(true).unwrap();
        delivered.wait_for(7).await;
        let slow = delivered.recorded().into_iter().filter(|(_, subject, _)| subject == "slow");
        assert_eq!(slow.map(|(_, _, count)| count).collect::<Vec<_>>(), [0, 1]);
        background.stop().await;
    }
}

#[tokio::test]
async fn handled_event_is_not_redelivered_when_another_subscriber_fails() {
    for storage in TestStorage::all().await.into_iter().filter(|storage| storage.name != "memory") {
        let (delivered, broken) = (DeliveredEvents::default(), Arc::new(AtomicUsize::new(0)));
        let (recorder, breaks) = (delivered.clone(), broken.clone());
        let app = builder(&storage)
            .on("counters.*", move |event, _| {
                recorder.record(&event);
                std::future::ready(Ok(()))
            })
            .on("*", move |_, _| {
                let tries = breaks.fetch_add(1, Ordering::SeqCst);
                std::future::ready(if tries < 2 { Err("no".into()) } else { Ok(()) })
            });
        let app = TestApp::build(app).await.unwrap();
        create(&app, "a").await;
        app.app().deliver().await.unwrap();
        make_all_due(&storage, &app).await;
        make_all_due(&storage, &app).await;
        make_all_due(&storage, &app).await;
        assert_eq!((delivered.subjects().len(), broken.load(Ordering::SeqCst)), (1, 3), "{}", storage.name);
    }
}

#[tokio::test]
async fn backlog_behind_a_failed_event_does_not_block_other_items() {
    let storage = TestStorage::memory();
    let delivered = DeliveredEvents::default();
    let recorder = delivered.clone();
    let app = builder(&storage).on("counters.*", move |event, _| {
        recorder.record(&event);
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
    let subjects = delivered.subjects();
    assert!(subjects.contains(&"good".to_owned()), "{subjects:?}");
    assert!(subjects.iter().filter(|subject| *subject == "bad").count() < 10, "{subjects:?}");
}

#[tokio::test]
async fn undeliverable_event_becomes_a_replayable_dead_letter() {
    for storage in TestStorage::all().await.into_iter().filter(|storage| storage.name != "memory") {
        let delivered = DeliveredEvents::default();
        let broken = Arc::new(AtomicBool::new(true));
        let (recorder, breaks) = (delivered.clone(), broken.clone());
        let app = builder(&storage).on("counters.*", move |event, delivery| {
            let fails =
                event.subject == "bad" && event.action() == "created" && breaks.load(Ordering::SeqCst);
            if fails && delivery.attempt() % 2 == 0 {
                panic!("a subscriber that panics");
            }
            if !fails {
                recorder.record(&event);
            }
            std::future::ready(if fails { Err("the mail server is away".into()) } else { Ok(()) })
        });
        let app = TestApp::build(app).await.unwrap();
        create(&app, "bad").await;
        count(&app, "bad", 1).await;
        app.app().deliver().await.unwrap();
        for _ in 0..9 {
            assert!(app.app().dead_letters(9).await.unwrap().is_empty());
            make_all_due(&storage, &app).await;
        }
        let dead = app.app().dead_letters(9).await.unwrap();
        assert_eq!((dead.len(), dead[0].attempts), (1, 10), "{}", storage.name);
        assert_eq!(dead[0].reason, "counters.*: it panicked");
        assert_eq!(dead[0].event.event_type, "counters.created");
        assert_eq!(delivered.recorded().len(), 1, "those after it go on");
        broken.store(false, Ordering::SeqCst);
        app.app().deliver().await.unwrap();
        assert_eq!(delivered.recorded().len(), 1, "and it is not tried unasked");
        assert_eq!(app.app().replay_dead_letters(&[dead[0].event.id]).await.unwrap(), 1);
        app.app().deliver().await.unwrap();
        assert_eq!(delivered.recorded().last().unwrap().0, "counters.created");
        assert!(app.app().dead_letters(9).await.unwrap().is_empty());
    }
}

#[tokio::test]
async fn sweep_removes_only_old_delivered_events() {
    for storage in TestStorage::all().await {
        let app = builder(&storage).on("counters.created", |event, _| {
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
        assert_eq!(left().await, ["good", "bad", "waits"], "{}: all are young", storage.name);
        let long_ago = begun - 8 * day;
        assert_eq!(EVENTS.put(&storage, begun..begun + day, long_ago + 2 * day).await, 3);
        assert_eq!(left().await, ["good", "bad", "waits"], "{}: not for a week", storage.name);
        assert_eq!(EVENTS.put(&storage, long_ago..begun, long_ago).await, 3);
        assert_eq!(left().await, ["bad", "waits"], "{}: what nobody was told of stays", storage.name);
    }
}

#[tokio::test]
async fn one_node_relays_at_a_time_and_another_takes_over() {
    for storage in TestStorage::all().await {
        let delivered = DeliveredEvents::default();
        let node = async || {
            let recorder = delivered.clone();
            let app = builder(&storage).on("*", move |event, _| {
                recorder.record(&event);
                std::future::ready(Ok(()))
            });
            TestApp::build(app).await.unwrap()
        };
        let (one, other) = (node().await, node().await);
        create(&one, "a").await;
        one.app().deliver().await.unwrap();
        create(&one, "b").await;
        other.app().deliver().await.unwrap();
        assert_eq!(delivered.subjects(), ["a"], "{}: the first has the lease", storage.name);
        one.app().deliver().await.unwrap();
        assert_eq!(delivered.subjects(), ["a", "b"]);
        if storage.name == "memory" {
            continue;
        }
        // The first is gone without a word.
        create(&other, "c").await;
        let sql = "UPDATE resourceful_leases SET expires_at = '2020-01-01T00:00:00+00:00'";
        let name = Uuid::now_v7().simple().to_string();
        storage.storage().migrate(&[Migration::new(name, 1, "expire", sql)], true).await.unwrap();
        other.app().deliver().await.unwrap();
        assert_eq!(delivered.subjects(), ["a", "b", "c"]);
        // And comes back: what it thinks it holds is the other's now.
        create(&one, "d").await;
        one.app().deliver().await.unwrap();
        other.app().deliver().await.unwrap();
        let last: Vec<_> = delivered.subjects().into_iter().skip(3).collect();
        assert!(!last.is_empty() && last.iter().all(|subject| subject == "d"), "{last:?}");
        other.app().deliver().await.unwrap();
        assert_eq!(delivered.subjects().len(), 3 + last.len(), "it is marked");
    }
}

#[tokio::test]
async fn delivery_once_applies_its_changes_only_once() {
    for storage in TestStorage::all().await {
        let tries = Arc::new(AtomicUsize::new(0));
        let made = Arc::new(AtomicUsize::new(0));
        let (counted, making) = (tries.clone(), made.clone());
        let app = builder(&storage).on("counters.created", move |event, delivery| {
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
        assert_eq!((tries.load(Ordering::SeqCst), made.load(Ordering::SeqCst)), (6, 2), "{}", storage.name);
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
async fn late_commit_is_not_skipped_and_does_not_block_others() {
    let Some(storage) = TestStorage::postgres().await else { return };
    let delivered = DeliveredEvents::default();
    let recorder = delivered.clone();
    let app = builder(&storage).on("counters.*", move |event, _| {
        recorder.record(&event);
        std::future::ready(Ok(()))
    });
    let app = TestApp::build(app).await.unwrap();
    create(&app, "a").await;
    app.app().deliver().await.unwrap();
    // Takes a number in the outbox, holds the item's row, and stays open.
    let mut slow = sqlx::PgConnection::connect(storage.url().unwrap()).await.unwrap();
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
    assert_eq!(delivered.subjects().len(), 6, "the others are told of meanwhile: {:?}", delivered.recorded());
    open.commit().await.unwrap();
    count(&app, "a", 6).await;
    app.app().deliver().await.unwrap();
    let of_a: Vec<_> = delivered.recorded().into_iter().filter(|(_, subject, _)| subject == "a").collect();
    let counts: Vec<_> = of_a.into_iter().map(|(_, _, count)| count).collect();
    assert_eq!(counts, [0, 5, 6], "with an earlier number, and in the order of the commits");
}

/// A node that writes and one that relays know of each other through the database alone.
#[tokio::test]
async fn relay_is_notified_of_writes_on_another_node() {
    for storage in TestStorage::all().await {
        let (sender, mut receiver) = tokio::sync::mpsc::unbounded_channel();
        let relays = builder(&storage).on("*", move |event, _| {
            let _ = sender.send(event.subject.clone());
            std::future::ready(Ok(()))
        });
        let relays = TestApp::build(relays).await.unwrap();
        let writes = TestApp::build(builder(&storage)).await.unwrap();
        let background = relays.app().background();
        create(&writes, "a").await;
        assert_eq!(receiver.recv().await.as_deref(), Some("a"), "{}", storage.name);
        create(&writes, "b").await;
        assert_eq!(receiver.recv().await.as_deref(), Some("b"));
        background.stop().await;
    }
}

#[tokio::test]
async fn postgres_notification_wakes_its_listener() {
    let Some(storage) = TestStorage::postgres().await else { return };
    let other = Sql::connect(storage.url().unwrap()).await.unwrap().storage();
    let mut notifications = other.listen("a bell").await.unwrap().expect("PostgreSQL has bells");
    storage.storage().notify("another").await.unwrap();
    storage.storage().notify("a bell").await.unwrap();
    notifications.notified().await.unwrap();
    assert!(Memory::new().storage().listen("a bell").await.unwrap().is_none());
}
