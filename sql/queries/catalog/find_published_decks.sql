-- Those of these decks that are published, in a published class. Parameters: deck_ids.
SELECT d.id, d.name, d.description, d.class_id, c.name AS class_name
  FROM decks AS d
  JOIN classes AS c ON c.id = d.class_id AND c.is_published
 WHERE d.id = ANY(%(deck_ids)s::uuid[]) AND d.is_published
