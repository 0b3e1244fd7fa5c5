-- How large are the tables and their indexes, and does vacuum keep up?
-- Look at runs: a waiting row with its indexes takes 240 bytes, so bytes_per_row far above that (it is shown
-- from 10,000 rows on), or dead rows above 10,000 for more than a minute, mean that vacuum waits for somebody
-- (vacuum_horizon.sql) or is off.
-- Act, once the cause is gone: REINDEX INDEX CONCURRENTLY howdah.runs_ready_idx; the table itself is filled
-- again by new runs. Needs: nothing beyond USAGE on the schema.
SELECT
    s.relname AS "table",
    pg_size_pretty(pg_table_size(s.relid)) AS table_size,
    pg_size_pretty(pg_indexes_size(s.relid)) AS index_size,
    s.n_live_tup AS live_rows,
    s.n_dead_tup AS dead_rows,
    CASE WHEN s.n_live_tup > 10000 THEN pg_total_relation_size(s.relid) / s.n_live_tup END AS bytes_per_row,
    date_trunc('second', statement_timestamp() - greatest(s.last_autovacuum, s.last_vacuum)) AS vacuumed_ago,
    date_trunc('second', statement_timestamp() - greatest(s.last_autoanalyze, s.last_analyze)) AS analyzed_ago,
    s.autovacuum_count AS autovacuums
FROM pg_stat_user_tables AS s
WHERE s.schemaname = 'howdah'
ORDER BY pg_total_relation_size(s.relid) DESC
LIMIT 20;
