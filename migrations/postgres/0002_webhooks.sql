-- Webhooks: where events are sent to, and what became of it.

CREATE TABLE resourceful_webhook_endpoints (
    id uuid PRIMARY KEY NOT NULL,
    url text COLLATE "C" NOT NULL,
    events text[] NOT NULL,
    description text COLLATE "C",
    enabled boolean NOT NULL,
    disabled_reason text COLLATE "C",
    tenant_id text COLLATE "C",
    owner_id text COLLATE "C",
    owner jsonb,
    secrets jsonb NOT NULL,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    version bigint NOT NULL DEFAULT 1
);
CREATE INDEX resourceful_webhook_endpoints_enabled ON resourceful_webhook_endpoints (enabled, id);

CREATE TABLE resourceful_webhook_deliveries (
    id uuid PRIMARY KEY NOT NULL,
    endpoint_id uuid NOT NULL,
    event_id uuid NOT NULL,
    event_type text COLLATE "C" NOT NULL,
    subject text COLLATE "C" NOT NULL,
    state text COLLATE "C" NOT NULL,
    attempts bigint NOT NULL,
    next_attempt_at timestamptz,
    log jsonb NOT NULL,
    tenant_id text COLLATE "C",
    owner_id text COLLATE "C",
    event text COLLATE "C" NOT NULL,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    version bigint NOT NULL DEFAULT 1
);
CREATE INDEX resourceful_webhook_deliveries_due ON resourceful_webhook_deliveries (next_attempt_at, id)
    WHERE next_attempt_at IS NOT NULL;
CREATE INDEX resourceful_webhook_deliveries_endpoint ON resourceful_webhook_deliveries (endpoint_id, created_at, id);
CREATE INDEX resourceful_webhook_deliveries_ended ON resourceful_webhook_deliveries (updated_at);
