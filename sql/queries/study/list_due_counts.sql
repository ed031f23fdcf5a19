-- How many published cards of each class a user has rated and should now see again, for classes with any; by order, then
-- name. LIMIT: card by card from the index, however many cards the planner takes a user to have. Parameters: user_id.
SELECT c.id AS class_id, c.name AS class_name, count(*) AS due_cards
  FROM user_card_progress AS p
 CROSS JOIN LATERAL (
       SELECT f.deck_id FROM flashcards AS f WHERE f.id = p.flashcard_id AND f.is_published LIMIT 1
       ) AS f
  JOIN decks AS d ON d.id = f.deck_id AND d.is_published
  JOIN classes AS c ON c.id = d.class_id AND c.is_published
 WHERE p.user_id = %(user_id)s AND p.next_review_at <= now()
 GROUP BY c.id
 ORDER BY c.sort_order, c.name, c.id
