//! The databases that the programs work on, and what is asked of them.

use std::env;
use std::error::Error;
use std::fs;
use std::path::Path;

use sqlx::{Connection as _, Executor as _};
use tempfile::TempDir;

use crate::server::{Program, Server, TOKEN};
use resourceful_benches::client::{Connection, Random};

/// A kind of database, with one of it for each program.
#[derive(Debug)]
pub(crate) enum TestDatabase {
    Sqlite(TempDir),
    Postgres(String),
}

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    Get,
    List,
    Create,
}

impl Call {
    pub(crate) const ALL: [Self; 3] = [Self::Get, Self::List, Self::Create];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Get => "get by id",
            Self::List => "list of 20",
            Self::Create => "create",
        }
    }

    pub(crate) const fn status(self) -> u16 {
        match self {
            Self::Create => 201,
            Self::Get | Self::List => 200,
        }
    }
}

impl TestDatabase {
    /// SQLite, and PostgreSQL where there is one.
    pub(crate) async fn all(only: Option<&str>) -> Result<Vec<Self>, Box<dyn Error>> {
        let mut databases = Vec::new();
        if only != Some("postgres") {
            databases.push(Self::Sqlite(TempDir::new()?));
        }
        let url = env::var("BENCH_POSTGRES_URL").or_else(|_| env::var("TEST_POSTGRES_URL"));
        match url {
            Ok(url) if only != Some("sqlite") => {
                let server = url.rsplit_once('/').map_or(url.as_str(), |(server, _)| server);
                let database = Self::Postgres(server.to_owned());
                database.recreate(&url).await?;
                databases.push(database);
            }
            Err(_) if only == Some("postgres") => {
                return Err("BENCH_POSTGRES_URL is not set".into());
            }
            _ => println!("(SQLite alone: no PostgreSQL was asked for or named by BENCH_POSTGRES_URL)"),
        }
        Ok(databases)
    }

    pub(crate) const fn name(&self) -> &'static str {
        match self {
            Self::Sqlite(_) => "SQLite",
            Self::Postgres(_) => "PostgreSQL",
        }
    }

    /// On SQLite each program has its copy of the file; on PostgreSQL both use the same tables.
    pub(crate) fn url(&self, program: Program) -> String {
        match self {
            Self::Sqlite(folder) => {
                format!("sqlite://{}/{}.db", folder.path().display(), program.name())
            }
            Self::Postgres(server) => format!("{server}/resourceful_bench"),
        }
    }

    async fn recreate(&self, url: &str) -> Result<(), Box<dyn Error>> {
        let mut connection = sqlx::PgConnection::connect(url).await?;
        connection.execute("DROP DATABASE IF EXISTS resourceful_bench WITH (FORCE)").await?;
        connection.execute("CREATE DATABASE resourceful_bench").await?;
        connection.close().await?;
        Ok(())
    }

    /// Empties the database.
    pub(crate) async fn empty(&mut self) -> Result<(), Box<dyn Error>> {
        match self {
            Self::Sqlite(folder) => *folder = TempDir::new()?,
            Self::Postgres(server) => {
                let url = format!("{server}/postgres");
                self.recreate(&url).await?;
            }
        }
        Ok(())
    }

    /// Has the example load its rows, and gives the hand-written program a copy.
    pub(crate) async fn fill(&self) -> Result<(), Box<dyn Error>> {
        let url = self.url(Program::Resourceful);
        Server::start(Program::Resourceful, &url, None).await?.stop()?;
        match self {
            Self::Sqlite(folder) => {
                for suffix in ["", "-wal"] {
                    let file =
                        |program: Program| folder.path().join(format!("{}.db{suffix}", program.name()));
                    if file(Program::Resourceful).exists() {
                        fs::copy(file(Program::Resourceful), file(Program::Handwritten))?;
                    }
                }
            }
            Self::Postgres(_) => {
                let mut connection = sqlx::PgConnection::connect(&url).await?;
                connection.execute("VACUUM ANALYZE").await?;
                connection.close().await?;
            }
        }
        Ok(())
    }
}

/// The questions: which ids and countries there are.
#[derive(Clone, Debug)]
pub(crate) struct RequestGenerator {
    ids: Vec<String>,
    countries: Vec<String>,
}

impl RequestGenerator {
    pub(crate) fn read() -> Result<Self, Box<dyn Error>> {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/data/cities.csv");
        let text = fs::read_to_string(file)?;
        let ids = text.lines().skip(1).filter_map(|line| line.split(',').next());
        let ids: Vec<String> = ids.map(str::to_owned).collect();
        // Countries that have more than a page of cities.
        let countries = "US IN BR CN DE RU MX JP FR IT GB PH ID TR ES PK NG PL UA AR".split(' ');
        let countries = countries.map(str::to_owned).collect();
        Ok(Self { ids, countries })
    }

    /// The bytes of a request.
    pub(crate) fn request(&self, call: Call, draw: u64) -> Vec<u8> {
        let pick = |from: &[String]| from[draw as usize % from.len()].clone();
        match call {
            Call::Get => get(&format!("/cities/{}", pick(&self.ids))),
            Call::List => {
                let country = pick(&self.countries);
                get(&format!("/cities?country_code={country}&sort=-population&limit=20"))
            }
            Call::Create => create(&pick(&self.countries), draw % 1000),
        }
    }
}

pub(crate) fn get(target: &str) -> Vec<u8> {
    format!("GET {target} HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: application/json\r\n\r\n").into_bytes()
}

/// Towns of fewer people than any in the data, so that lists stay as they are while they are made.
fn create(country: &str, population: u64) -> Vec<u8> {
    let body = format!(
        "{{\"name\":\"Measured\",\"country_code\":\"{country}\",\"admin1_code\":\"01\",\"latitude\":12.5,\
         \"longitude\":-45.25,\"population\":{population},\"timezone\":\"Etc/UTC\"}}"
    );
    let length = body.len();
    format!(
        "POST /cities HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {TOKEN}\r\n\
         Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
    )
    .into_bytes()
}

/// Both programs must answer alike before their speed means anything.
pub(crate) async fn verify_same_responses(
    generator: &RequestGenerator,
    ports: [u16; 2],
) -> Result<(), Box<dyn Error>> {
    let mut random = Random::new(7);
    for call in [Call::Get, Call::List] {
        for _ in 0..20 {
            let request = generator.request(call, random.draw());
            let mut answers = Vec::new();
            for port in ports {
                let answer = Connection::open(port).await?.send(&request).await?;
                if answer.status != 200 {
                    let body = String::from_utf8_lossy(&answer.body).into_owned();
                    return Err(format!("{}: {} {body}", call.name(), answer.status).into());
                }
                let mut json: serde_json::Value = serde_json::from_slice(&answer.body)?;
                answers.push(if call == Call::List { json["items"].take() } else { json });
            }
            if answers[0] != answers[1] {
                return Err(format!("{}: {} against {}", call.name(), answers[0], answers[1]).into());
            }
        }
    }
    Ok(())
}
