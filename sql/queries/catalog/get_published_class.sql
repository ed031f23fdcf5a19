-- One published class. Parameters: class_id.
SELECT c.id, c.name, c.description, c.icon, c.color
  FROM classes AS c
 WHERE c.id = %(class_id)s AND c.is_published
