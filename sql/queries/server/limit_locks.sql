-- Limit how long the statements of this transaction wait for locks from now on.
-- params: lock_timeout_ms; 0 for no limit.
-- returns: one row: the limit as it is now.
SELECT set_config('lock_timeout', %(lock_timeout_ms)b::integer::text, true) AS lock_timeout
