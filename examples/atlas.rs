//! 252 countries and 34,006 cities as an API.
//!
//! ```console
//! $ cargo run --release --example atlas
//! $ curl 'http://127.0.0.1:3000/countries/IS?include=cities'
//! $ curl 'http://127.0.0.1:3000/cities?country.continent=AF&population[gte]=5000000&sort=-population'
//! $ curl 'http://127.0.0.1:3000/cities?q=san+juan&fields=name,country_code' -H 'Prefer: count=exact'
//! ```
//!
//! `PORT` moves it to another port, `DATABASE_URL` to another database (`postgres://…`), and `ATLAS_TOKEN` is
//! the bearer token that may write; without one nobody may. The rows are GeoNames' (CC BY 4.0; see
//! `examples/data/SOURCE.md`).

use std::env;
use std::error::Error;

use indicatif::{ProgressBar, ProgressStyle};

use resourceful::prelude::*;

/// A country, or a territory with a code of its own.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, Validate)]
struct Country {
    /// ISO 3166-1 alpha-2.
    #[validate(length(equal = 2))]
    code: String,
    /// ISO 3166-1 alpha-3.
    #[validate(length(equal = 3))]
    iso3: String,
    #[validate(length(min = 1, max = 120))]
    name: String,
    continent: Continent,
    capital: Option<String>,
    #[validate(range(min = 0.0))]
    area_km2: Option<f64>,
    #[validate(range(min = 0))]
    population: Option<i64>,
    currency_code: Option<String>,
    currency_name: Option<String>,
    /// The top-level domain, with its dot.
    tld: Option<String>,
    phone: Option<String>,
    /// Language tags, the most spoken first.
    #[serde(deserialize_with = "list")]
    languages: Vec<String>,
    /// Codes of the countries that share a border.
    #[serde(deserialize_with = "list")]
    neighbours: Vec<String>,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize, JsonSchema)]
enum Continent {
    AF,
    AN,
    AS,
    EU,
    NA,
    OC,
    SA,
}

/// A place of 15,000 people or more.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, Validate)]
struct City {
    #[serde(alias = "geoname_id")]
    id: i64,
    #[validate(length(min = 1, max = 200))]
    name: String,
    #[validate(length(equal = 2))]
    country_code: String,
    /// First-order division, as GeoNames numbers it: text, with leading zeros.
    #[validate(length(max = 20))]
    admin1_code: String,
    #[validate(range(min = -90.0, max = 90.0))]
    latitude: f64,
    #[validate(range(min = -180.0, max = 180.0))]
    longitude: f64,
    #[validate(range(min = 0))]
    population: i64,
    /// A name of the IANA time zone database.
    #[validate(length(min = 1, max = 64))]
    timezone: String,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    tracing_subscriber::fmt().with_max_level(tracing::Level::WARN).init();
    let url = env::var("DATABASE_URL").unwrap_or_else(|_| "sqlite://atlas.db".to_owned());
    let database = Sql::connect(&url).await?;

    let countries = define_resource::<Country>("countries")
        .adapter(database.table("countries").create_table_if_missing())
        .permissions(Permissions::read(anyone()).write(role("editor")))
        .id_field("code")
        .version("version")
        .unique(["iso3"])
        .index(["name"])
        .index(["continent"])
        .index(["population"])
        .searchable(["name", "capital"])
        .filterable(["currency_code", "languages", "neighbours", "capital", "area_km2"])
        .relation(has_many("cities", "cities").key("country_code"))
        .build()?;
    let cities = define_resource::<City>("cities")
        .adapter(database.table("cities").create_table_if_missing())
        .permissions(Permissions::read(anyone()).write(role("editor")))
        .version("version")
        .index(["name"])
        .index(["population"])
        .index(["country_code", "population"])
        .searchable(["name"])
        .filterable(["timezone", "admin1_code", "latitude", "longitude"])
        .relation(belongs_to("country", "countries").key("country_code"))
        .build()?;

    let token = env::var("ATLAS_TOKEN").unwrap_or_default();
    let app = create_app(AppPreset::Development)
        .info("Atlas", "1.0.0")
        .description("Countries and cities of the world. Data: GeoNames, CC BY 4.0.")
        .authenticator(BearerTokens::new().token(token, Actor::user("atlas").with_role("editor")))
        .resource(countries)
        .resource(cities)
        .build()
        .await?;
    load(&app).await?;

    let port = env::var("PORT").unwrap_or_else(|_| "3000".to_owned());
    let base = format!("http://127.0.0.1:{port}");
    println!("Atlas is at {base}, its documentation at {base}/docs. Try:");
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
    let path = format!("{}/examples/data/{file}", env!("CARGO_MANIFEST_DIR"));
    csv::Reader::from_path(path)?.deserialize().collect()
}

/// A list: JSON has arrays, CSV has commas.
fn list<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Either {
        Array(Vec<String>),
        Text(String),
    }
    Ok(match Either::deserialize(deserializer)? {
        Either::Array(items) => items,
        Either::Text(text) => text.split(',').filter(|item| !item.is_empty()).map(str::to_owned).collect(),
    })
}
