-- Runs that two workers were lost with, of which the third loss is to convict only the guilty.
-- reason: a loss counted for every run that the worker held, also for those that it had not started

-- NULL in all rows but those of suspects that a worker holds. No row has a value yet, so there is nothing that the
-- constraint would have to read while nobody can claim.
ALTER TABLE howdah.runs ADD COLUMN alone_state smallint;
ALTER TABLE howdah.runs ADD CONSTRAINT runs_alone_check CHECK (
    alone_state IS NULL OR (alone_state BETWEEN 1 AND 2 AND lease_token IS NOT NULL)
) NOT VALID;
COMMENT ON COLUMN howdah.runs.alone_state IS 'Of a run that two workers were lost with: 1 its worker has not started it, and first ends what else it has; 2 it is executed with nothing beside it. NULL: nothing is known, as of all others.';
COMMENT ON COLUMN howdah.runs.crashes IS 'Leases that ran out with their worker; from two on, only while it was executed alone.';
