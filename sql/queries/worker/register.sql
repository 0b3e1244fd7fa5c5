-- Register a worker process under an identity of its own.
-- params: name, host, pid, version, queues, handlers, serves_http, concurrency, lease_s.
-- returns: id.
INSERT INTO howdah.workers (
    name, host, pid, version, queues, handlers, serves_http, concurrency, lease_s, started_at, heartbeat_at
)
VALUES (
    %(name)b::text, %(host)b::text, %(pid)b::integer, %(version)b::text, %(queues)b::text[], %(handlers)b::text[],
    %(serves_http)b::boolean, %(concurrency)b::integer, %(lease_s)b::real, howdah.now(), howdah.now()
)
RETURNING id
