-- One tenant with its callback secret; only for admin keys.
-- params: id.
-- returns: one row.
-- index: tenants_pkey
SELECT t.id, t.name, t.callback_secret, t.payload_bytes_max, t.created_at
FROM howdah.tenants AS t
WHERE t.id = %(id)b::integer
