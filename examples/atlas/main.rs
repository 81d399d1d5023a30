//! 252 countries and 34,006 cities as an API.
//!
//! ```console
//! $ cargo run --release -p atlas
//! $ curl 'http://127.0.0.1:3000/countries/IS?include=cities'
//! $ curl 'http://127.0.0.1:3000/cities?country.continent=AF&population[gte]=5000000&sort=-population'
//! $ curl 'http://127.0.0.1:3000/cities?q=san+juan&fields=name,country_code' -H 'Prefer: count=exact'
//! ```
//!
//! `PORT` sets another port, `DATABASE_URL` another database (`postgres://…` with `--features postgres`), and `ATLAS_TOKEN`
//! the bearer token that may write; without it, writes are refused. The rows are GeoNames' (CC BY 4.0; see
//! `examples/data/SOURCE.md`).

mod resources;

use std::env;
use std::error::Error;

use indicatif::{ProgressBar, ProgressStyle};

use resourceful::prelude::*;

use resources::{City, Country};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    tracing_subscriber::fmt().with_max_level(tracing::Level::WARN).init();
    let url = env::var("DATABASE_URL").unwrap_or_else(|_| "sqlite://atlas.db".to_owned());
    let database = Sql::connect(&url).await?;

    let token = env::var("ATLAS_TOKEN").unwrap_or_default();
    let app = resources::atlas(|name| database.table(name).create_table_if_missing())?
        .authenticator(BearerTokens::new().token(token, Actor::user("atlas").with_role("editor")))
        .build()
        .await?;
    load(&app).await?;

    let port = env::var("PORT").unwrap_or_else(|_| "3000".to_owned());
    let base = format!("http://127.0.0.1:{port}");
    println!("Requests to try:");
    println!("  curl '{base}/countries/IS?include=cities'");
    println!("  curl '{base}/cities?country.continent=AF&population%5Bgte%5D=5000000&sort=-population'");
    println!("  curl '{base}/cities?q=san+juan&fields=name,country_code' -H 'Prefer: count=exact'");
    app.serve(format!("127.0.0.1:{port}")).await?;
    Ok(())
}

/// Loads the rows of `examples/data/`, once.
async fn load(app: &App) -> Result<(), Box<dyn Error>> {
    if app.count("countries").await? > 0 {
        return Ok(());
    }
    let countries = read::<Country>("countries.csv")?;
    let cities = read::<City>("cities.csv")?;
    let style = ProgressStyle::with_template("loading {bar:40} {human_pos}/{human_len} rows, {elapsed}")?;
    let bar = ProgressBar::new((countries.len() + cities.len()) as u64).with_style(style);
    let moving = bar.clone();
    let rows = app
        .load()
        .rows("countries", countries)?
        .rows("cities", cities)?
        .progress(move |rows| moving.set_position(rows as u64))
        .commit()
        .await?;
    bar.finish();
    println!("Loaded {rows} rows.");
    Ok(())
}

fn read<M: serde::de::DeserializeOwned>(file: &str) -> Result<Vec<M>, csv::Error> {
    let path = format!("{}/../data/{file}", env!("CARGO_MANIFEST_DIR"));
    csv::Reader::from_path(path)?.deserialize().collect()
}
