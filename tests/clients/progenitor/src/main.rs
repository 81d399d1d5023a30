//! progenitor makes every operation of both examples from their documents of OpenAPI 3.0, and the client of atlas lists,
//! creates, changes (with a current tag, a stale one and a wrong value) and deletes.
//!
//! `ATLAS=http://… ATLAS_TOKEN=… cargo run`, beside `atlas-3.0.json` and `shop-3.0.json`.

use std::env;
use std::error::Error;

use reqwest::header::{HeaderMap, AUTHORIZATION, ETAG};

mod atlas {
    progenitor::generate_api!(spec = "atlas-3.0.json", interface = Builder);
}
mod shop {
    progenitor::generate_api!(spec = "shop-3.0.json", interface = Builder);
}

use atlas::types::{CityCreate, CityPatch};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let token = format!("Bearer {}", env::var("ATLAS_TOKEN")?);
    let headers = HeaderMap::from_iter([(AUTHORIZATION, token.parse()?)]);
    let client = reqwest::Client::builder().default_headers(headers).build()?;
    let client = atlas::Client::new_with_client(&env::var("ATLAS")?, client);

    let page = client.list_cities().country_code("IS").population_gte(10_000).limit(2).send().await?;
    assert_eq!(page.items.len(), 2, "a filter by an operator");
    assert!(page.page.next.is_some());

    let city = CityCreate::builder()
        .admin1_code("00")
        .country_code("IS")
        .latitude(64.0)
        .longitude(-22.0)
        .name("Made by progenitor")
        .population(1)
        .timezone("Atlantic/Reykjavik");
    let created = client.create_city().body(city).send().await?;
    let tag = created.headers()[ETAG].to_str()?.to_owned();
    let id = created.id;

    let patch = |population: i64| CityPatch::builder().population(population);
    let changed = client.update_city().id(id).if_match(&*tag).body(patch(2)).send().await?;
    assert_eq!(changed.population, 2);
    let stale = client.update_city().id(id).if_match(&*tag).body(patch(3)).send().await;
    assert_eq!(stale.unwrap_err().status().unwrap().as_u16(), 412);
    let wrong = client.update_city().id(id).body(patch(-1)).send().await;
    assert_eq!(wrong.unwrap_err().status().unwrap().as_u16(), 422);

    client.delete_city().id(id).send().await?;
    let gone = client.read_city().id(id).send().await;
    assert_eq!(gone.unwrap_err().status().unwrap().as_u16(), 404);
    println!("progenitor: list, create, change, 412, 422 and delete");
    Ok(())
}
