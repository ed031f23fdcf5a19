-- The deck of a card and one more, each with its class: until the transaction ends they stay in it. Locked in one
-- order, before their cards. Parameters: flashcard_id, deck_id (null for none).
SELECT d.id, d.class_id
  FROM decks AS d
 WHERE d.id IN (%(deck_id)s::uuid, (SELECT f.deck_id FROM flashcards AS f WHERE f.id = %(flashcard_id)s::uuid))
 ORDER BY d.id
   FOR SHARE OF d
