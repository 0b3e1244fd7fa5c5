-- Tables that keep the service itself going: chores, idempotency keys, statistics.
-- reason: first version

CREATE TABLE howdah.maintenance (
    chore text NOT NULL,
    next_at timestamptz NOT NULL DEFAULT statement_timestamp(),
    leased_until timestamptz,
    hold_until timestamptz,
    last_good_at timestamptz,
    last_cost_s real,
    last_error text,
    failures integer NOT NULL DEFAULT 0,
    state jsonb NOT NULL DEFAULT '{}',
    CONSTRAINT maintenance_pkey PRIMARY KEY (chore)
);

INSERT INTO howdah.maintenance (chore)
VALUES ('rescue'), ('sweep'), ('park'), ('partitions'), ('retention'), ('cleanup');

CREATE TABLE howdah.idempotency_keys (
    tenant_id integer NOT NULL,
    key text NOT NULL,
    request_hash bytea NOT NULL,
    status smallint,
    location text,
    answer text,
    created_at timestamptz NOT NULL,
    CONSTRAINT idempotency_keys_pkey PRIMARY KEY (tenant_id, key),
    CONSTRAINT idempotency_keys_key_check CHECK (key ~ '^[\x21-\x7e]{1,255}$'),
    CONSTRAINT idempotency_keys_request_hash_check CHECK (octet_length(request_hash) = 32)
);
CREATE INDEX idempotency_keys_created_idx ON howdah.idempotency_keys (created_at);

CREATE TABLE howdah.queue_stats (
    bucket_at timestamptz NOT NULL,
    queue_id integer NOT NULL,
    source uuid NOT NULL,
    enqueued integer NOT NULL DEFAULT 0,
    succeeded integer NOT NULL DEFAULT 0,
    failed integer NOT NULL DEFAULT 0,
    retried integer NOT NULL DEFAULT 0,
    duration_s double precision NOT NULL DEFAULT 0,
    CONSTRAINT queue_stats_pkey PRIMARY KEY (queue_id, bucket_at, source)
);

COMMENT ON TABLE howdah.maintenance IS 'Periodic chores, one row each. A scheduler that wants to do one locks its row with SKIP LOCKED, so each is done by one process at a time.';
COMMENT ON COLUMN howdah.maintenance.chore IS 'Name of the chore.';
COMMENT ON COLUMN howdah.maintenance.next_at IS 'Due from this time on.';
COMMENT ON COLUMN howdah.maintenance.leased_until IS 'A process works on it until then (chores that cannot run in one transaction).';
COMMENT ON COLUMN howdah.maintenance.hold_until IS 'Rescue only: leases that ended before this time count no crash, since workers could not renew them either.';
COMMENT ON COLUMN howdah.maintenance.last_good_at IS 'Last time it ran to its end.';
COMMENT ON COLUMN howdah.maintenance.last_cost_s IS 'Seconds that took.';
COMMENT ON COLUMN howdah.maintenance.last_error IS 'Message of the last failure, NULL after a good run.';
COMMENT ON COLUMN howdah.maintenance.failures IS 'Failures since the last good run.';
COMMENT ON COLUMN howdah.maintenance.state IS 'Where a resumable chore goes on.';

COMMENT ON TABLE howdah.idempotency_keys IS 'Answers to POST requests that carried an Idempotency-Key; replayed for 24 hours.';
COMMENT ON COLUMN howdah.idempotency_keys.tenant_id IS 'Owner.';
COMMENT ON COLUMN howdah.idempotency_keys.key IS 'The header''s value.';
COMMENT ON COLUMN howdah.idempotency_keys.request_hash IS 'SHA-256 of method, path and body: the same key with another request is refused.';
COMMENT ON COLUMN howdah.idempotency_keys.status IS 'HTTP status of the stored answer; NULL only inside the transaction that makes it.';
COMMENT ON COLUMN howdah.idempotency_keys.location IS 'Location header of the stored answer.';
COMMENT ON COLUMN howdah.idempotency_keys.answer IS 'Body of the stored answer.';
COMMENT ON COLUMN howdah.idempotency_keys.created_at IS 'When the key was first used.';

COMMENT ON TABLE howdah.queue_stats IS 'What happened per queue and minute, inserted by each process once a minute and never updated.';
COMMENT ON COLUMN howdah.queue_stats.bucket_at IS 'Start of the minute.';
COMMENT ON COLUMN howdah.queue_stats.queue_id IS 'The queue.';
COMMENT ON COLUMN howdah.queue_stats.source IS 'The process that counted.';
COMMENT ON COLUMN howdah.queue_stats.enqueued IS 'Tasks accepted over HTTP.';
COMMENT ON COLUMN howdah.queue_stats.succeeded IS 'Runs that succeeded.';
COMMENT ON COLUMN howdah.queue_stats.failed IS 'Tasks given up as dead letters.';
COMMENT ON COLUMN howdah.queue_stats.retried IS 'Runs that failed and wait for another attempt.';
COMMENT ON COLUMN howdah.queue_stats.duration_s IS 'Seconds that finished runs took, added up.';
