//! JSON Web Tokens and API keys: what is good, and everything that is not.

use jsonwebtoken::{EncodingKey, Header, encode};
use resourceful::access::{Jwt, JwtAlgorithm};
use resourceful::prelude::*;
use resourceful::resource::NoInput;
use resourceful::testing::TestApp;
use resourceful::{Action, Change, Error};
use serde_json::{Value as Json, json};

use crate::policies::model;
use crate::support::TestStorage;

const SECRET: &str = "kZ8uA2n0w1Yq7Rr3Tt5Vv9Xx4Bb6Dd8F";
const OTHER_SECRET: &str = "Q1w2E3r4T5y6U7i8O9p0A1s2D3f4G5h6";

/// Things that anyone may read, and some that need a right.
pub(crate) async fn jwt_app(tokens: Jwt) -> TestApp {
    let things = define_dynamic_resource("things", model(&["code", "owner"]))
        .adapter(TestStorage::memory().table("things"))
        .id_field("code")
        .permissions(Permissions::read(anyone()).write(nobody()))
        .build()
        .unwrap();
    let mine = define_dynamic_resource("mine", model(&["code", "owner"]))
        .adapter(TestStorage::memory().table("mine"))
        .id_field("code")
        .permissions(Permissions::all(any_of([role("editor"), scope("mine:read"), tenant_role("admin")])))
        .build()
        .unwrap();
    let app = create_app(AppPreset::Testing).authenticator(tokens).resource(things).resource(mine);
    TestApp::build(app).await.unwrap()
}

fn now() -> i64 {
    chrono::Utc::now().timestamp()
}

pub(crate) fn claims(change: Json) -> Json {
    let mut claims =
        json!({"sub": "ada", "exp": now() + 600, "iss": "login", "aud": "shop", "roles": ["editor"]});
    for (name, value) in change.as_object().unwrap() {
        if value.is_null() {
            claims.as_object_mut().unwrap().remove(name);
        } else {
            claims[name] = value.clone();
        }
    }
    claims
}

fn signed(change: Json) -> String {
    encode(&Header::default(), &claims(change), &EncodingKey::from_secret(SECRET.as_bytes())).unwrap()
}

fn shop_tokens() -> Jwt {
    Jwt::new().secret(JwtAlgorithm::HS256, SECRET).issuer("login").audience("shop")
}

async fn status(app: &TestApp, path: &str, token: &str) -> u16 {
    app.get(path).bearer(token).await.status()
}

#[tokio::test]
async fn valid_token_authenticates_its_subject() {
    let app = jwt_app(shop_tokens()).await;
    assert_eq!(status(&app, "/mine", &signed(json!({}))).await, 200);
    assert_eq!(status(&app, "/mine", &signed(json!({"roles": []}))).await, 403);
    assert_eq!(
        status(&app, "/mine", &signed(json!({"roles": [], "tenant": "acme", "tenant_roles": ["admin"]})))
            .await,
        200
    );
    let service = json!({"sub": "robot", "client_id": "robot", "scope": "x mine:read", "roles": null});
    assert_eq!(status(&app, "/mine", &signed(service)).await, 200);
    // A client's token for a user is the user's: its scopes are not rights of a service.
    let delegated = json!({"client_id": "robot", "scope": "mine:read", "roles": []});
    assert_eq!(status(&app, "/mine", &signed(delegated)).await, 403);
    assert_eq!(status(&app, "/mine", &signed(json!({"aud": ["other", "shop"]}))).await, 200);
    // Clocks differ a little.
    assert_eq!(status(&app, "/mine", &signed(json!({"exp": now() - 10}))).await, 200);
    assert_eq!(status(&app, "/mine", &signed(json!({"nbf": now() + 10}))).await, 200);
}

