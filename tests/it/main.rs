//! Every integration test in one binary: it links the library once, so that the whole suite builds and runs
//! quickly. The files mirror the sections of the wire contract.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::needless_pass_by_value,
    reason = "a test fails by panicking, and a table of cases is as long as it has cases"
)]

mod access;
mod actions;
mod app;
mod architecture;
mod audit;
mod batch;
mod build_errors;
mod bulk;
mod bulk_races;
mod cache;
mod cache_oracle;
mod cache_races;
mod cache_redis;
mod cache_shared;
mod conditional;
mod connections;
mod contention;
mod cursors;
mod declaration;
mod draining;
mod dry_run;
mod errors;
mod examples;
mod existing_tables;
mod explain;
mod field_rules;
mod filter_limits;
mod grants;
mod hidden_relations;
mod history_policy;
mod hook_reads;
mod hooks;
mod idempotency;
mod indexed;
mod jwks;
mod logs;
mod matrix;
mod methods;
mod migrations;
mod numbers;
mod openapi;
mod openapi_generators;
mod outbox;
mod outcomes;
mod own_presets;
mod policies;
mod poolers;
mod presence;
mod properties;
mod proxies;
mod query_body;
mod query_clients;
mod query_string;
mod read_only;
mod relations;
mod resources;
mod sessions;
mod slugs;
mod socket_lifecycle;
mod sockets;
mod soft_delete;
mod stream_all;
mod stream_concurrency;
mod stream_lifecycle;
mod stream_nodes;
mod stream_oracle;
mod stream_rights;
mod stream_snapshots;
mod streams;
mod subscribers;
mod support;
mod tenancy;
mod tenants;
mod tokens;
mod traces;
mod tree;
mod validation;
mod webhook_load;
mod webhook_owners;
mod webhooks;
mod wire;
mod workers;
