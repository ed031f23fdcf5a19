-- A page of a user's bookmarks, newest first, of cards that are still published. Parameters: user_id,
-- before_created, before_id (the last row of the page before, or infinity), page_size.
SELECT b.flashcard_id, b.created_at, f.question, f.answer, d.id AS deck_id, d.name AS deck_name,
       c.id AS class_id, c.name AS class_name
  FROM bookmarks AS b
  JOIN flashcards AS f ON f.id = b.flashcard_id AND f.is_published
  JOIN decks AS d ON d.id = f.deck_id AND d.is_published
  JOIN classes AS c ON c.id = d.class_id AND c.is_published
 WHERE b.user_id = %(user_id)s
   AND (b.created_at, b.flashcard_id) < (%(before_created)s::timestamptz, %(before_id)s::uuid)
 ORDER BY b.created_at DESC, b.flashcard_id DESC
 LIMIT %(page_size)s
