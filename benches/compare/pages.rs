//! Page 1,000 by cursor must cost what page 2 costs.

use std::error::Error;
use std::time::Instant;

use tempfile::TempDir;

use crate::Settings;
use crate::instructions::total;
use crate::server::{Program, Server};
use crate::workload::{TestDatabase, get};
use resourceful_benches::client::Connection;
use resourceful_benches::figures::median;

const LIST: &str = "/cities?sort=-population&limit=30";
const DEEP: usize = 1000;

pub(crate) async fn compare(database: &TestDatabase, settings: &Settings) -> Result<(), Box<dyn Error>> {
    let url = database.url(Program::Resourceful);
    let server = Server::start(Program::Resourceful, &url, None).await?;
    let mut connection = Connection::open(server.port).await?;
    let pages = page_requests(&mut connection).await?;
    let mut times = [Vec::new(), Vec::new()];
    for round in 0..5 * settings.requests {
        for turn in 0..2 {
            let which = (round + turn) % 2;
            let began = Instant::now();
            let status = connection.status_of(&pages[which]).await?;
            times[which].push(began.elapsed().as_secs_f64() * 1e6);
            if status != 200 {
                return Err(format!("a page was answered with {status}").into());
            }
        }
    }
    server.stop()?;
    let (near, deep) = (median(&times[0]), median(&times[1]));
    println!("p50 µs: page 2 {near:.0}, page {DEEP} {deep:.0}, ratio {:.3}", deep / near);

    let mut per_request = Vec::new();
    for which in 0..2 {
        let mut totals = Vec::new();
        for requests in [settings.requests, 2 * settings.requests] {
            let folder = TempDir::new()?;
            let output = folder.path().join("callgrind.out");
            let server = Server::start(Program::Resourceful, &url, Some(&output)).await?;
            let mut connection = Connection::open(server.port).await?;
            // Cursors are sealed with a key of the process: each finds its own.
            let pages = page_requests(&mut connection).await?;
            for _ in 0..requests {
                connection.status_of(&pages[which]).await?;
            }
            server.stop()?;
            totals.push(total(&output)?);
        }
        per_request.push((totals[1] - totals[0]) / settings.requests as f64);
    }
    let (near, deep) = (per_request[0], per_request[1]);
    println!("instructions: page 2 {near:.0}, page {DEEP} {deep:.0}, ratio {:.3}", deep / near);
    Ok(())
}

/// The requests for page 2 and for page 1,000, found by walking there.
async fn page_requests(connection: &mut Connection) -> Result<[Vec<u8>; 2], Box<dyn Error>> {
    let mut request = get(LIST);
    let mut second = None;
    for _ in 1..DEEP {
        let answer = connection.send(&request).await?;
        let json: serde_json::Value = serde_json::from_slice(&answer.body)?;
        let next = json["page"]["next"].as_str().ok_or("the list ended early")?;
        request = get(&format!("{LIST}&after={next}"));
        second.get_or_insert_with(|| request.clone());
    }
    Ok([second.ok_or("there is one page only")?, request])
}
