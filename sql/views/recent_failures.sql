-- Attempts of the last 24 hours that failed, timed out or were lost, through finished_runs_failed_idx.
CREATE OR REPLACE VIEW howdah.recent_failures AS
SELECT
    f.finished_at,
    t.name AS tenant,
    q.name AS queue,
    f.task_id,
    f.attempt,
    f.outcome,
    f.is_final,
    f.response_status,
    f.error ->> 'type' AS error_type,
    f.error ->> 'message' AS error_message,
    f.duration_s,
    w.name AS worker
FROM howdah.finished_runs AS f
JOIN howdah.tenants AS t ON t.id = f.tenant_id
JOIN howdah.queues AS q ON q.id = f.queue_id
LEFT JOIN howdah.workers AS w ON w.id = f.worker_id
WHERE f.outcome IN ('failed', 'timed_out', 'lost') AND f.finished_at > howdah.now() - interval '24 hours';

COMMENT ON VIEW howdah.recent_failures IS 'Attempts of the last 24 hours that failed, timed out or were lost. Reads an index of failures in each partition, not the whole history.';
COMMENT ON COLUMN howdah.recent_failures.finished_at IS 'When the outcome was recorded.';
COMMENT ON COLUMN howdah.recent_failures.tenant IS 'Owner.';
COMMENT ON COLUMN howdah.recent_failures.queue IS 'Name of the queue.';
COMMENT ON COLUMN howdah.recent_failures.task_id IS 'The task.';
COMMENT ON COLUMN howdah.recent_failures.attempt IS 'Number of the attempt.';
COMMENT ON COLUMN howdah.recent_failures.outcome IS 'failed, timed_out or lost.';
COMMENT ON COLUMN howdah.recent_failures.is_final IS 'True if it ended the task, which is then in tasks_dead until it is replayed or purged.';
COMMENT ON COLUMN howdah.recent_failures.response_status IS 'HTTP status of a callback''s answer.';
COMMENT ON COLUMN howdah.recent_failures.error_type IS 'Class of the error.';
COMMENT ON COLUMN howdah.recent_failures.error_message IS 'Its message.';
COMMENT ON COLUMN howdah.recent_failures.duration_s IS 'Seconds that the attempt took, by the worker''s monotonic clock.';
COMMENT ON COLUMN howdah.recent_failures.worker IS 'Name of the worker; NULL if its row is gone.';
