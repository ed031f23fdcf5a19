-- A deck's published cards in their order. Parameters: deck_id.
SELECT f.id, f.question, f.answer, f.explanation, f.sort_order
  FROM flashcards AS f
 WHERE f.deck_id = %(deck_id)s AND f.is_published
 ORDER BY f.sort_order, f.id
