-- Deletes an account with all that is its own: sign-ins, progress, ratings, sessions, bookmarks, kept answers.
-- Parameters: user_id.
DELETE FROM users WHERE id = %(user_id)s
