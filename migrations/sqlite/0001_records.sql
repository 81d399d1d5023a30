-- What changes leave behind in the transaction that made them.

-- The outbox: an event for each change, until everyone was told and for a while after. `batch` is its position, once it
-- is published; `told_at` says when whoever subscribes had handled it. `unsaid` names the hidden fields that changed.
CREATE TABLE resourceful_events (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL,
    type TEXT NOT NULL,
    resource TEXT NOT NULL,
    subject TEXT NOT NULL,
    time TEXT NOT NULL,
    tenant TEXT,
    trace TEXT,
    data TEXT NOT NULL,
    previous TEXT,
    unsaid TEXT,
    batch INTEGER,
    told_at TEXT,
    attempts INTEGER NOT NULL,
    due_at TEXT,
    reason TEXT,
    dead_at TEXT,
    handled TEXT
);
CREATE INDEX resourceful_events_new ON resourceful_events (sequence) WHERE batch IS NULL;
CREATE INDEX resourceful_events_published ON resourceful_events (batch, sequence) WHERE batch IS NOT NULL;
CREATE INDEX resourceful_events_pending ON resourceful_events (sequence) WHERE told_at IS NULL AND dead_at IS NULL;
CREATE INDEX resourceful_events_due ON resourceful_events (due_at) WHERE due_at IS NOT NULL;
CREATE INDEX resourceful_events_dead ON resourceful_events (sequence) WHERE dead_at IS NOT NULL;

-- The audit trail: who changed what, from what to what. `link` and `seal` chain the entries.
CREATE TABLE resourceful_audit (
    position INTEGER PRIMARY KEY AUTOINCREMENT,
    resource TEXT NOT NULL,
    item TEXT NOT NULL,
    operation TEXT NOT NULL,
    at TEXT NOT NULL,
    actor TEXT,
    tenant TEXT,
    request TEXT,
    address TEXT,
    changes TEXT NOT NULL,
    link INTEGER,
    seal TEXT
);
CREATE INDEX resourceful_audit_item ON resourceful_audit (resource, item, position);
CREATE INDEX resourceful_audit_open ON resourceful_audit (position) WHERE link IS NULL;
CREATE UNIQUE INDEX resourceful_audit_link ON resourceful_audit (link);

-- What was answered under an idempotency key.
CREATE TABLE resourceful_keys (
    id TEXT PRIMARY KEY NOT NULL,
    fingerprint TEXT NOT NULL,
    status INTEGER NOT NULL,
    item TEXT,
    version TEXT,
    body TEXT,
    expires_at TEXT NOT NULL
);
CREATE INDEX resourceful_keys_expired ON resourceful_keys (expires_at);

-- Who does what only one node may do at a time; the version is the fence.
CREATE TABLE resourceful_leases (
    name TEXT PRIMARY KEY NOT NULL,
    version INTEGER NOT NULL DEFAULT 1,
    holder TEXT NOT NULL,
    expires_at TEXT NOT NULL,
    state TEXT
);
