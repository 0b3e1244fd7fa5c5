-- Tasks that ended: the final rows of the history. The history is partitioned by the time in the task's
-- id, so a filter on task_id reads the partitions that it needs and no others.
CREATE OR REPLACE VIEW howdah.tasks_finished AS
SELECT
    t.name AS tenant,
    q.name AS queue,
    f.task_id,
    CASE f.outcome
        WHEN 'succeeded' THEN 'succeeded'
        WHEN 'cancelled' THEN 'cancelled'
        WHEN 'expired' THEN 'expired'
        ELSE 'failed'
    END AS state,
    f.outcome,
    f.queued_at,
    f.finished_at,
    f.attempt,
    f.response_status,
    f.duration_s,
    f.error ->> 'type' AS error_type,
    f.error ->> 'message' AS error_message,
    w.name AS worker
FROM howdah.finished_runs AS f
JOIN howdah.tenants AS t ON t.id = f.tenant_id
JOIN howdah.queues AS q ON q.id = f.queue_id
LEFT JOIN howdah.workers AS w ON w.id = f.worker_id
WHERE f.is_final;

COMMENT ON VIEW howdah.tasks_finished IS 'Tasks that ended; a dead letter that was replayed has a row for each time it did. Reads the whole history unless filtered by time: WHERE task_id >= howdah.id_floor(now() - interval ''1 hour'') reads what was made in the last hour.';
COMMENT ON COLUMN howdah.tasks_finished.tenant IS 'Owner.';
COMMENT ON COLUMN howdah.tasks_finished.queue IS 'Name of the queue.';
COMMENT ON COLUMN howdah.tasks_finished.task_id IS 'The task.';
COMMENT ON COLUMN howdah.tasks_finished.state IS 'succeeded, failed (it is in tasks_dead as well, until replayed or purged), cancelled or expired.';
COMMENT ON COLUMN howdah.tasks_finished.outcome IS 'How its last run ended; of a failed task failed, timed_out or lost.';
COMMENT ON COLUMN howdah.tasks_finished.queued_at IS 'When the task was accepted.';
COMMENT ON COLUMN howdah.tasks_finished.finished_at IS 'When it ended.';
COMMENT ON COLUMN howdah.tasks_finished.attempt IS 'Number of the attempt that ended it; 0 if it never started.';
COMMENT ON COLUMN howdah.tasks_finished.response_status IS 'HTTP status of a callback''s answer.';
COMMENT ON COLUMN howdah.tasks_finished.duration_s IS 'Seconds that the last attempt took, by the worker''s monotonic clock.';
COMMENT ON COLUMN howdah.tasks_finished.error_type IS 'Class of its error.';
COMMENT ON COLUMN howdah.tasks_finished.error_message IS 'Its message.';
COMMENT ON COLUMN howdah.tasks_finished.worker IS 'Name of the worker; NULL if its row is gone or it never started.';
