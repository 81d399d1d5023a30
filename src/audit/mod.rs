//! The audit trail's hash chain and retention. Entries are written with the change that they record, by the engine.

mod chain;

pub(crate) use chain::AuditTrails;
pub use chain::AuditVerdict;
