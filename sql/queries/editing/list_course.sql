-- Every class with its decks, drafts included, in their order; a class without decks has one row, whose deck is null.
SELECT c.id, c.name, c.description, c.icon, c.color, c.sort_order,
       d.id AS deck_id, d.name AS deck_name, d.sort_order AS deck_order
  FROM classes AS c
  LEFT JOIN decks AS d ON d.class_id = c.id
 ORDER BY c.sort_order, c.name, c.id, d.sort_order, d.name, d.id
