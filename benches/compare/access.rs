//! What an `owner` policy and HS256 add to a request: the same requests to the same rows with and without, and the
//! verification of the token by itself.

use std::error::Error;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use jsonwebtoken::{EncodingKey, Header, encode};
use serde_json::json;
use tempfile::TempDir;

use crate::Settings;
use crate::instructions::total;
use crate::server::{Program, Server};
use resourceful_benches::client::{Connection, Random, run_load};
use resourceful_benches::figures::median;

const SECRET: &str = "the secret of benches, as long as it must be";
const ROWS: u64 = 1_000;

pub(crate) async fn compare(settings: &Settings) -> Result<(), Box<dyn Error>> {
    let folder = TempDir::new()?;
    // The first start makes the rows.
    Server::start(Program::Open, &url(&folder), None).await?.stop()?;
    let token = token()?;
    let verifying = verification_cost(&folder, &token, settings.requests)?;
    println!("\nverifying one token: {verifying:.0} instructions\n");
    println!("| call | without | with | beyond the verification | requests/s, with against without |");
    println!("|---|---|---|---|---|");
    for list in [false, true] {
        let token = token.clone();
        let request = move |draw| request(list, draw, &token);
        let mut figures = Vec::new();
        for program in Program::GUARDED {
            figures.push(instructions(&folder, program, &request, settings.requests).await?);
        }
        let beyond = (figures[1] - figures[0] - verifying) / figures[0] * 100.0;
        let ratio = throughput(&folder, request.clone(), settings).await?;
        let name = if list { "list of 20" } else { "get by id" };
        println!("| {name} | {:.0} | {:.0} | {beyond:+.1} % | {ratio:.3} |", figures[0], figures[1]);
    }
    Ok(())
}

fn token() -> Result<String, Box<dyn Error>> {
    let claims = json!({"sub": "ada", "iss": "bench", "aud": "bench", "exp": 4_102_444_800_u64});
    Ok(encode(&Header::default(), &claims, &EncodingKey::from_secret(SECRET.as_bytes()))?)
}

fn request(list: bool, draw: u64, token: &str) -> Vec<u8> {
    let target = if list {
        "/notes?user_id=ada&limit=20&sort=-id".to_owned()
    } else {
        format!("/notes/{}", draw % ROWS + 1)
    };
    format!(
        "GET {target} HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: application/json\r\n\
         Authorization: Bearer {token}\r\n\r\n"
    )
    .into_bytes()
}

fn url(folder: &TempDir) -> String {
    format!("sqlite://{}/notes.db", folder.path().display())
}

/// Instructions of one request.
async fn instructions(
    folder: &TempDir,
    program: Program,
    request: &impl Fn(u64) -> Vec<u8>,
    requests: usize,
) -> Result<f64, Box<dyn Error>> {
    let mut totals = Vec::new();
    for requests in [requests, 2 * requests] {
        let output = folder.path().join("callgrind.out");
        let server = Server::start(program, &url(folder), Some(&output)).await?;
        let mut connection = Connection::open(server.port).await?;
        let mut random = Random::new(11);
        for _ in 0..requests {
            let answer = connection.send(&request(random.draw())).await?;
            if answer.status != 200 || answer.body.len() < 50 {
                return Err(format!("answered {}", answer.status).into());
            }
        }
        server.stop()?;
        totals.push(total(&output)?);
    }
    Ok((totals[1] - totals[0]) / requests as f64)
}

/// Instructions of verifying one token.
fn verification_cost(folder: &TempDir, token: &str, times: usize) -> Result<f64, Box<dyn Error>> {
    let output = folder.path().join("callgrind.out");
    let mut totals = Vec::new();
    for times in [times, 2 * times] {
        verify(&output, token, times)?;
        totals.push(total(&output)?);
    }
    Ok((totals[1] - totals[0]) / times as f64)
}

fn verify(output: &Path, token: &str, times: usize) -> Result<(), Box<dyn Error>> {
    let mut command = Command::new("valgrind");
    command.args(["--tool=callgrind", "--quiet"]);
    command.arg(format!("--callgrind-out-file={}", output.display()));
    command.arg(Program::Owned.binary()?).args(["verify", &times.to_string()]).env("TOKEN", token);
    if command.status()?.success() { Ok(()) } else { Err("the token was not verified".into()) }
}

/// Requests a second with the policy against those without it, the median of pairs.
async fn throughput(
    folder: &TempDir,
    request: impl Fn(u64) -> Vec<u8> + Clone + Send + 'static,
    settings: &Settings,
) -> Result<f64, Box<dyn Error>> {
    let mut ratios = Vec::new();
    for round in 0..settings.rounds {
        let mut rates = Vec::new();
        for program in Program::GUARDED {
            let server = Server::start(program, &url(folder), None).await?;
            let duration = Duration::from_secs_f64(settings.seconds);
            let load =
                run_load(server.port, settings.connections, duration, 200, request.clone(), round as u64 + 1);
            rates.push(load.await?.per_second());
            server.stop()?;
        }
        ratios.push(rates[1] / rates[0]);
    }
    Ok(median(&ratios))
}
