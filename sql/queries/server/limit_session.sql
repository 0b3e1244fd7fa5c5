-- Limit how long the statements of this session may take and wait for locks.
-- params: statement_timeout_ms; lock_timeout_ms; 0 for no limit.
-- returns: one row: both limits as they are now.
SELECT
    set_config('statement_timeout', %(statement_timeout_ms)b::integer::text, false) AS statement_timeout,
    set_config('lock_timeout', %(lock_timeout_ms)b::integer::text, false) AS lock_timeout
