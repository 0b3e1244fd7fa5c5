-- The secrets of each tenant: what signs its callbacks, and the tokens that go with them.
-- params: none.
-- returns: id, name, callback_secret, callback_key.
SELECT t.id, t.name, t.callback_secret, t.callback_key
FROM howdah.tenants AS t
ORDER BY t.id
