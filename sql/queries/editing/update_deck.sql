-- Writes a locked deck anew; no row where there is no such class. Parameters: deck_id; class_id, name, description, sort_order, is_published.
UPDATE decks
   SET class_id = %(class_id)s, name = %(name)s, description = %(description)s, sort_order = %(sort_order)s,
       is_published = %(is_published)s, updated_at = now()
 WHERE id = %(deck_id)s AND EXISTS (SELECT FROM classes WHERE id = %(class_id)s FOR KEY SHARE)
RETURNING id, class_id, name, description, sort_order, is_published, created_at, updated_at
