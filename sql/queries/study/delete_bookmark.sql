-- Forgets a bookmark. Parameters: user_id, flashcard_id.
DELETE FROM bookmarks WHERE user_id = %(user_id)s AND flashcard_id = %(flashcard_id)s
