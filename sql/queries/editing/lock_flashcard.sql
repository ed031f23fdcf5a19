-- A card that is about to change: until the transaction ends nobody else changes it. Students may still rate it.
-- Parameters: flashcard_id.
SELECT id, deck_id, question, answer, explanation, category, sort_order, is_published, created_at, updated_at
  FROM flashcards
 WHERE id = %(flashcard_id)s
   FOR NO KEY UPDATE
