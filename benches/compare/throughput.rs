//! Requests a second, in paired runs: A B, B A, A B …, so that what else the machine does meets both.

use std::error::Error;
use std::time::Duration;

use crate::Settings;
use crate::server::{Program, Server};
use crate::workload::{Call, RequestGenerator, TestDatabase, verify_same_responses};
use resourceful_benches::client::run_load;
use resourceful_benches::figures::{median, quantile, spread};

/// What the runs of one program showed.
#[derive(Debug, Default)]
struct Runs {
    per_second: Vec<f64>,
    processor: Vec<f64>,
    latencies: Vec<f64>,
}

pub(crate) async fn compare(database: &TestDatabase, settings: &Settings) -> Result<(), Box<dyn Error>> {
    let generator = RequestGenerator::read()?;
    let mut servers = Vec::new();
    for program in Program::BOTH {
        servers.push(Server::start(program, &database.url(program), None).await?);
    }
    verify_same_responses(&generator, [servers[0].port, servers[1].port]).await?;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let idle = [servers[0].memory()?, servers[1].memory()?];

    println!("{} connections, {} pairs of {} s\n", settings.connections, settings.rounds, settings.seconds);
    println!("| call | ratio of requests/s | requests/s | p50 ms | p99 ms | CPU µs per request |");
    println!("|---|---|---|---|---|---|");
    for call in Call::ALL {
        let runs = run_pairs(call, &servers, &generator, settings).await?;
        let ratios: Vec<f64> =
            runs[0].per_second.iter().zip(&runs[1].per_second).map(|(ours, theirs)| ours / theirs).collect();
        let both = |figure: &dyn Fn(&Runs) -> String| format!("{} : {}", figure(&runs[0]), figure(&runs[1]));
        println!(
            "| {} | {} | {} | {} | {} | {} |",
            call.name(),
            spread(&ratios),
            both(&|runs| format!("{:.0}", median(&runs.per_second))),
            both(&|runs| format!("{:.2}", quantile(&runs.latencies, 0.5) / 1000.0)),
            both(&|runs| format!("{:.2}", quantile(&runs.latencies, 0.99) / 1000.0)),
            both(&|runs| format!("{:.0}", median(&runs.processor))),
        );
    }
    println!("\nResident memory, MiB ({} : {}):", Program::BOTH[0].name(), Program::BOTH[1].name());
    println!(
        "idle {:.1} : {:.1}, after {:.1} : {:.1}",
        idle[0],
        idle[1],
        servers[0].memory()?,
        servers[1].memory()?
    );
    for server in servers {
        server.stop()?;
    }
    Ok(())
}

async fn run_pairs(
    call: Call,
    servers: &[Server],
    generator: &RequestGenerator,
    settings: &Settings,
) -> Result<[Runs; 2], Box<dyn Error>> {
    let mut runs = [Runs::default(), Runs::default()];
    // The first pair warms both and does not count.
    for round in 0..=settings.rounds {
        for turn in 0..2 {
            let which = (round + turn) % 2;
            let server = &servers[which];
            let generator = generator.clone();
            let before = server.processor_time()?;
            let load = run_load(
                server.port,
                settings.connections,
                Duration::from_secs_f64(settings.seconds),
                call.status(),
                move |draw| generator.request(call, draw),
                round as u64 * 2 + 1,
            )
            .await?;
            if round == 0 {
                continue;
            }
            let spent = server.processor_time()? - before;
            let runs = &mut runs[which];
            runs.per_second.push(load.per_second());
            runs.processor.push(spent / load.latencies.len() as f64);
            runs.latencies.extend(load.latencies.iter().copied().map(f64::from));
        }
    }
    Ok(runs)
}
