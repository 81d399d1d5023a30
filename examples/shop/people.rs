//! The users and services of the shop, and their tokens.

use jsonwebtoken::{EncodingKey, Header, encode};
use resourceful::access::{Jwt, JwtAlgorithm};
use resourceful::prelude::*;
use serde_json::{Value as Json, json};

/// A user or service: the environment variable that holds its token, and the token's claims.
pub(crate) struct Person {
    pub(crate) variable: &'static str,
    pub(crate) claims: Json,
}

/// All users and services.
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

/// The authenticator of the tokens that [`token`] makes.
pub(crate) fn tokens(secret: &str) -> Jwt {
    Jwt::new().secret(JwtAlgorithm::HS256, secret).issuer("shop").audience("shop")
}

/// A token that is valid for a day. A shop of your own gets them from its identity provider.
pub(crate) fn token(person: &Person, secret: &str) -> Result<String, jsonwebtoken::errors::Error> {
    let mut claims = person.claims.clone();
    claims["iss"] = json!("shop");
    claims["aud"] = json!("shop");
    claims["exp"] = json!(Utc::now().timestamp() + 86_400);
    encode(&Header::new(JwtAlgorithm::HS256), &claims, &EncodingKey::from_secret(secret.as_bytes()))
}
