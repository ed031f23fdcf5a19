-- A user's progress on one card, in JSON. Parameters: user_id, flashcard_id.
SELECT describe_progress(p) AS progress
  FROM user_card_progress AS p
 WHERE p.user_id = %(user_id)s AND p.flashcard_id = %(flashcard_id)s
