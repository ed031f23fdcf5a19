-- Makes a deck; no row where there is no such class. Parameters: class_id, name, description, sort_order, is_published.
INSERT INTO decks (class_id, name, description, sort_order, is_published)
SELECT id, %(name)s, %(description)s, %(sort_order)s, %(is_published)s
  FROM classes
 WHERE id = %(class_id)s
   FOR KEY SHARE
RETURNING id, class_id, name, description, sort_order, is_published, created_at, updated_at
