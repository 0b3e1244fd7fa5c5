-- Limits of queues (runs at once, rate) and flow keys.
-- reason: queue limits and flow keys

ALTER TABLE howdah.queues
    ADD COLUMN max_running integer,
    ADD COLUMN rate_limit integer,
    ADD COLUMN rate_period_s real,
    ADD COLUMN rate_burst integer,
    ADD COLUMN gate_at timestamptz,
    ADD COLUMN has_flow_keys boolean NOT NULL DEFAULT false,
    ADD COLUMN is_limited boolean NOT NULL
        GENERATED ALWAYS AS (max_running IS NOT NULL OR rate_limit IS NOT NULL OR has_flow_keys) STORED,
    ADD CONSTRAINT queues_max_running_check CHECK (max_running BETWEEN 1 AND 1000000),
    ADD CONSTRAINT queues_rate_check CHECK (
        (rate_limit IS NULL) = (rate_period_s IS NULL)
        AND (rate_limit IS NULL) = (rate_burst IS NULL)
        AND rate_limit BETWEEN 1 AND 1000000
        AND rate_period_s BETWEEN 1 AND 86400
        AND rate_burst BETWEEN 1 AND 1000000
    );
COMMENT ON COLUMN howdah.queues.max_running IS 'At most so many runs of it hold a lease at once; NULL any number.';
COMMENT ON COLUMN howdah.queues.rate_limit IS 'At most so many runs start in a period, beside the burst; NULL any number.';
COMMENT ON COLUMN howdah.queues.rate_period_s IS 'Seconds of that period.';
COMMENT ON COLUMN howdah.queues.rate_burst IS 'Runs that may start at once after a rest.';
COMMENT ON COLUMN howdah.queues.gate_at IS 'When all starts so far would be paid for at the rate; see howdah.gate_room.';
COMMENT ON COLUMN howdah.queues.has_flow_keys IS 'True since its first task with a flow key.';
COMMENT ON COLUMN howdah.queues.is_limited IS 'Its runs are claimed by howdah.claim_limited, not by the plain claim.';

CREATE TABLE howdah.flow_keys (
    id bigint GENERATED ALWAYS AS IDENTITY,
    tenant_id integer NOT NULL,
    key text NOT NULL,
    concurrency integer,
    rate_limit integer,
    rate_period_s real,
    rate_burst integer,
    gate_at timestamptz,
    put_off_to timestamptz,
    created_at timestamptz NOT NULL DEFAULT statement_timestamp(),
    CONSTRAINT flow_keys_pkey PRIMARY KEY (id),
    CONSTRAINT flow_keys_tenant_id_key_key UNIQUE (tenant_id, key),
    CONSTRAINT flow_keys_tenant_id_fkey FOREIGN KEY (tenant_id) REFERENCES howdah.tenants (id),
    CONSTRAINT flow_keys_key_check CHECK (length(key) BETWEEN 1 AND 255),
    CONSTRAINT flow_keys_limit_check CHECK (concurrency IS NOT NULL OR rate_limit IS NOT NULL),
    CONSTRAINT flow_keys_concurrency_check CHECK (concurrency BETWEEN 1 AND 1000000),
    CONSTRAINT flow_keys_rate_check CHECK (
        (rate_limit IS NULL) = (rate_period_s IS NULL)
        AND (rate_limit IS NULL) = (rate_burst IS NULL)
        AND rate_limit BETWEEN 1 AND 1000000
        AND rate_period_s BETWEEN 1 AND 86400
        AND rate_burst BETWEEN 1 AND 1000000
    )
    -- Whoever claims a run of a key, or ends one, locks its row; its update is HOT where there is room.
) WITH (fillfactor = 70);
COMMENT ON TABLE howdah.flow_keys IS 'Keys that callers chose to bound how many tasks go on at once, or how fast their runs start.';
COMMENT ON COLUMN howdah.flow_keys.id IS 'Internal number; runs carry it.';
COMMENT ON COLUMN howdah.flow_keys.tenant_id IS 'Owner.';
COMMENT ON COLUMN howdah.flow_keys.key IS 'What callers named it, unique within the tenant; tasks of any queue share it.';
COMMENT ON COLUMN howdah.flow_keys.concurrency IS 'At most so many of its tasks hold a place, from their first claim to their end; as its newest task says. NULL any number.';
COMMENT ON COLUMN howdah.flow_keys.rate_limit IS 'At most so many of its runs start in a period, beside the burst; NULL any number.';
COMMENT ON COLUMN howdah.flow_keys.rate_period_s IS 'Seconds of that period.';
COMMENT ON COLUMN howdah.flow_keys.rate_burst IS 'Runs that may start at once after a rest.';
COMMENT ON COLUMN howdah.flow_keys.gate_at IS 'When all starts so far would be paid for at the rate; see howdah.gate_room.';
COMMENT ON COLUMN howdah.flow_keys.put_off_to IS 'When the last run that its rate put off is due again.';
COMMENT ON COLUMN howdah.flow_keys.created_at IS 'When its first task came, or the first one since it had none.';

ALTER TABLE howdah.tasks ADD COLUMN flow jsonb;
COMMENT ON COLUMN howdah.tasks.flow IS 'Flow key with its limits, as the client gave it: key, concurrency, rate.';

ALTER TABLE howdah.runs
    ADD COLUMN flow_key_id bigint,
    ADD COLUMN flow_state smallint,
    ADD CONSTRAINT runs_flow_check CHECK (
        (flow_key_id IS NULL) = (flow_state IS NULL)
        AND flow_state BETWEEN 0 AND 2
        AND coalesce(flow_state = 1, false) = (blocked_by & 4 <> 0)
    );
COMMENT ON COLUMN howdah.runs.flow_key_id IS 'Flow key of its task; NULL if it has none.';
COMMENT ON COLUMN howdah.runs.flow_state IS '0 no claim has come to it yet, 1 parked until its flow key has room (blocked_by 4), 2 holds a place of its key until the task ends.';

-- Empty for tasks without a flow key. Answers how many hold a place, who is next, and which keys have runs at all.
CREATE INDEX runs_flow_idx ON howdah.runs (flow_key_id, flow_state, priority DESC, due_at, task_id)
WHERE flow_key_id IS NOT NULL;

INSERT INTO howdah.maintenance (chore) VALUES ('settle');
