-- The secrets that sign each tenant's callbacks.
-- params: none.
-- returns: id, name, callback_secret.
SELECT t.id, t.name, t.callback_secret
FROM howdah.tenants AS t
ORDER BY t.id
