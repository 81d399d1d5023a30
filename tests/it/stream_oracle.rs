//! Random writes, disconnects, policy changes, pruning and slow readers: what each client makes of its stream is what a list
//! would show it, or it was told to begin anew.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use resourceful::access::{Grant, Grants};
use resourceful::live::Streams;
use resourceful::prelude::*;
use resourceful::testing::{TestApp, TestStream};
use serde_json::{Value as Json, json};

use crate::support::TestStorage;
use crate::support::aged_rows::EVENTS;

/// Numbers that are the same in each run of one seed (`SplitMix64`).
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        usize::try_from((mixed ^ (mixed >> 31)) % sides as u64).unwrap()
    }
}

const OWNERS: [&str; 3] = ["ada", "bob", "cleo"];
const SHELVES: [&str; 3] = ["s", "t", "u"];

/// What a client makes of a stream.
struct Client {
    token: &'static str,
    filter: &'static str,
    items: BTreeMap<String, Json>,
    stream: Option<TestStream>,
    last_id: String,
    resets: usize,
}

impl Client {
    async fn list(&self, app: &TestApp) -> (BTreeMap<String, Json>, Option<String>) {
        let path = format!("/things?limit=1000&{}", self.filter);
        let list = app.get(&path).bearer(self.token).header("prefer", "stream-position").await;
        if list.status() != 200 {
            assert_eq!(list.status(), 403, "{list}");
            return (BTreeMap::new(), None);
        }
        let items = list.items().into_iter().map(|item| (item["id"].as_str().unwrap().to_owned(), item));
        (items.collect(), list.header("stream-position").map(str::to_owned))
    }

    /// Begins from a list.
    async fn start_from_list(&mut self, app: &TestApp) {
        let (items, position) = self.list(app).await;
        (self.items, self.stream) = (items, None);
        if let Some(position) = position {
            self.last_id = position;
            self.connect(app).await;
        }
    }

    async fn connect(&mut self, app: &TestApp) {
        let request = app.get(&format!("/things/stream?{}", self.filter)).bearer(self.token);
        self.stream = request.header("last-event-id", &self.last_id).stream().await.ok();
    }

    /// Reads so many events; as one who has no rights any more it begins anew.
    async fn read(&mut self, app: &TestApp, until: &str) {
        loop {
            let Some(stream) = &mut self.stream else {
                return self.start_from_list(app).await;
            };
            let Some(event) = stream.next().await else {
                self.stream = None;
                self.connect(app).await;
                continue;
            };
            self.last_id.clone_from(&event.id);
            let subject = event.data["subject"].as_str().unwrap_or_default().to_owned();
            match event.name.as_str() {
                "ready" | "lagged" => {}
                "end" => assert_eq!(event.data["code"], "forbidden"),
                "reset" => {
                    self.resets += 1;
                    return Box::pin(self.restart_and_read(app, until)).await;
                }
                "removed" | "things.deleted" => _ = self.items.remove(&subject),
                _ => _ = self.items.insert(subject.clone(), event.data["data"].clone()),
            }
            if subject == until {
                return;
            }
        }
    }

    /// What was told before is in the list.
    async fn restart_and_read(&mut self, app: &TestApp, until: &str) {
        self.start_from_list(app).await;
        if !self.items.contains_key(until) && self.stream.is_some() {
            self.read(app, until).await;
        }
    }
}

struct World {
    app: TestApp,
    storage: TestStorage,
    dice: Dice,
    granted: Arc<Mutex<Vec<&'static str>>>,
    grants: Grants,
    /// Which items there are.
    ids: Vec<String>,
    minted: usize,
}

impl World {
    async fn new(storage: TestStorage, seed: u64) -> Self {
        let granted = Arc::new(Mutex::new(vec!["ada", "bob"]));
        let granted_handle = granted.clone();
        let grants = Grants::new(move |actor| {
            let may = granted_handle.lock().unwrap().iter().any(|name| Some(*name) == actor.id());
            let own = json!({"owner": {"eq": actor.id()}});
            let all = Grant::to("things", Operation::ALL);
            // Whoever has no right to all has it to their own.
            std::future::ready(Ok(vec![if may { all } else { all.rows(own) }]))
        });
        let properties = ["id", "owner", "shelf", "text"].map(|name| (name, json!({"type": "string"})));
        let properties: serde_json::Map<_, _> =
            properties.into_iter().map(|(name, kind)| (name.to_owned(), kind)).collect();
        let things = define_dynamic_resource(
            "things",
            json!({"type": "object", "required": ["id", "owner", "shelf", "text"], "properties": properties}),
        )
        .adapter(storage.table("things"))
        .permissions(Permissions::all(any_of([role("writer"), grants.permission()])))
        .visible_to(
            ["text"],
            any_of([
                role("writer"),
                resourceful::access::check("reads text", |asking| {
                    let reads = asking.actor.id() != Some("bob");
                    std::future::ready(Ok(if reads {
                        resourceful::access::Decision::allow()
                    } else {
                        resourceful::access::Decision::deny("not for bob")
                    }))
                }),
            ]),
        )
        .filterable(["shelf"])
        .limits(50, 1_000)
        .build()
        .unwrap();
        let tokens =
            OWNERS.into_iter().fold(BearerTokens::new(), |all, name| all.token(name, Actor::user(name)));
        let tokens = tokens.token("writer", Actor::user("writer").with_role("writer"));
        let builder = create_app(AppPreset::Testing)
            .authenticator(tokens)
            .grants(&grants)
            .streams(Streams::new().queue(6).heartbeat(Duration::from_millis(50)))
            .resource(things);
        let app = TestApp::build(builder).await.unwrap();
        let dice = Dice(seed);
        Self { app, storage, dice, granted, grants, ids: Vec::new(), minted: 0 }
    }

