#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod access;
pub mod adapter;
pub mod app;
mod audit;
mod authz;
pub mod cache;
mod catalog;
mod clock;
mod digest;
pub mod docs;
mod engine;
mod error;
pub mod events;
mod http;
#[cfg(any(feature = "jwt", feature = "webhooks"))]
mod http_client;
pub mod live;
mod nearest;
mod openapi;
mod outbox;
pub mod prelude;
#[path = "../presets/mod.rs"]
pub mod presets;
#[doc = include_str!("docs/problems.md")]
pub mod problems {}
mod query;
pub mod resource;
mod tables;
#[cfg(feature = "testing")]
pub mod testing;

pub use access::{Actor, Operation, Permission, Permissions};
pub use adapter::Memory;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
pub use adapter::Sql;
pub use app::{App, AppBuilder, AppPreset, BuildError, create_app};
pub use error::{Error, ErrorKind, Fault, FaultLocation};
pub use events::Event;
pub use resource::{
    Action, Change, DefinitionErrors, Hook, Preset, Resource, ResourceBuilder, define_dynamic_resource,
    define_resource,
};

/// The code in the skill for coding agents, compiled and run with the documentation's.
#[cfg(doctest)]
#[doc = include_str!("../skills/resourceful/SKILL.md")]
struct Skill;
