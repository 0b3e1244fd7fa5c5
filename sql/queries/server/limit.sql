-- Limit how long statements may take and wait for locks.
-- params: statement_timeout_ms; lock_timeout_ms; 0 for no limit; is_local: in this transaction only, else in this session.
-- returns: one row: both limits as they are now.
SELECT
    set_config('statement_timeout', %(statement_timeout_ms)b::integer::text, %(is_local)b::boolean) AS statement_timeout,
    set_config('lock_timeout', %(lock_timeout_ms)b::integer::text, %(is_local)b::boolean) AS lock_timeout