#[tokio::test]
async fn invalid_token_gets_401_even_on_public_resources() {
    let app = jwt_app(shop_tokens()).await;
    let part = |json: Json| {
        use base64::Engine as _;
        base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(json.to_string())
    };
    let good = signed(json!({}));
    let body = good.split('.').nth(1).unwrap();
    let signature = good.rsplit('.').next().unwrap();
    let with = |header: Json| format!("{}.{body}.{signature}", part(header));
    let other = EncodingKey::from_secret(OTHER_SECRET.as_bytes());
    let hs384 = encode(
        &Header::new(JwtAlgorithm::HS384),
        &claims(json!({})),
        &EncodingKey::from_secret(SECRET.as_bytes()),
    );
    let bad = [
        ("expired", signed(json!({"exp": now() - 3600}))),
        ("without an end", signed(json!({"exp": null}))),
        ("an end that is no number", signed(json!({"exp": "tomorrow"}))),
        ("not yet good", signed(json!({"nbf": now() + 3600}))),
        ("of another issuer", signed(json!({"iss": "evil"}))),
        ("without an issuer", signed(json!({"iss": null}))),
        ("for another audience", signed(json!({"aud": "bank"}))),
        ("without an audience", signed(json!({"aud": null}))),
        ("of nobody", signed(json!({"sub": null}))),
        ("of an empty name", signed(json!({"sub": ""}))),
        ("of a number", signed(json!({"sub": 5}))),
        ("signed with another secret", encode(&Header::default(), &claims(json!({})), &other).unwrap()),
        ("of another algorithm", hs384.unwrap()),
        ("alg none", format!("{}.{body}.", part(json!({"alg": "none", "typ": "JWT"})))),
        ("alg none with a signature", with(json!({"alg": "none"}))),
        ("alg None", with(json!({"alg": "None"}))),
        ("alg RS256", with(json!({"alg": "RS256"}))),
        ("no alg", with(json!({"typ": "JWT"}))),
        ("truncated", good[..good.len() - 4].to_owned()),
        ("without a signature", format!("{}.", good.rsplit_once('.').unwrap().0)),
        (
            "another body",
            format!(
                "{}.{}.{signature}",
                good.split('.').next().unwrap(),
                part(claims(json!({"roles": ["admin"]})))
            ),
        ),
        ("no JSON", "a.b.c".to_owned()),
        ("dots", "..".to_owned()),
        ("no token", "abc".to_owned()),
        ("long", format!("{good}{}", "A".repeat(1 << 20))),
        ("long in its claims", signed(json!({"padding": "A".repeat(1 << 20)}))),
    ];
    for (what, token) in bad {
        let refused = app.get("/things").bearer(&token).await;
        let challenge = Some("Bearer realm=\"api\", error=\"invalid_token\"");
        assert_eq!((refused.status(), refused.header("www-authenticate")), (401, challenge), "{what}");
        assert_eq!(refused.json()["code"], "unauthenticated", "{what}");
    }
    assert_eq!(app.get("/things").bearer(&good).bearer(&good).await.status(), 401, "twice");
    assert_eq!(app.get("/things").await.status(), 200);
    assert_eq!(status(&app, "/things", &good).await, 200);
}

#[tokio::test]
async fn token_with_audience_is_rejected_without_a_configured_audience() {
    let app = jwt_app(Jwt::new().secret(JwtAlgorithm::HS256, SECRET)).await;
    assert_eq!(status(&app, "/things", &signed(json!({}))).await, 401);
    assert_eq!(status(&app, "/things", &signed(json!({"aud": null}))).await, 200);
}

#[tokio::test]
async fn each_key_verifies_only_its_own_algorithm() {
    type Pair = (&'static [u8], &'static [u8]);
    let ed: Pair = (include_bytes!("keys/ed25519.pem"), include_bytes!("keys/ed25519.pub.pem"));
    let p256: Pair = (include_bytes!("keys/p256.pem"), include_bytes!("keys/p256.pub.pem"));
    let rsa: Pair = (include_bytes!("keys/rsa.pem"), include_bytes!("keys/rsa.pub.pem"));
    let algorithms = [
        (JwtAlgorithm::EdDSA, EncodingKey::from_ed_pem(ed.0).unwrap(), ed.1),
        (JwtAlgorithm::ES256, EncodingKey::from_ec_pem(p256.0).unwrap(), p256.1),
        (JwtAlgorithm::RS256, EncodingKey::from_rsa_pem(rsa.0).unwrap(), rsa.1),
        (JwtAlgorithm::PS512, EncodingKey::from_rsa_pem(rsa.0).unwrap(), rsa.1),
    ];
    for (algorithm, _, public) in &algorithms {
        let app =
            jwt_app(Jwt::new().public_key_pem(*algorithm, public).issuer("login").audience("shop")).await;
        for (other, signer, _) in &algorithms {
            let token = encode(&Header::new(*other), &claims(json!({})), signer).unwrap();
            let expected = if other == algorithm { 200 } else { 401 };
            assert_eq!(status(&app, "/mine", &token).await, expected, "{other:?} at {algorithm:?}");
        }
        // The public key, which everyone has, as if it were a secret.
        let forged =
            encode(&Header::default(), &claims(json!({})), &EncodingKey::from_secret(public)).unwrap();
        assert_eq!(status(&app, "/mine", &forged).await, 401, "{algorithm:?}");
    }
}

