-- The published cards of decks, each deck's in their order. Parameters: deck_ids.
SELECT f.deck_id, f.id, f.question, f.answer, f.explanation, f.category, f.sort_order
  FROM unnest(%(deck_ids)s::uuid[]) WITH ORDINALITY AS wanted (deck_id, number)
 CROSS JOIN LATERAL (
       SELECT f.deck_id, f.id, f.question, f.answer, f.explanation, f.category, f.sort_order
         FROM flashcards AS f
        WHERE f.deck_id = wanted.deck_id AND f.is_published
        ORDER BY f.sort_order, f.id
       ) AS f
 ORDER BY wanted.number, f.sort_order, f.id
