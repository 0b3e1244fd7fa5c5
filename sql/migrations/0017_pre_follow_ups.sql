-- Tasks that the end of another one enqueues, and which batch a task belongs to.
-- reason: chains of tasks without a gap in which a crash could lose the next one

ALTER TABLE howdah.tasks
ADD COLUMN parent_id uuid,
ADD COLUMN batch_id uuid,
ADD COLUMN follow_ups json;

COMMENT ON COLUMN howdah.tasks.parent_id IS 'The task whose end enqueued this one, in the same transaction.';
COMMENT ON COLUMN howdah.tasks.batch_id IS 'The batch that it belongs to.';
COMMENT ON COLUMN howdah.tasks.follow_ups IS 'on_success and on_failure: tasks that are enqueued when this one succeeds, or fails or expires, with the fields of POST /v1/tasks.';

ALTER TABLE howdah.runs
ADD COLUMN batch_id uuid,
ADD COLUMN has_follow_ups boolean;

COMMENT ON COLUMN howdah.runs.batch_id IS 'The batch that its task belongs to.';
-- NULL and not false: where nothing is to be said it takes no byte.
COMMENT ON COLUMN howdah.runs.has_follow_ups IS 'True if its task has follow_ups: whoever ends it calls howdah.follow in the same transaction. Never false.';
