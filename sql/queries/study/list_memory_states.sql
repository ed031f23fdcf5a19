-- What FSRS knows of a user's memory of some cards, and how many reviews there are of each. Parameters: user_id,
-- flashcard_ids.
SELECT m.flashcard_id, m.stability, m.difficulty, m.state, m.step, m.due_at, m.last_review_at, m.reviews,
       (SELECT count(*) FROM review_log AS r WHERE r.user_id = m.user_id AND r.flashcard_id = m.flashcard_id) AS logged
  FROM memory_states AS m
 WHERE m.user_id = %(user_id)s AND m.flashcard_id = ANY(%(flashcard_ids)s::uuid[])
