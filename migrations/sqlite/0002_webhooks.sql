-- Webhooks: where events are sent to, and what became of it.

CREATE TABLE resourceful_webhook_endpoints (
    id TEXT PRIMARY KEY NOT NULL,
    url TEXT NOT NULL,
    events TEXT NOT NULL,
    description TEXT,
    enabled INTEGER NOT NULL,
    disabled_reason TEXT,
    tenant_id TEXT,
    owner_id TEXT,
    owner TEXT,
    secrets TEXT NOT NULL,
    created_at TEXT NOT NULL,
    updated_at TEXT NOT NULL,
    version INTEGER NOT NULL DEFAULT 1
);
CREATE INDEX resourceful_webhook_endpoints_enabled ON resourceful_webhook_endpoints (enabled, id);

CREATE TABLE resourceful_webhook_deliveries (
    id TEXT PRIMARY KEY NOT NULL,
    endpoint_id TEXT NOT NULL,
    event_id TEXT NOT NULL,
    event_type TEXT NOT NULL,
    subject TEXT NOT NULL,
    state TEXT NOT NULL,
    attempts INTEGER NOT NULL,
    next_attempt_at TEXT,
    log TEXT NOT NULL,
    tenant_id TEXT,
    owner_id TEXT,
    event TEXT NOT NULL,
    created_at TEXT NOT NULL,
    updated_at TEXT NOT NULL,
    version INTEGER NOT NULL DEFAULT 1
);
CREATE INDEX resourceful_webhook_deliveries_due ON resourceful_webhook_deliveries (next_attempt_at, id)
    WHERE next_attempt_at IS NOT NULL;
CREATE INDEX resourceful_webhook_deliveries_endpoint ON resourceful_webhook_deliveries (endpoint_id, created_at, id);
CREATE INDEX resourceful_webhook_deliveries_ended ON resourceful_webhook_deliveries (updated_at);
