-- A user's progress on the published cards of a class, card by card. Parameters: user_id, class_id.
SELECT p.flashcard_id, p.confidence_level, p.mastery_status, p.last_seen_at, p.next_review_at
  FROM decks AS d
  JOIN flashcards AS f ON f.deck_id = d.id AND f.is_published
  JOIN user_card_progress AS p ON p.flashcard_id = f.id AND p.user_id = %(user_id)s
 WHERE d.class_id = %(class_id)s AND d.is_published
