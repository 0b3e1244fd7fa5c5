-- What a consumer that claims over HTTP names: its queue, and those of its handlers that some task has named before.
-- params: tenant_id; queue; handlers.
-- returns: one row: queue_id, NULL if there is no such queue; is_limited (of the queue); target_ids and, in the same order, names.
-- index: queues_tenant_id_name_key, targets_tenant_id_handler_key
SELECT
    (SELECT q.id FROM howdah.queues AS q WHERE q.tenant_id = %(tenant_id)b::integer AND q.name = %(queue)b::text) AS queue_id,
    coalesce(
        (SELECT q.is_limited FROM howdah.queues AS q WHERE q.tenant_id = %(tenant_id)b::integer AND q.name = %(queue)b::text), false
    ) AS is_limited,
    ARRAY(
        SELECT t.id
        FROM howdah.targets AS t
        WHERE t.tenant_id = %(tenant_id)b::integer AND t.handler = ANY (%(handlers)b::text[])
        ORDER BY t.id
    ) AS target_ids,
    ARRAY(
        SELECT t.handler
        FROM howdah.targets AS t
        WHERE t.tenant_id = %(tenant_id)b::integer AND t.handler = ANY (%(handlers)b::text[])
        ORDER BY t.id
    ) AS names
