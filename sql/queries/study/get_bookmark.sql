-- When a user bookmarked a card. Parameters: user_id, flashcard_id.
SELECT created_at FROM bookmarks WHERE user_id = %(user_id)s AND flashcard_id = %(flashcard_id)s
