-- Makes a class. Parameters: name, description, icon, color, sort_order, is_published.
INSERT INTO classes (name, description, icon, color, sort_order, is_published)
VALUES (%(name)s, %(description)s, %(icon)s, %(color)s, %(sort_order)s, %(is_published)s)
RETURNING id, name, description, icon, color, sort_order, is_published, created_at, updated_at
