-- One published deck of a published class. Parameters: deck_id.
SELECT d.id, d.name, d.description, d.class_id, c.name AS class_name
  FROM decks AS d
  JOIN classes AS c ON c.id = d.class_id
 WHERE d.id = %(deck_id)s AND d.is_published AND c.is_published
