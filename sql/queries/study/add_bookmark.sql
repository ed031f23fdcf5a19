-- Bookmarks a card; no row where it is bookmarked already. Parameters: user_id, flashcard_id.
INSERT INTO bookmarks (user_id, flashcard_id)
VALUES (%(user_id)s, %(flashcard_id)s)
    ON CONFLICT DO NOTHING
RETURNING flashcard_id, created_at
