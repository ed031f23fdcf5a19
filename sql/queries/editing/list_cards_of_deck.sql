-- All cards of a deck in its order, published or not, as an export has them. Parameters: deck_id.
SELECT question, answer, category, explanation
  FROM flashcards
 WHERE deck_id = %(deck_id)s
 ORDER BY sort_order, id
