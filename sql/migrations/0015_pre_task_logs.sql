-- What handlers say of their work, for who looks at the task.
-- reason: logs and progress of tasks

CREATE TABLE howdah.task_logs (
    tenant_id integer NOT NULL,
    task_id uuid NOT NULL,
    claim_no integer NOT NULL,
    seq integer NOT NULL,
    level smallint NOT NULL,
    fraction real,
    logged_at timestamptz NOT NULL,
    message text NOT NULL,
    fields jsonb,
    CONSTRAINT task_logs_pkey PRIMARY KEY (tenant_id, task_id, claim_no, seq),
    CONSTRAINT task_logs_fraction_check CHECK (fraction BETWEEN 0 AND 1)
) PARTITION BY RANGE (task_id);
-- The last progress is read with its task, behind however many lines.
CREATE INDEX task_logs_progress_idx ON howdah.task_logs (tenant_id, task_id, claim_no, seq) WHERE fraction IS NOT NULL;

-- Tasks that are there already may be run yet, and log: their days have partitions of tasks.
DO $$
DECLARE
    made record;
BEGIN
    FOR made IN
        SELECT replace(c.relname, 'tasks_', 'task_logs_') AS name, pg_get_expr(c.relpartbound, c.oid) AS bound
        FROM pg_inherits AS i
        JOIN pg_class AS c ON c.oid = i.inhrelid
        WHERE i.inhparent = 'howdah.tasks'::regclass AND NOT i.inhdetachpending
    LOOP
        EXECUTE format('CREATE TABLE howdah.%I PARTITION OF howdah.task_logs %s', made.name, made.bound);
    END LOOP;
END
$$;

COMMENT ON TABLE howdah.task_logs IS 'What handlers logged of their tasks. Rows are only ever inserted. Partitioned as tasks are, and retired with them.';
COMMENT ON COLUMN howdah.task_logs.tenant_id IS 'Owner.';
COMMENT ON COLUMN howdah.task_logs.task_id IS 'The task.';
COMMENT ON COLUMN howdah.task_logs.claim_no IS 'Which claim of the task said so.';
COMMENT ON COLUMN howdah.task_logs.seq IS 'Order within the claim, from 1.';
COMMENT ON COLUMN howdah.task_logs.level IS '10 debug, 20 info, 30 warning, 40 error.';
COMMENT ON COLUMN howdah.task_logs.fraction IS 'Of an entry about progress: how much is done, 0 to 1.';
COMMENT ON COLUMN howdah.task_logs.logged_at IS 'When it was said.';
COMMENT ON COLUMN howdah.task_logs.message IS 'The text; at most 8 KiB of it.';
COMMENT ON COLUMN howdah.task_logs.fields IS 'What the handler added to it.';
