-- The decks of a class that is about to be deleted, locked as by lock_deck, in one order. Parameters: class_id.
SELECT id
  FROM decks
 WHERE class_id = %(class_id)s
 ORDER BY id
   FOR NO KEY UPDATE
