-- A user's reviews of some cards, card by card, oldest first. Parameters: user_id, flashcard_ids.
SELECT flashcard_id, confidence_level, rated_at
  FROM review_log
 WHERE user_id = %(user_id)s AND flashcard_id = ANY(%(flashcard_ids)s::uuid[])
 ORDER BY flashcard_id, rated_at, id
