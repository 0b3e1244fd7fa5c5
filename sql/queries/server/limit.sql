-- Limit how long the statements of this transaction may take and wait for locks.
-- params: statement_timeout_ms; lock_timeout_ms; 0 for no limit.
SELECT
    set_config('statement_timeout', %(statement_timeout_ms)b::integer::text, true),
    set_config('lock_timeout', %(lock_timeout_ms)b::integer::text, true)
