-- What record_ratings has to assume of a user and some cards, and what FSRS knows of them: a row for each card that can
-- be rated; without any, one row without a card. Null for what there is not. Parameters: user_id, flashcard_ids.
SELECT s.last_active_at, u.time_zone, f.id AS flashcard_id, d.class_id, c.scheduler, m.stability, m.difficulty, m.state,
       m.step, m.due_at, m.last_review_at, m.reviews,
       (SELECT count(*) FROM review_log AS r WHERE r.user_id = u.id AND r.flashcard_id = f.id) AS logged
  FROM (VALUES (%(user_id)s::uuid)) AS asked (user_id)
  LEFT JOIN users AS u ON u.id = asked.user_id
  LEFT JOIN user_stats AS s ON s.user_id = u.id
  LEFT JOIN (flashcards AS f
             JOIN decks AS d ON d.id = f.deck_id AND d.is_published
             JOIN classes AS c ON c.id = d.class_id AND c.is_published)
    ON f.id = ANY(%(flashcard_ids)s::uuid[]) AND f.is_published
  LEFT JOIN memory_states AS m ON m.user_id = u.id AND m.flashcard_id = f.id
