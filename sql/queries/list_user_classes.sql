-- Each published class with one user's progress in it: one query, however many classes. Parameters: user_id.
SELECT c.id AS class_id, c.name AS class_name, count(f.id) AS total_cards, count(p.flashcard_id) AS studied_cards,
       count(*) FILTER (WHERE p.mastery_status = 'mastered') AS mastered_cards,
       count(*) FILTER (WHERE p.mastery_status = 'learning') AS learning_cards,
       count(*) FILTER (WHERE p.mastery_status = 'new') AS new_cards
  FROM classes AS c
  LEFT JOIN decks AS d ON d.class_id = c.id AND d.is_published
  LEFT JOIN flashcards AS f ON f.deck_id = d.id AND f.is_published
  LEFT JOIN user_card_progress AS p ON p.flashcard_id = f.id AND p.user_id = %(user_id)s
 WHERE c.is_published
 GROUP BY c.id, c.name, c.sort_order
 ORDER BY c.sort_order, c.name, c.id
