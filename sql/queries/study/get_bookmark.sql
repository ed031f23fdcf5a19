-- A bookmark of a user. Parameters: user_id, flashcard_id.
SELECT flashcard_id, created_at FROM bookmarks WHERE user_id = %(user_id)s AND flashcard_id = %(flashcard_id)s
