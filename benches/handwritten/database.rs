//! The statements, and pools that are set up as those of `resourceful` are.

use std::str::FromStr;
use std::time::Duration;

use serde::Deserialize;
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};

use crate::{City, NewCity};

const BY_ID: &str = "SELECT id, name, country_code, admin1_code, latitude, longitude, population, timezone \
    FROM cities WHERE id = $1";
const LARGEST: &str = "SELECT id, name, country_code, admin1_code, latitude, longitude, population, timezone \
    FROM cities WHERE country_code = $1 ORDER BY population DESC, id DESC LIMIT $2";
const SMALLEST: &str = "SELECT id, name, country_code, admin1_code, latitude, longitude, population, timezone \
    FROM cities WHERE country_code = $1 ORDER BY population, id LIMIT $2";
const INSERT: &str = "INSERT INTO cities \
    (name, country_code, admin1_code, latitude, longitude, population, timezone, version) \
    VALUES ($1, $2, $3, $4, $5, $6, $7, 1) \
    RETURNING id, name, country_code, admin1_code, latitude, longitude, population, timezone";

#[derive(Clone, Copy, Debug, Default, Deserialize)]
pub(crate) enum Sort {
    #[default]
    #[serde(rename = "population")]
    Smallest,
    #[serde(rename = "-population")]
    Largest,
}

impl Sort {
    const fn statement(self) -> &'static str {
        match self {
            Self::Largest => LARGEST,
            Self::Smallest => SMALLEST,
        }
    }
}

#[derive(Clone, Debug)]
pub(crate) enum Database {
    Sqlite { writer: SqlitePool, readers: SqlitePool },
    Postgres(PgPool),
}

impl Database {
    pub(crate) async fn connect(url: &str) -> Result<Self, sqlx::Error> {
        if !url.starts_with("sqlite:") {
            let options = PgConnectOptions::from_str(url)?.statement_cache_capacity(512);
            let pool = PgPoolOptions::new()
                .max_connections(10)
                .min_connections(1)
                .test_before_acquire(false)
                .connect_with(options)
                .await?;
            return Ok(Self::Postgres(pool));
        }
        let options = SqliteConnectOptions::from_str(url)?
            .foreign_keys(true)
            .busy_timeout(Duration::from_secs(5))
            .statement_cache_capacity(512)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full);
        let pool = |connections| {
            SqlitePoolOptions::new()
                .max_connections(connections)
                .min_connections(1)
                .test_before_acquire(false)
        };
        Ok(Self::Sqlite {
            writer: pool(1).connect_with(options.clone()).await?,
            readers: pool(4).connect_with(options).await?,
        })
    }

    pub(crate) async fn city(&self, id: i64) -> Result<Option<City>, sqlx::Error> {
        match self {
            Self::Sqlite { readers, .. } => {
                let query = sqlx::query_as(BY_ID).bind(id);
                query.fetch_optional(readers).await
            }
            Self::Postgres(pool) => sqlx::query_as(BY_ID).bind(id).fetch_optional(pool).await,
        }
    }

    pub(crate) async fn cities_of(
        &self,
        country_code: &str,
        sort: Sort,
        limit: i64,
    ) -> Result<Vec<City>, sqlx::Error> {
        let statement = sort.statement();
        match self {
            Self::Sqlite { readers, .. } => {
                let query = sqlx::query_as(statement).bind(country_code).bind(limit);
                query.fetch_all(readers).await
            }
            Self::Postgres(pool) => {
                let query = sqlx::query_as(statement).bind(country_code).bind(limit);
                query.fetch_all(pool).await
            }
        }
    }

    pub(crate) async fn create(&self, city: &NewCity) -> Result<City, sqlx::Error> {
        macro_rules! insert_into {
            ($pool:expr) => {
                sqlx::query_as(INSERT)
                    .bind(&city.name)
                    .bind(&city.country_code)
                    .bind(&city.admin1_code)
                    .bind(city.latitude)
                    .bind(city.longitude)
                    .bind(city.population)
                    .bind(&city.timezone)
                    .fetch_one($pool)
                    .await
            };
        }
        match self {
            Self::Sqlite { writer, .. } => insert_into!(writer),
            Self::Postgres(pool) => insert_into!(pool),
        }
    }
}
