-- A credential by its public part, with its tenant.
-- params: id.
-- returns: the key, or no row.
-- index: api_keys_pkey
SELECT
    k.id, k.tenant_id, t.name AS tenant, k.secret_hash, k.name, k.scopes,
    k.revoked_at IS NOT NULL OR coalesce(k.expires_at <= howdah.now(), false) AS is_dead,
    k.expires_at
FROM howdah.api_keys AS k
JOIN howdah.tenants AS t ON t.id = k.tenant_id
WHERE k.id = %(id)b::text
