-- A class as administrators see it, published or not. Parameters: class_id.
SELECT id, name, description, icon, color, sort_order, is_published, scheduler, created_at, updated_at
  FROM classes
 WHERE id = %(class_id)s
