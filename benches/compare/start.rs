//! How long until the first answer, and how much memory idles.

use std::error::Error;
use std::time::{Duration, Instant};

use crate::Settings;
use crate::server::{Program, Server};
use crate::workload::{TestDatabase, get};
use resourceful_benches::client::Connection;
use resourceful_benches::figures::spread;

pub(crate) async fn start(database: &TestDatabase, settings: &Settings) -> Result<(), Box<dyn Error>> {
    println!("| program | start to first answer, ms | idle memory, MiB |\n|---|---|---|");
    for program in Program::BOTH {
        let (mut times, mut memory) = (Vec::new(), Vec::new());
        for _ in 0..settings.rounds {
            let began = Instant::now();
            let server = Server::start(program, &database.url(program), None).await?;
            let request = get("/cities?country_code=IS&sort=-population&limit=20");
            let status = Connection::open(server.port).await?.status_of(&request).await?;
            times.push(began.elapsed().as_secs_f64() * 1e3);
            if status != 200 {
                return Err(format!("{} answered {status}", program.name()).into());
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
            memory.push(server.memory()?);
            server.stop()?;
        }
        println!("| {} | {} | {} |", program.name(), spread(&times), spread(&memory));
    }
    Ok(())
}

/// From the start of the process with an empty database until it serves.
pub(crate) async fn load(database: &mut TestDatabase) -> Result<(), Box<dyn Error>> {
    let mut times = Vec::new();
    for _ in 0..5 {
        database.empty().await?;
        let began = Instant::now();
        let server = Server::start(Program::Resourceful, &database.url(Program::Resourceful), None).await?;
        times.push(began.elapsed().as_secs_f64());
        server.stop()?;
    }
    println!("34,258 rows into an empty database, process start included: {} s", spread(&times));
    Ok(())
}
