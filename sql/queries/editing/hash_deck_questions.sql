-- The SHA-256 of a deck's questions in its order, each ended by U+001F, which no text holds: a file of the same cards in
-- the same order has the same. Parameters: deck_id.
SELECT sha256(convert_to(coalesce(string_agg(question || chr(31), '' ORDER BY sort_order, id), ''), 'UTF8')) AS questions
  FROM flashcards
 WHERE deck_id = %(deck_id)s
