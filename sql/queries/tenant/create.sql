-- Make a tenant; its callback secret is drawn with it.
-- params: name.
-- returns: one row: id, name, is_new.
INSERT INTO howdah.tenants AS t (name)
VALUES (%(name)b::text)
ON CONFLICT (name) DO UPDATE SET name = t.name
RETURNING t.id, t.name, t.xmax = 0 AS is_new
