-- A user's progress on one card. Parameters: user_id, flashcard_id.
SELECT flashcard_id, confidence_level, mastery_status, times_seen, last_seen_at, next_review_at
  FROM user_card_progress
 WHERE user_id = %(user_id)s AND flashcard_id = %(flashcard_id)s
