//! The people and programs that know the shop, and the tokens that say who they are.

use jsonwebtoken::{EncodingKey, Header, encode};
use resourceful::prelude::*;
use resourceful::{Jwt, JwtAlgorithm};
use serde_json::{Value as Json, json};

/// Someone: the environment variable that holds the token, and what the token says.
pub(crate) struct Person {
    pub(crate) variable: &'static str,
    pub(crate) claims: Json,
}

/// Everyone.
pub(crate) fn people() -> Vec<Person> {
    let of = |tenant: &str, name: &str, role: &str, variable| Person {
        variable,
        claims: json!({"sub": name, "tenant": tenant, "tenant_roles": [role]}),
    };
    vec![
        of("acme", "ada", "owner", "ACME_ADMIN"),
        of("acme", "alan", "member", "ACME_MEMBER"),
        of("globex", "grace", "admin", "GLOBEX_ADMIN"),
        of("globex", "gil", "member", "GLOBEX_MEMBER"),
        Person {
            variable: "SERVICE",
            claims: json!({
                "sub": "exporter", "client_id": "exporter", "tenant": "acme", "scope": "customers:read products:read",
            }),
        },
        Person { variable: "OPERATOR", claims: json!({"sub": "olga", "roles": ["operator"]}) },
        Person { variable: "CAROL", claims: json!({"sub": "carol"}) },
    ]
}

/// Accepts the tokens that [`token`] makes.
pub(crate) fn tokens(secret: &str) -> Jwt {
    Jwt::new().secret(JwtAlgorithm::HS256, secret).issuer("shop").audience("shop")
}

/// A token for a day. A shop of your own gets them from its identity provider.
pub(crate) fn token(person: &Person, secret: &str) -> Result<String, jsonwebtoken::errors::Error> {
    let mut claims = person.claims.clone();
    claims["iss"] = json!("shop");
    claims["aud"] = json!("shop");
    claims["exp"] = json!(Utc::now().timestamp() + 86_400);
    encode(&Header::new(JwtAlgorithm::HS256), &claims, &EncodingKey::from_secret(secret.as_bytes()))
}
