//! What the comparison of access asks: notes that everyone may read, or that their owner alone may, by a token.
//!
//! `GUARD` is `none`, or `owner` for a policy and HS256. `guarded verify N` verifies one token N times and ends: the
//! cryptography by itself.

use std::env;
use std::error::Error;
use std::hint::black_box;

use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode};
use resourceful::access::{Jwt, JwtAlgorithm};
use resourceful::prelude::*;

const SECRET: &str = "the secret of benches, as long as it must be";
const ROWS: i64 = 1_000;

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, Validate)]
struct Note {
    id: i64,
    user_id: String,
    #[validate(length(min = 1, max = 200))]
    title: String,
    stars: i64,
    created_at: DateTime<Utc>,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    if env::args().nth(1).as_deref() == Some("verify") {
        return verify(env::args().nth(2).ok_or("verify takes a number")?.parse()?);
    }
    let database = Sql::connect(&env::var("DATABASE_URL")?).await?;
    let notes = define_resource::<Note>("notes")
        .adapter(database.table("notes").create_table_if_missing())
        .index(["user_id"]);
    let app = create_app(AppPreset::Development);
    let app = if env::var("GUARD")? == "owner" {
        let tokens = Jwt::new().secret(JwtAlgorithm::HS256, SECRET).issuer("bench").audience("bench");
        app.authenticator(tokens).resource(notes.permissions(Permissions::all(owner("user_id"))).build()?)
    } else {
        app.resource(notes.permissions(Permissions::all(anyone())).build()?)
    };
    let app = app.build().await?;
    if app.count("notes").await? == 0 {
        let note = |id| Note {
            id,
            user_id: "ada".to_owned(),
            title: format!("Note {id}, of which there are some more"),
            stars: id % 5,
            created_at: DateTime::UNIX_EPOCH,
        };
        app.load().rows("notes", (1..=ROWS).map(note))?.commit().await?;
    }
    app.serve(format!("127.0.0.1:{}", env::var("PORT")?)).await?;
    Ok(())
}

fn verify(times: usize) -> Result<(), Box<dyn Error>> {
    let token = env::var("TOKEN")?;
    let key = DecodingKey::from_secret(SECRET.as_bytes());
    let mut validation = Validation::new(Algorithm::HS256);
    validation.validate_nbf = true;
    validation.set_issuer(&["bench"]);
    validation.set_audience(&["bench"]);
    for _ in 0..times {
        let claims = decode::<serde_json::Map<String, serde_json::Value>>(&token, &key, &validation)?;
        black_box(claims);
    }
    Ok(())
}
