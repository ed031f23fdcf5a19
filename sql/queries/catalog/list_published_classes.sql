-- The published classes with how many decks and cards of theirs are published, by order, then name.
-- Serves GET /api/classes; cached whole, paged in memory. Reads no card text.
SELECT c.id, c.name, c.description, c.sort_order, c.icon, c.color, counted.deck_count, counted.card_count
  FROM classes AS c
 CROSS JOIN LATERAL (
       SELECT count(*) AS deck_count, coalesce(sum(cards.card_count), 0)::bigint AS card_count
         FROM decks AS d
        CROSS JOIN LATERAL (
              SELECT count(*) AS card_count FROM flashcards AS f WHERE f.deck_id = d.id AND f.is_published
              ) AS cards
        WHERE d.class_id = c.id AND d.is_published
       ) AS counted
 WHERE c.is_published
 ORDER BY c.sort_order, c.name, c.id
