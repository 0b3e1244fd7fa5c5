-- Consumers that claim over HTTP have rows in workers, each of one tenant.
-- reason: their leases need a holder, and who looks for an unserved task must know that they serve it

ALTER TABLE howdah.workers
    ADD COLUMN kind text NOT NULL DEFAULT 'worker',
    ADD COLUMN tenant_id integer,
    ADD COLUMN pull_key uuid,
    ADD COLUMN silent_after_s real GENERATED ALWAYS AS (CASE WHEN kind = 'pull' THEN 60 ELSE 3 * lease_s END) STORED,
    ADD CONSTRAINT workers_kind_check CHECK (
        kind IN ('worker', 'pull')
        AND (kind = 'pull') = (tenant_id IS NOT NULL)
        AND (kind = 'pull') = (pull_key IS NOT NULL)
    ),
    ADD CONSTRAINT workers_process_check CHECK (
        kind = 'pull' OR (host IS NOT NULL AND pid IS NOT NULL AND version IS NOT NULL)
    ),
    ALTER COLUMN host DROP NOT NULL,
    ALTER COLUMN pid DROP NOT NULL,
    ALTER COLUMN version DROP NOT NULL;

CREATE UNIQUE INDEX workers_pull_idx ON howdah.workers (tenant_id, pull_key) WHERE pull_key IS NOT NULL;

COMMENT ON TABLE howdah.workers IS 'Who holds leases: worker processes, one row per start, and consumers that claim over HTTP, one row for each queue and set of handlers. Live ones have a heartbeat of the last seconds.';
COMMENT ON COLUMN howdah.workers.id IS 'Identity: new per process, kept by a pull consumer.';
COMMENT ON COLUMN howdah.workers.name IS 'Of a process host, pid and a random part: unique over all time. Of a pull consumer what it calls itself, or the id of its API key.';
COMMENT ON COLUMN howdah.workers.host IS 'Host name; NULL for a pull consumer.';
COMMENT ON COLUMN howdah.workers.pid IS 'Process id on that host; NULL for a pull consumer.';
COMMENT ON COLUMN howdah.workers.version IS 'Version of Howdah it runs; NULL for a pull consumer.';
COMMENT ON COLUMN howdah.workers.concurrency IS 'Runs that it executes at once; of a pull consumer the most that it asked for in its last claim.';
COMMENT ON COLUMN howdah.workers.kind IS 'worker: a process of Howdah, for all tenants. pull: claims over HTTP, for its tenant.';
COMMENT ON COLUMN howdah.workers.tenant_id IS 'The tenant of a pull consumer; NULL for workers.';
COMMENT ON COLUMN howdah.workers.pull_key IS 'Digest of a pull consumer''s name, queue and handlers, by which its next claim finds the row.';
COMMENT ON COLUMN howdah.workers.silent_after_s IS 'Seconds without a sign of life after which it counts as gone: three leases; 60 for a pull consumer, whose leases may be an hour.';
