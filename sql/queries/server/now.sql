-- The database's clock: ours, which tests can shift, and the server's own.
-- params: none.
-- returns: one row: now, server_now.
SELECT howdah.now() AS now, statement_timestamp() AS server_now
