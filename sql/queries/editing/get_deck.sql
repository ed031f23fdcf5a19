-- A deck as administrators see it, published or not. Parameters: deck_id.
SELECT id, class_id, name, description, sort_order, is_published, created_at, updated_at
  FROM decks
 WHERE id = %(deck_id)s
