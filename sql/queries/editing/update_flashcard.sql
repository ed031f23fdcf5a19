-- Writes a locked card anew. Parameters: flashcard_id; deck_id, question, answer, explanation, category, sort_order,
-- is_published.
UPDATE flashcards
   SET deck_id = %(deck_id)s, question = %(question)s, answer = %(answer)s, explanation = %(explanation)s,
       category = %(category)s, sort_order = %(sort_order)s, is_published = %(is_published)s, updated_at = now()
 WHERE id = %(flashcard_id)s
RETURNING id, deck_id, question, answer, explanation, category, sort_order, is_published, created_at, updated_at
