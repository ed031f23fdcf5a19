-- A user's published cards of a class, counted by deck and mastery. Parameters: user_id, class_id.
SELECT f.deck_id, p.mastery_status, count(*) AS cards
  FROM decks AS d
  JOIN flashcards AS f ON f.deck_id = d.id AND f.is_published
  JOIN user_card_progress AS p ON p.flashcard_id = f.id AND p.user_id = %(user_id)s
 WHERE d.class_id = %(class_id)s AND d.is_published
 GROUP BY f.deck_id, p.mastery_status
