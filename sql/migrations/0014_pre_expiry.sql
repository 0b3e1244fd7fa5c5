-- Tasks that are not worth starting after some time.
-- reason: expires_at of tasks

ALTER TABLE howdah.tasks ADD COLUMN expires_at timestamptz;
-- Beside the task, because the claim must not start an expired one, however late the chore is.
ALTER TABLE howdah.runs ADD COLUMN expires_at timestamptz;

-- Empty while no waiting task has an expires_at. A claimed run leaves it: what runs may run past its expiry.
CREATE INDEX runs_expiry_idx ON howdah.runs (expires_at) WHERE expires_at IS NOT NULL AND lease_token IS NULL;

INSERT INTO howdah.maintenance (chore) VALUES ('expire');

COMMENT ON COLUMN howdah.tasks.expires_at IS 'No attempt starts at or after this time; NULL: no such time.';
COMMENT ON COLUMN howdah.runs.expires_at IS 'Not claimable from this time on; the task''s.';
