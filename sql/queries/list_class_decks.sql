-- A class's published decks in their order, each with the number of its published cards and a fingerprint of which
-- cards those are: an overlay that was made for another set of cards is recognised by it. Parameters: class_id.
SELECT d.id, d.name, d.description, d.sort_order, cards.card_count, cards.fingerprint
  FROM decks AS d
 CROSS JOIN LATERAL (
       SELECT count(*) AS card_count, coalesce(sum(hashtextextended(f.id::text, 0)), 0)::text AS fingerprint
         FROM flashcards AS f
        WHERE f.deck_id = d.id AND f.is_published
       ) AS cards
 WHERE d.class_id = %(class_id)s AND d.is_published
 ORDER BY d.sort_order, d.name, d.id