#[tokio::test]
async fn key_set_selects_keys_by_id() {
    use jsonwebtoken::jwk::Jwk;
    let key = |id: &str, algorithm, key: &EncodingKey| {
        let mut jwk = Jwk::from_encoding_key(key, algorithm).unwrap();
        jwk.common.key_id = Some(id.to_owned());
        serde_json::to_value(&jwk).unwrap()
    };
    let ec = EncodingKey::from_ec_pem(include_bytes!("keys/p256.pem")).unwrap();
    let rsa = EncodingKey::from_rsa_pem(include_bytes!("keys/rsa.pem")).unwrap();
    let set = json!({"keys": [key("new", JwtAlgorithm::ES256, &ec), key("old", JwtAlgorithm::RS256, &rsa)]});
    let app = jwt_app(Jwt::new().jwks(&set.to_string()).audience("shop")).await;
    for (id, algorithm, key, expected) in [
        (Some("new"), JwtAlgorithm::ES256, &ec, 200),
        (Some("old"), JwtAlgorithm::RS256, &rsa, 200),
        (None, JwtAlgorithm::RS256, &rsa, 200),
        (Some("gone"), JwtAlgorithm::ES256, &ec, 401),
        (Some("new"), JwtAlgorithm::RS256, &rsa, 401),
    ] {
        let mut header = Header::new(algorithm);
        header.kid = id.map(str::to_owned);
        let token = encode(&header, &claims(json!({})), key).unwrap();
        assert_eq!(status(&app, "/mine", &token).await, expected, "{id:?} {algorithm:?}");
    }
}

#[tokio::test]
async fn revoked_token_is_rejected_as_are_all_if_the_check_fails() {
    let tokens = shop_tokens().revoked(async |claims| match claims["jti"].as_str() {
        Some("fine") => Ok(false),
        Some("revoked") => Ok(true),
        Some("panic") => panic!("on purpose"),
        _ => Err("the list is away".into()),
    });
    let app = jwt_app(tokens).await;
    for (id, expected) in [("fine", 200), ("revoked", 401), ("panic", 401), ("who knows", 401)] {
        assert_eq!(status(&app, "/mine", &signed(json!({"jti": id}))).await, expected, "{id}");
    }
}

#[tokio::test]
async fn custom_claims_and_several_authenticators_are_supported() {
    let tokens = shop_tokens()
        .actor(|claims| Some(Actor::user(claims.get("email")?.as_str()?.to_owned()).with_role("editor")));
    let things = define_dynamic_resource("mine", model(&["code", "owner"]))
        .adapter(TestStorage::memory().table("mine"))
        .id_field("code")
        .permissions(Permissions::all(role("editor")))
        .build()
        .unwrap();
    let fixed = BearerTokens::new().token("opaque", Actor::user("ops").with_role("editor"));
    let app = create_app(AppPreset::Testing).authenticator(fixed).authenticator(tokens).resource(things);
    let app = TestApp::build(app).await.unwrap();
    assert_eq!(status(&app, "/mine", "opaque").await, 200);
    assert_eq!(status(&app, "/mine", &signed(json!({"email": "a@b.example"}))).await, 200);
    assert_eq!(status(&app, "/mine", &signed(json!({}))).await, 401);
    assert_eq!(status(&app, "/mine", "unknown").await, 401);
}

