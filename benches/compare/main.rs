//! Compares the atlas example with the hand-written program beside it. `benches/README.md` says how to run it.

mod access;
mod instructions;
mod pages;
mod server;
mod start;
mod throughput;
mod workload;

use std::env;
use std::error::Error;

use crate::workload::TestDatabase;

const USAGE: &str = "\
compare [MODE] [--sqlite | --postgres] [--seconds N] [--rounds N] [--connections N] [--requests N]

MODE is one of
  (none)          requests a second, latency, processor time and memory, in paired interleaved runs
  --instructions  instructions per request, under valgrind
  --deep-page     page 1,000 by cursor against page 2
  --start         time from process start to first answer with data loaded, and idle memory
  --access        what an owner policy and HS256 add to a request, under valgrind, on SQLite
  --load          time of loading the atlas into an empty database
PostgreSQL takes part where BENCH_POSTGRES_URL or TEST_POSTGRES_URL names a server it may make databases on.";

/// What was asked for on the command line.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    mode: String,
    only: Option<String>,
    pub(crate) seconds: f64,
    pub(crate) rounds: usize,
    pub(crate) connections: usize,
    pub(crate) requests: usize,
}

impl Settings {
    fn from_arguments() -> Result<Self, Box<dyn Error>> {
        let mut settings = Self {
            mode: String::new(),
            only: None,
            seconds: 1.5,
            rounds: 11,
            connections: 32,
            requests: 400,
        };
        let mut arguments = env::args().skip(1);
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().ok_or(format!("{argument} takes a number"));
            match argument.as_str() {
                "--seconds" => settings.seconds = value()?.parse()?,
                "--rounds" => settings.rounds = value()?.parse()?,
                "--connections" => settings.connections = value()?.parse()?,
                "--requests" => settings.requests = value()?.parse()?,
                "--sqlite" | "--postgres" => settings.only = Some(argument[2..].to_owned()),
                "--instructions" | "--deep-page" | "--start" | "--access" | "--load" => {
                    settings.mode = argument;
                }
                // What `cargo bench` adds.
                "--bench" => {}
                _ => return Err(format!("unknown argument {argument}\n\n{USAGE}").into()),
            }
        }
        Ok(settings)
    }
}

// One thread, so that the load takes no more of the machine than it must.
#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    if env::args().any(|argument| argument == "--help") {
        println!("{USAGE}");
        return Ok(());
    }
    let settings = Settings::from_arguments()?;
    if settings.mode == "--access" {
        return access::compare(&settings).await;
    }
    for mut world in TestDatabase::all(settings.only.as_deref()).await? {
        println!("\n## {}", world.name());
        if settings.mode == "--load" {
            start::load(&mut world).await?;
            continue;
        }
        world.fill().await?;
        match settings.mode.as_str() {
            "--instructions" => instructions::compare(&world, &settings).await?,
            "--deep-page" => pages::compare(&world, &settings).await?,
            "--start" => start::start(&world, &settings).await?,
            _ => throughput::compare(&world, &settings).await?,
        }
    }
    Ok(())
}
