//! Models with a field of every kind.

use resourceful::prelude::*;
use rust_decimal::Decimal;

/// Something to sell.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, Validate)]
pub(crate) struct Product {
    id: Uuid,
    #[validate(length(min = 1, max = 20))]
    sku: String,
    #[validate(length(min = 1, max = 120))]
    name: String,
    #[validate(range(min = 0))]
    price_cents: i64,
    in_stock: bool,
    status: Status,
    tags: Vec<String>,
    rating: Option<f64>,
    weight: Decimal,
    released: Option<NaiveDate>,
    #[validate(range(min = 0, max = 1000))]
    stock: u16,
    #[validate(nested)]
    dimensions: Option<Dimensions>,
    category_code: Option<String>,
    #[serde(default)]
    note: String,
    secret: String,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
    version: i64,
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Status {
    Draft,
    Live,
    Retired,
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, Validate)]
pub(crate) struct Dimensions {
    #[validate(range(min = 1))]
    width: u32,
    #[validate(range(min = 1))]
    height: u32,
    #[validate(custom(function = "even"))]
    #[serde(default)]
    depth: u32,
    #[validate(length(max = 3), nested)]
    #[serde(default)]
    labels: Vec<Label>,
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, Validate)]
pub(crate) struct Label {
    #[validate(email)]
    contact: String,
}

fn even(depth: u32) -> Result<(), validator::ValidationError> {
    if depth.is_multiple_of(2) { Ok(()) } else { Err(validator::ValidationError::new("even")) }
}

/// What products belong to.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, Validate)]
pub(crate) struct Category {
    #[validate(length(min = 1, max = 40))]
    code: String,
    title: String,
    region: Option<String>,
}

/// A few words.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, Validate)]
pub(crate) struct Note {
    id: i64,
    #[validate(length(min = 1, max = 200))]
    text: String,
}
