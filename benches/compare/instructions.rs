//! Instructions per request, by valgrind: a run of N requests and one of 2N, and the difference.
//!
//! What a program does at its start, and what it does once for each kind of request, falls out.

use std::error::Error;
use std::fs;
use std::path::Path;

use tempfile::TempDir;

use crate::Settings;
use crate::server::{Program, Server};
use crate::workload::{Call, RequestGenerator, TestDatabase};
use resourceful_benches::client::{Connection, Random};

pub(crate) async fn compare(database: &TestDatabase, settings: &Settings) -> Result<(), Box<dyn Error>> {
    println!("{} against {} requests on one connection\n", settings.requests, 2 * settings.requests);
    println!("| call | resourceful | hand-written | ratio |\n|---|---|---|---|");
    let generator = RequestGenerator::read()?;
    for call in Call::ALL {
        let mut per_request = Vec::new();
        for program in Program::BOTH {
            let url = database.url(program);
            let mut totals = Vec::new();
            for requests in [settings.requests, 2 * settings.requests] {
                let folder = TempDir::new()?;
                let output = folder.path().join("callgrind.out");
                let server = Server::start(program, &url, Some(&output)).await?;
                send_requests(&server, &generator, call, requests).await?;
                server.stop()?;
                totals.push(total(&output)?);
            }
            per_request.push((totals[1] - totals[0]) / settings.requests as f64);
        }
        let ratio = per_request[0] / per_request[1];
        println!("| {} | {:.0} | {:.0} | {ratio:.3} |", call.name(), per_request[0], per_request[1]);
    }
    Ok(())
}

async fn send_requests(
    server: &Server,
    generator: &RequestGenerator,
    call: Call,
    requests: usize,
) -> Result<(), Box<dyn Error>> {
    let mut connection = Connection::open(server.port).await?;
    let mut random = Random::new(11);
    for _ in 0..requests {
        let request = generator.request(call, random.draw());
        let status = connection.status_of(&request).await?;
        if status != call.status() {
            return Err(format!("{}: answered {status}", call.name()).into());
        }
    }
    Ok(())
}

/// The number behind `totals:` (or `summary:`) in callgrind's output.
pub(crate) fn total(output: &Path) -> Result<f64, Box<dyn Error>> {
    let text = fs::read_to_string(output)?;
    let line = |name: &str| text.lines().rev().find_map(|line| line.strip_prefix(name));
    let number = line("totals:").or_else(|| line("summary:")).ok_or("callgrind wrote no total")?;
    Ok(number.trim().parse()?)
}