    fn any_item(&mut self) -> Option<usize> {
        (!self.ids.is_empty()).then(|| self.dice.roll(self.ids.len()))
    }

    async fn write(&mut self) {
        let (owner, shelf) = (OWNERS[self.dice.roll(3)], SHELVES[self.dice.roll(3)]);
        let sides = self.dice.roll(10);
        let item = self.any_item().filter(|_| sides > 2);
        let Some(item) = item else {
            self.minted += 1;
            let id = format!("i{}", self.minted);
            let body = json!({"id": id, "owner": owner, "shelf": shelf, "text": "new"});
            assert_eq!(self.app.post("/things").bearer("writer").json(body).await.status(), 201);
            return self.ids.push(id);
        };
        let path = format!("/things/{}", self.ids[item]);
        if sides == 9 {
            assert_eq!(self.app.delete(&path).bearer("writer").await.status(), 204);
            self.ids.swap_remove(item);
            return;
        }
        let text = self.dice.roll(100).to_string();
        let patch = match sides {
            3 => json!({"owner": owner}),
            4 | 5 => json!({"shelf": shelf}),
            6 => json!({"shelf": shelf, "owner": owner, "text": text}),
            _ => json!({"text": text}),
        };
        assert_eq!(self.app.patch(&path).bearer("writer").json(patch).await.status(), 200);
    }

    async fn prune_events(&mut self) {
        // Events are cleared long after every node has read them; clients may still be on their way to them.
        self.app.app().deliver().await.unwrap();
        let (now, day) = (chrono::Utc::now(), Duration::from_secs(24 * 3_600));
        EVENTS.put(&self.storage, now - day..now + day, now - 8 * day).await;
        self.app.app().sweep().await.unwrap();
    }

    async fn change_permissions(&mut self) {
        let name = OWNERS[self.dice.roll(3)];
        let mut granted = self.granted.lock().unwrap().clone();
        match granted.iter().position(|one| *one == name) {
            Some(position) => _ = granted.remove(position),
            None => granted.push(name),
        }
        *self.granted.lock().unwrap() = granted;
        self.grants.invalidate().await.unwrap();
    }
}

async fn run(storage: TestStorage, seed: u64, rounds: usize) -> usize {
    let mut world = World::new(storage, seed).await;
    let background = world.app.app().background();
    let mut clients: Vec<_> = [("ada", ""), ("bob", "shelf=s"), ("cleo", "shelf[in]=s,t"), ("cleo", "")]
        .map(|(token, filter)| Client {
            token,
            filter,
            items: BTreeMap::new(),
            stream: None,
            last_id: String::new(),
            resets: 0,
        })
        .into();
    for client in &mut clients {
        client.start_from_list(&world.app).await;
    }
    for round in 0..rounds {
        for _ in 0..world.dice.roll(12) {
            world.write().await;
        }
        match world.dice.roll(8) {
            0 => world.change_permissions().await,
            1 => world.prune_events().await,
            2 | 3 => {
                let cut = world.dice.roll(clients.len());
                clients[cut].stream = None;
                for _ in 0..world.dice.roll(5) {
                    world.write().await;
                }
                clients[cut].connect(&world.app).await;
            }
            _ => {}
        }
        // A change that every one of them is told of, after all others.
        for (number, client) in clients.iter_mut().enumerate() {
            let id = format!("mark-{round}-{number}");
            let body = json!({"id": id, "owner": client.token, "shelf": "s", "text": "mark"});
            assert_eq!(world.app.post("/things").bearer("writer").json(body).await.status(), 201);
            world.ids.push(id.clone());
            client.read(&world.app, &id).await;
            let (expected, _) = client.list(&world.app).await;
            let differs = |id: &&String| client.items.get(*id) != expected.get(*id);
            let wrong: Vec<_> = client.items.keys().chain(expected.keys()).filter(differs).collect();
            let about = format!("seed {seed}, round {round}, {} {}", client.token, client.filter);
            assert!(wrong.is_empty(), "{about}: {wrong:?}");
        }
    }
    let resets = clients.iter().map(|client| client.resets).sum();
    drop(clients);
    background.stop().await;
    resets
}

#[tokio::test]
async fn client_state_from_stream_equals_list() {
    let seed = std::env::var("STREAM_ORACLE_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1);
    let rounds =
        std::env::var("STREAM_ORACLE_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(25);
    for storage in TestStorage::all().await {
        let name = storage.name;
        let resets = run(storage, seed, rounds).await;
        println!("{name}: {rounds} rounds, {resets} resets");
    }
}
