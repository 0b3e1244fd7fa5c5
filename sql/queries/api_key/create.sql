-- Store a new credential of a tenant.
-- params: id; tenant (name); secret_hash; name; scopes; expires_at (or NULL).
-- returns: one row: id and tenant_id; none if there is no such tenant.
INSERT INTO howdah.api_keys (id, tenant_id, secret_hash, name, scopes, created_at, expires_at)
SELECT
    %(id)b::text, t.id, %(secret_hash)b::bytea, %(name)b::text, %(scopes)b::text[], howdah.now(), %(expires_at)b::timestamptz
FROM howdah.tenants AS t
WHERE t.name = %(tenant)b::text
RETURNING id, tenant_id