#[tokio::test]
async fn weak_or_missing_key_is_rejected_at_build() {
    let build = async |tokens: Jwt| {
        let things = define_dynamic_resource("things", model(&["code"]))
            .adapter(TestStorage::memory().table("things"))
            .id_field("code")
            .permissions(Permissions::all(anyone()))
            .build()
            .unwrap();
        let app = create_app(AppPreset::Testing).authenticator(tokens).resource(things);
        app.build().await.unwrap_err().to_string()
    };
    assert!(build(Jwt::new()).await.contains("no key was given"));
    assert!(build(Jwt::new().secret(JwtAlgorithm::HS256, "short")).await.contains("32 random"));
    assert!(build(Jwt::new().secret(JwtAlgorithm::HS256, "a".repeat(40))).await.contains("32 random"));
    assert!(build(Jwt::new().secret(JwtAlgorithm::RS256, SECRET)).await.contains("does not fit RS256"));
    assert!(build(Jwt::new().public_key_pem(JwtAlgorithm::ES256, "no key")).await.contains("cannot be read"));
    assert!(build(Jwt::new().public_key_pem(JwtAlgorithm::HS256, "no key")).await.contains("no public key"));
    assert!(build(Jwt::new().jwks("{}")).await.contains("JWK set"));
    let symmetric = json!({"keys": [{"kty": "oct", "alg": "HS256", "kid": "x", "k": "c2VjcmV0"}]});
    assert!(build(Jwt::new().jwks(&symmetric.to_string())).await.contains("no public key"));
}

#[tokio::test]
async fn api_key_authenticates_until_it_expires() {
    use resourceful::access::{ApiKey, ApiKeyStore as _, ApiKeys, MemoryApiKeys};
    let store = MemoryApiKeys::new();
    let (good, record) = ApiKey::mint("shop", Actor::service("robot").with_scope("mine:read"));
    let (ended, past) = ApiKey::mint("shop", Actor::service("old").with_scope("mine:read"));
    store.insert(record.clone());
    store.insert(past.clone().expires_at(chrono::Utc::now()));
    assert!(good.starts_with("shop_") && good.len() > 60, "{good}");
    assert!(!format!("{record:?}").contains(&good));

    let mine = define_dynamic_resource("mine", model(&["code"]))
        .adapter(TestStorage::memory().table("mine"))
        .id_field("code")
        .permissions(Permissions::read(any_of([scope("mine:read"), anyone()])).write(scope("mine:write")))
        .build()
        .unwrap();
    let app = create_app(AppPreset::Testing).authenticator(ApiKeys::new(store.clone())).resource(mine);
    let app = TestApp::build(app).await.unwrap();
    assert_eq!(app.get("/mine").header("x-api-key", &good).await.status(), 200);
    assert_eq!(app.get("/mine").bearer(&good).await.status(), 200);
    assert_eq!(app.post("/mine").bearer(&good).json(json!({"code": "a"})).await.status(), 403);
    let used = store.find(&record.prefix).await.unwrap().unwrap().last_used_at.unwrap();
    app.get("/mine").bearer(&good).await;
    assert_eq!(store.find(&record.prefix).await.unwrap().unwrap().last_used_at, Some(used), "once a minute");

    let (stranger, _) = ApiKey::mint("shop", Actor::service("robot"));
    let altered = format!("{}{}", &good[..good.len() - 1], if good.ends_with('A') { 'B' } else { 'A' });
    for bad in [&ended, &stranger, &altered, "shop", "", "a_b_c", "x y", &"A".repeat(1 << 20)] {
        for (header, value) in [("x-api-key", bad.to_owned()), ("authorization", format!("Bearer {bad}"))] {
            let refused = app.get("/mine").header(header, value).await;
            assert_eq!(
                (refused.status(), refused.json()["code"].clone()),
                (401, json!("unauthenticated")),
                "{header} {bad:.40}"
            );
        }
    }
    let both = app.get("/mine").header("x-api-key", &good).bearer(&good).await;
    assert_eq!(both.status(), 401);
    store.remove(&record.prefix);
    assert_eq!(app.get("/mine").bearer(&good).await.status(), 401);
    assert_eq!(app.get("/mine").await.status(), 200);
}

