-- A class's published decks in their order, each with the number of its published cards and a fingerprint of which
-- cards those are: an overlay that was made for another set of cards is recognised by it, even if the cards have been
-- elsewhere and come back meanwhile, rated there: hence the times of the last change. Parameters: class_id.
SELECT d.id, d.name, d.description, d.sort_order, cards.card_count,
       concat_ws('@', cards.fingerprint, extract(epoch FROM d.updated_at)) AS fingerprint
  FROM decks AS d
 CROSS JOIN LATERAL (
       SELECT count(*) AS card_count,
              coalesce(sum(hashtextextended(f.id::text, (extract(epoch FROM f.updated_at) * 1000000)::bigint)), 0)
              AS fingerprint
         FROM flashcards AS f
        WHERE f.deck_id = d.id AND f.is_published
       ) AS cards
 WHERE d.class_id = %(class_id)s AND d.is_published
 ORDER BY d.sort_order, d.name, d.id
