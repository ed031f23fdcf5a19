-- The decks of a class, published or not. Parameters: class_id.
SELECT id FROM decks WHERE class_id = %(class_id)s
