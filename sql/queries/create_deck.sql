-- Makes a deck. Parameters: class_id, name, description, sort_order, is_published.
INSERT INTO decks (class_id, name, description, sort_order, is_published)
VALUES (%(class_id)s, %(name)s, %(description)s, %(sort_order)s, %(is_published)s)
RETURNING id, class_id, name, description, sort_order, is_published, created_at, updated_at
