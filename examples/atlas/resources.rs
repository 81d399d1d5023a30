//! The countries and cities of the world, and the operations on them.

use resourceful::AppBuilder;
use resourceful::adapter::Table;
use resourceful::prelude::*;

/// A country, or a territory with a code of its own.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, Validate)]
pub(crate) struct Country {
    /// ISO 3166-1 alpha-2.
    #[validate(length(equal = 2))]
    pub(crate) code: String,
    /// ISO 3166-1 alpha-3.
    #[validate(length(equal = 3))]
    pub(crate) iso3: String,
    #[validate(length(min = 1, max = 120))]
    pub(crate) name: String,
    pub(crate) continent: Continent,
    pub(crate) capital: Option<String>,
    #[validate(range(min = 0.0))]
    pub(crate) area_km2: Option<f64>,
    #[validate(range(min = 0))]
    pub(crate) population: Option<i64>,
    pub(crate) currency_code: Option<String>,
    pub(crate) currency_name: Option<String>,
    /// The top-level domain, with its dot.
    pub(crate) tld: Option<String>,
    pub(crate) phone: Option<String>,
    /// Language tags, the most spoken first.
    #[serde(deserialize_with = "list")]
    pub(crate) languages: Vec<String>,
    /// Codes of the countries that share a border.
    #[serde(deserialize_with = "list")]
    pub(crate) neighbours: Vec<String>,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize, JsonSchema)]
pub(crate) enum Continent {
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
pub(crate) struct City {
    #[serde(alias = "geoname_id")]
    pub(crate) id: i64,
    #[validate(length(min = 1, max = 200))]
    pub(crate) name: String,
    #[validate(length(equal = 2))]
    pub(crate) country_code: String,
    /// First-order division, as GeoNames numbers it: text, with leading zeros.
    #[validate(length(max = 20))]
    pub(crate) admin1_code: String,
    #[validate(range(min = -90.0, max = 90.0))]
    pub(crate) latitude: f64,
    #[validate(range(min = -180.0, max = 180.0))]
    pub(crate) longitude: f64,
    #[validate(range(min = 0))]
    pub(crate) population: i64,
    /// A name of the IANA time zone database.
    #[validate(length(min = 1, max = 64))]
    pub(crate) timezone: String,
}

/// The atlas application with these tables, without authenticators.
pub(crate) fn atlas(table: impl Fn(&str) -> Table) -> Result<AppBuilder, DefinitionErrors> {
    let countries = define_resource::<Country>("countries")
        .adapter(table("countries"))
        // No events: this resource has no subscribers.
        .events(false)
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
        .adapter(table("cities"))
        // No events: this resource has no subscribers.
        .events(false)
        .permissions(Permissions::read(anyone()).write(role("editor")))
        .version("version")
        .index(["name"])
        .index(["population"])
        .index(["country_code", "population"])
        .searchable(["name"])
        .filterable(["timezone", "admin1_code", "latitude", "longitude"])
        .relation(belongs_to("country", "countries").key("country_code"))
        .build()?;

    Ok(create_app(AppPreset::Development)
        .info("Atlas", "1.0.0")
        .description("Countries and cities of the world. Data: GeoNames, CC BY 4.0.")
        .contact("GeoNames", "https://www.geonames.org/")
        .license("CC BY 4.0", "https://creativecommons.org/licenses/by/4.0/")
        .resource(countries)
        .resource(cities))
}

/// Deserializes a list: an array in JSON, text with commas in CSV.
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
