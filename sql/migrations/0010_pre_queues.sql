-- Queues that can be paused, drained, capped and deleted, and that may keep less history.
-- reason: operators hold, close and remove queues while producers and workers go on

ALTER TABLE howdah.queues
    ADD COLUMN keep_history text NOT NULL DEFAULT 'all',
    ADD COLUMN max_depth integer,
    ADD COLUMN max_age_s double precision,
    ADD COLUMN pressure text,
    ADD COLUMN pressure_until timestamptz,
    ADD COLUMN paused_until timestamptz,
    ADD COLUMN paused_at timestamptz,
    ADD COLUMN paused_by text,
    ADD COLUMN pause_reason text,
    ADD COLUMN draining_at timestamptz,
    ADD COLUMN draining_by text,
    ADD COLUMN deleted_at timestamptz,
    ADD CONSTRAINT queues_keep_history_check CHECK (keep_history IN ('all', 'failures', 'none')),
    ADD CONSTRAINT queues_max_depth_check CHECK (max_depth BETWEEN 1 AND 1000000),
    ADD CONSTRAINT queues_max_age_s_check CHECK (max_age_s BETWEEN 1 AND 31622400),
    ADD CONSTRAINT queues_pressure_check CHECK (
        (pressure IS NULL) = (pressure_until IS NULL) AND pressure IN ('depth', 'age')
    ),
    ADD CONSTRAINT queues_pause_check CHECK (
        (paused_until IS NULL) = (paused_at IS NULL)
        AND (paused_until IS NULL) = (paused_by IS NULL)
        AND (pause_reason IS NULL OR paused_until IS NOT NULL)
    ),
    ADD CONSTRAINT queues_draining_check CHECK ((draining_at IS NULL) = (draining_by IS NULL));

-- Each is empty while no queue has the property, so that who asks for such queues pays nothing.
CREATE INDEX queues_history_idx ON howdah.queues (id) WHERE keep_history <> 'all';
CREATE INDEX queues_capped_idx ON howdah.queues (id) WHERE max_depth IS NOT NULL OR max_age_s IS NOT NULL OR pressure IS NOT NULL;
CREATE INDEX queues_paused_idx ON howdah.queues (paused_until) WHERE paused_until IS NOT NULL;
CREATE INDEX queues_deleted_idx ON howdah.queues (deleted_at) WHERE deleted_at IS NOT NULL;

-- A report that is repeated after a lost answer comes within seconds, so ten minutes are plenty.
CREATE TABLE howdah.ended_leases (
    tenant_id integer NOT NULL,
    task_id uuid NOT NULL,
    lease_token uuid NOT NULL,
    outcome text NOT NULL,
    ended_at timestamptz NOT NULL,
    CONSTRAINT ended_leases_pkey PRIMARY KEY (tenant_id, task_id, lease_token),
    CONSTRAINT ended_leases_outcome_check CHECK (outcome IN ('succeeded', 'failed', 'released', 'lost', 'timed_out'))
);
CREATE INDEX ended_leases_ended_idx ON howdah.ended_leases (ended_at);

INSERT INTO howdah.maintenance (chore) VALUES ('queues');

COMMENT ON COLUMN howdah.queues.keep_history IS 'What finished_runs gets of its runs: all, failures (no successes), or none (but the rows that say cancelled or expired, which are those tasks'' state).';
COMMENT ON COLUMN howdah.queues.max_depth IS 'Waiting tasks from which on it takes no more; NULL no cap.';
COMMENT ON COLUMN howdah.queues.max_age_s IS 'Seconds that its oldest due task may wait before it takes no more; NULL no cap.';
COMMENT ON COLUMN howdah.queues.pressure IS 'Which cap was reached when the chore "queues" last looked: depth or age; counts until pressure_until.';
COMMENT ON COLUMN howdah.queues.pressure_until IS 'Tasks are refused until then; the chore renews it while the cap is reached, so that no queue stays shut when no scheduler runs.';
COMMENT ON COLUMN howdah.queues.paused_until IS 'Nothing is claimed from it before this time; infinity is a pause without end, NULL no pause.';
COMMENT ON COLUMN howdah.queues.paused_at IS 'Since when it is paused.';
COMMENT ON COLUMN howdah.queues.paused_by IS 'Who paused it: the id of an API key, or a database role.';
COMMENT ON COLUMN howdah.queues.pause_reason IS 'Why it is paused, for people.';
COMMENT ON COLUMN howdah.queues.draining_at IS 'Since when it takes no new tasks; NULL if it takes them.';
COMMENT ON COLUMN howdah.queues.draining_by IS 'Who drains it: the id of an API key, or a database role.';
COMMENT ON COLUMN howdah.queues.deleted_at IS 'When it was deleted. The row stays for as long as history names it; a new task of its name brings it back.';

COMMENT ON TABLE howdah.ended_leases IS 'Leases that ended without a row of history, in queues that keep less than all. Tells a repeated report from a late one, for ten minutes.';
COMMENT ON COLUMN howdah.ended_leases.tenant_id IS 'Owner.';
COMMENT ON COLUMN howdah.ended_leases.task_id IS 'The task.';
COMMENT ON COLUMN howdah.ended_leases.lease_token IS 'Token of the lease.';
COMMENT ON COLUMN howdah.ended_leases.outcome IS 'What was reported, as finished_runs would have it.';
COMMENT ON COLUMN howdah.ended_leases.ended_at IS 'When it was recorded.';
