-- A credential by its public part, with its tenant.
-- params: id.
-- returns: the key, or no row; cursor_secret: what this tenant's list cursors are authenticated with, the same in
--   every process and not to be guessed.
-- index: api_keys_pkey
SELECT
    k.id, k.tenant_id, t.name AS tenant, k.secret_hash, k.name, k.scopes,
    k.revoked_at IS NOT NULL OR coalesce(k.expires_at <= howdah.now(), false) AS is_dead,
    k.expires_at,
    sha256(convert_to('cursor ' || t.callback_secret, 'UTF8')) AS cursor_secret
FROM howdah.api_keys AS k
JOIN howdah.tenants AS t ON t.id = k.tenant_id
WHERE k.id = %(id)b::text
