-- Makes a class. Parameters: name, description, icon, color, sort_order, is_published, scheduler.
INSERT INTO classes (name, description, icon, color, sort_order, is_published, scheduler)
VALUES (%(name)s, %(description)s, %(icon)s, %(color)s, %(sort_order)s, %(is_published)s, %(scheduler)s)
RETURNING id, name, description, icon, color, sort_order, is_published, scheduler, created_at, updated_at