#[tokio::test]
async fn cached_token_is_rejected_once_expired_or_revoked() {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    let revoked = Arc::new(AtomicBool::new(false));
    let is_revoked = revoked.clone();
    let tokens = shop_tokens().leeway(Duration::ZERO).revoked(move |_| {
        let answer = is_revoked.load(Ordering::SeqCst);
        async move { Ok(answer) }
    });
    let app = jwt_app(tokens).await;
    let (long, short) = (signed(json!({})), signed(json!({"exp": now() + 1})));
    assert_eq!((status(&app, "/mine", &long).await, status(&app, "/mine", &short).await), (200, 200));
    let ended = async {
        while status(&app, "/mine", &short).await != 401 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), ended).await.expect("it never ended");
    assert_eq!(status(&app, "/mine", &long).await, 200);
    revoked.store(true, Ordering::SeqCst);
    assert_eq!(status(&app, "/mine", &long).await, 401);
}

#[tokio::test]
async fn token_cache_is_not_shared_between_settings() {
    let tokens = Jwt::new().secret(JwtAlgorithm::HS256, SECRET);
    let token = signed(json!({"aud": null}));
    assert_eq!(status(&jwt_app(tokens.clone()).await, "/mine", &token).await, 200);
    assert_eq!(status(&jwt_app(tokens.clone().audience("shop")).await, "/mine", &token).await, 401);
    assert_eq!(status(&jwt_app(tokens.clone().issuer("other")).await, "/mine", &token).await, 401);
    assert_eq!(status(&jwt_app(tokens.clone().actor(|_| None)).await, "/mine", &token).await, 401);
    let revoked = tokens.clone().revoked(async |_| Ok(true));
    assert_eq!(status(&jwt_app(revoked).await, "/mine", &token).await, 401);
    assert_eq!(status(&jwt_app(tokens).await, "/mine", &token).await, 200);
}

#[tokio::test]
async fn token_with_crit_header_is_rejected() {
    let app = jwt_app(shop_tokens()).await;
    // RFC 7515, 4.1.11: what is not understood invalidates the token, whether or not the header holds it.
    for header in [
        json!({"alg": "HS256", "crit": ["exp"], "exp": 1}),
        json!({"alg": "HS256", "typ": "JWT", "crit": ["b64"], "b64": false}),
        json!({"alg": "HS256", "crit": []}),
        json!({"alg": "HS256", "crit": null}),
    ] {
        let token = signed_with_header(&header, &claims(json!({})));
        assert_eq!(status(&app, "/mine", &token).await, 401, "{header}");
    }
    assert_eq!(
        status(&app, "/mine", &signed_with_header(&json!({"alg": "HS256"}), &claims(json!({})))).await,
        200
    );
}

#[tokio::test]
async fn non_string_claims_are_rejected() {
    let strict = jwt_app(shop_tokens()).await;
    let lax = jwt_app(Jwt::new().secret(JwtAlgorithm::HS256, SECRET).audience("shop")).await;
    for change in [
        json!({"iss": ["login", "evil"]}),
        json!({"iss": ["login"]}),
        json!({"iss": {"login": true}}),
        json!({"iss": 7}),
        json!({"sub": ["ada"]}),
        json!({"sub": 7}),
    ] {
        let token = signed(change.clone());
        assert_eq!(status(&strict, "/mine", &token).await, 401, "{change}");
        assert_eq!(status(&lax, "/mine", &token).await, 401, "{change}");
    }
    assert_eq!(status(&lax, "/mine", &signed(json!({"iss": null}))).await, 200);
}

/// Things and others that editors may do everything with.
async fn editor_app(tokens: Jwt) -> TestApp {
    let things = define_dynamic_resource("things", model(&["code", "owner"]))
        .adapter(TestStorage::memory().table("things"))
        .id_field("code")
        .permissions(Permissions::all(role("editor")))
        .preset(bulk())
        .preset(audit().readable_by(role("editor")))
        .action("touch", Action::on_item(role("editor"), touch))
        .build()
        .unwrap();
    let other = define_dynamic_resource("others", model(&["code", "owner"]))
        .adapter(TestStorage::memory().table("others"))
        .id_field("code")
        .permissions(Permissions::all(role("editor")))
        .build()
        .unwrap();
    let app = create_app(AppPreset::Testing)
        .authenticator(tokens)
        .explain(role("editor"))
        .resource(things)
        .resource(other)
        .batch(5);
    let app = TestApp::build(app).await.unwrap();
    let row = json!({"code": "a", "owner": "o"});
    app.app().load().rows("things", [row]).unwrap().commit().await.unwrap();
    app
}

