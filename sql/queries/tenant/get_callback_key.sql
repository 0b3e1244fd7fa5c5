-- What an outcome that a receiver reports is checked against: the key of the tenant's tokens, and its limit.
-- params: id.
-- returns: one row: name, callback_key, payload_bytes_max.
-- index: tenants_pkey
SELECT t.name, t.callback_key, t.payload_bytes_max
FROM howdah.tenants AS t
WHERE t.id = %(id)b::integer
