-- Tasks that were given up: the dead letters.
CREATE OR REPLACE VIEW howdah.tasks_dead AS
SELECT
    t.name AS tenant,
    q.name AS queue,
    (ARRAY['low', 'normal', 'high', 'critical', 'granted'])[d.priority + 1] AS priority,
    d.task_id,
    coalesce(g.handler, 'http') AS target,
    d.queued_at,
    d.dead_at,
    d.reason,
    d.attempt,
    d.crashes,
    d.error ->> 'type' AS error_type,
    d.error ->> 'message' AS error_message,
    (SELECT k.expires_at FROM howdah.tasks AS k WHERE k.tenant_id = d.tenant_id AND k.id = d.task_id) AS expires_at,
    howdah.error_fingerprint(d.error) AS error_fingerprint
FROM howdah.dead_letters AS d
JOIN howdah.tenants AS t ON t.id = d.tenant_id
JOIN howdah.queues AS q ON q.id = d.queue_id
JOIN howdah.targets AS g ON g.id = d.target_id;

COMMENT ON VIEW howdah.tasks_dead IS 'Tasks that were given up (dead letters); clients see them as failed. Reads all dead letters unless filtered by queue or task_id.';
COMMENT ON COLUMN howdah.tasks_dead.tenant IS 'Owner.';
COMMENT ON COLUMN howdah.tasks_dead.queue IS 'Name of the queue.';
COMMENT ON COLUMN howdah.tasks_dead.priority IS 'critical, high, normal or low; granted is internal.';
COMMENT ON COLUMN howdah.tasks_dead.task_id IS 'The task.';
COMMENT ON COLUMN howdah.tasks_dead.target IS 'Name of its handler, or http.';
COMMENT ON COLUMN howdah.tasks_dead.queued_at IS 'When the task was accepted.';
COMMENT ON COLUMN howdah.tasks_dead.dead_at IS 'When it was given up.';
COMMENT ON COLUMN howdah.tasks_dead.reason IS 'attempts or age: the retry policy was spent; crashes: three workers were lost with it, the third while it was executed alone; not_retryable: the failure said so.';
COMMENT ON COLUMN howdah.tasks_dead.attempt IS 'Attempts that it spent.';
COMMENT ON COLUMN howdah.tasks_dead.crashes IS 'Leases among them that ran out with their worker.';
COMMENT ON COLUMN howdah.tasks_dead.error_type IS 'Class of the last attempt''s error.';
COMMENT ON COLUMN howdah.tasks_dead.error_message IS 'Its message.';
COMMENT ON COLUMN howdah.tasks_dead.expires_at IS 'It cannot be replayed from then on; NULL: no such time. Reads tasks, if it is asked for.';
COMMENT ON COLUMN howdah.tasks_dead.error_fingerprint IS 'Equal for errors of one kind: a hash of type and message without numbers, UUIDs, hexadecimal words and quoted strings.';