/// What a token lets its bearer do: read, list, history, change, in bulk, in a batch, act, read another resource, and ask why.
async fn statuses(app: &TestApp, token: &str) -> [u16; 9] {
    let patch = json!({"owner": "p"});
    let one = json!({"operation": "update", "resource": "things", "id": "a", "body": patch});
    [
        app.get("/things/a").bearer(token).await.status(),
        app.get("/things").bearer(token).await.status(),
        app.get("/things/a/history").bearer(token).await.status(),
        app.patch("/things/a").bearer(token).json(patch.clone()).await.status(),
        app.patch("/things/bulk")
            .bearer(token)
            .json(json!({"items": [{"code": "a", "owner": "q"}]}))
            .await
            .status(),
        app.post("/batch").bearer(token).json(json!({"operations": [one]})).await.status(),
        app.post("/things/a/touch").bearer(token).await.status(),
        app.get("/others").bearer(token).await.status(),
        app.post("/_explain")
            .bearer(token)
            .json(json!({"resource": "things", "operation": "read"}))
            .await
            .status(),
    ]
}

#[tokio::test]
async fn client_scopes_limit_delegated_permissions() {
    let app = editor_app(shop_tokens()).await;
    let of = |scope: Json| signed(json!({"client_id": "app", "scope": scope}));
    for (scope, expected) in [
        (json!("things:read"), [200, 200, 200, 403, 403, 403, 403, 403, 403]),
        (json!("openid profile things:read things:write"), [200, 200, 200, 200, 200, 200, 200, 403, 403]),
        (json!("things:read things:touch"), [200, 200, 200, 403, 403, 403, 200, 403, 403]),
        (json!("things:read things:update"), [200, 200, 200, 200, 200, 200, 403, 403, 403]),
        (json!("things:list"), [403, 403, 403, 403, 403, 403, 403, 403, 403]),
        (json!("openid"), [403; 9]),
        (json!(""), [403; 9]),
        (json!(["things:read"]), [403; 9]),
        (json!("other:read things:reads xthings:read things"), [403; 9]),
    ] {
        assert_eq!(statuses(&app, &of(scope.clone())).await, expected, "{scope}");
    }
    let whole = [200; 9];
    // The user's own token, and one that names no scope, have all of the user's rights.
    assert_eq!(statuses(&app, &signed(json!({}))).await, whole);
    assert_eq!(statuses(&app, &signed(json!({"client_id": "app"}))).await, whole);
    // Scopes give nothing that the user may not.
    let reader = signed(json!({"client_id": "app", "scope": "things:read things:write", "roles": []}));
    assert_eq!(statuses(&app, &reader).await[..4], [403, 403, 403, 403]);
    // A client of one's own has what its users have.
    let app = editor_app(shop_tokens().trusted_client("app")).await;
    assert_eq!(statuses(&app, &of(json!("openid"))).await, whole);
    assert_eq!(statuses(&app, &signed(json!({"client_id": "other", "scope": "openid"}))).await, [403; 9]);
}

fn touch(_: &mut serde_json::Map<String, Json>, _: NoInput, _: &mut Change) -> Result<String, Error> {
    Ok("touched".to_owned())
}

/// A token with whatever header, signed as HS256 has it (RFC 7515, 5.1).
fn signed_with_header(header: &Json, claims: &Json) -> String {
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD as base64url;
    use hmac::{Hmac, KeyInit as _, Mac as _};
    let signing_input = [header, claims].map(|part| base64url.encode(part.to_string())).join(".");
    let mut mac = Hmac::<sha2::Sha256>::new_from_slice(SECRET.as_bytes()).unwrap();
    mac.update(signing_input.as_bytes());
    format!("{signing_input}.{}", base64url.encode(mac.finalize().into_bytes()))
}
