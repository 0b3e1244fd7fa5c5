-- Dedup keys: of the tasks of a queue that carry the same one, only one is in force at a time.
-- reason: business uniqueness that holds under concurrency

CREATE TABLE howdah.dedup_keys (
    tenant_id integer NOT NULL,
    queue_id integer NOT NULL,
    claim_no integer NOT NULL,
    task_id uuid NOT NULL,
    taken_at timestamptz NOT NULL,
    expires_at timestamptz,
    until text NOT NULL,
    -- Compared and sorted byte by byte: two spellings of one letter are two keys, in every locale.
    key text COLLATE "C" NOT NULL,
    CONSTRAINT dedup_keys_pkey PRIMARY KEY (tenant_id, queue_id, key),
    CONSTRAINT dedup_keys_key_check CHECK (length(key) BETWEEN 1 AND 255),
    CONSTRAINT dedup_keys_until_check
    CHECK (until IN ('started', 'finished', 'expiry') AND (until = 'expiry') = (expires_at IS NOT NULL))
)
-- No index but the primary key, and room on each page: taking a key that was held before is a HOT update.
WITH (fillfactor = 80);

COMMENT ON TABLE howdah.dedup_keys IS 'Which task holds, or last held, a dedup key of a queue. Whether it still does is judged by the next task that brings the key, under the row''s lock (howdah.holds_key): nothing is written here when a task starts or ends. A chore deletes rows that hold nothing any more.';
COMMENT ON COLUMN howdah.dedup_keys.tenant_id IS 'Owner.';
COMMENT ON COLUMN howdah.dedup_keys.queue_id IS 'Keys of different queues have nothing to do with each other.';
COMMENT ON COLUMN howdah.dedup_keys.claim_no IS 'Claims that the task had when it took the key; it has started once it has more.';
COMMENT ON COLUMN howdah.dedup_keys.task_id IS 'The task that took the key last.';
COMMENT ON COLUMN howdah.dedup_keys.taken_at IS 'When it did.';
COMMENT ON COLUMN howdah.dedup_keys.expires_at IS 'With until = expiry: it holds the key until then, whatever becomes of it.';
COMMENT ON COLUMN howdah.dedup_keys.until IS 'How long it holds the key: started (it is claimed for the first time), finished (it has no live run any more), expiry.';
COMMENT ON COLUMN howdah.dedup_keys.key IS 'The client''s word for what must not be there twice.';

ALTER TABLE howdah.tasks ADD COLUMN dedup jsonb;
COMMENT ON COLUMN howdah.tasks.dedup IS 'key, until and on_conflict, as given: what must not be there twice.';
