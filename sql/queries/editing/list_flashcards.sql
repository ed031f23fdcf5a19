-- A page of cards as administrators see them, drafts included, by deck, order and id: along idx_flashcards_deck_order.
-- Parameters: class_id, deck_id, published, text (filters; null for none), after_deck_id, after_sort_order, after_id (the last
-- row of the page before; null for the first page), page_size.
SELECT id, deck_id, question, answer, explanation, category, sort_order, is_published, created_at, updated_at
  FROM flashcards
 WHERE (%(class_id)s::uuid IS NULL
        OR deck_id = ANY(ARRAY(SELECT d.id FROM decks AS d WHERE d.class_id = %(class_id)s::uuid)))
   AND (%(deck_id)s::uuid IS NULL OR deck_id = %(deck_id)s::uuid)
   AND (%(published)s::boolean IS NULL OR is_published = %(published)s::boolean)
   AND (%(text)s::text IS NULL
        OR strpos(lower(question), lower(%(text)s::text)) > 0 OR strpos(lower(answer), lower(%(text)s::text)) > 0
        OR strpos(lower(category), lower(%(text)s::text)) > 0)
   AND (%(after_id)s::uuid IS NULL
        OR (deck_id, sort_order, id) > (%(after_deck_id)s::uuid, %(after_sort_order)s::integer, %(after_id)s::uuid))
 ORDER BY deck_id, sort_order, id
 LIMIT %(page_size)s
