-- A card as administrators see it, published or not. Parameters: flashcard_id.
SELECT id, deck_id, question, answer, explanation, category, sort_order, is_published, created_at, updated_at
  FROM flashcards
 WHERE id = %(flashcard_id)s
