-- What FSRS now knows of a user's memory. Parameters: user_id and, one entry a card: flashcard_ids, stabilities,
-- difficulties, states, steps, due_ats, last_review_ats, review_counts.
INSERT INTO memory_states AS m (
       user_id, flashcard_id, stability, difficulty, state, step, due_at, last_review_at, reviews)
SELECT %(user_id)s, s.flashcard_id, s.stability, s.difficulty, s.state, s.step, s.due_at, s.last_review_at, s.reviews
  FROM unnest(%(flashcard_ids)s::uuid[], %(stabilities)s::float8[], %(difficulties)s::float8[], %(states)s::text[],
              %(steps)s::smallint[], %(due_ats)s::timestamptz[], %(last_review_ats)s::timestamptz[],
              %(review_counts)s::integer[])
       AS s (flashcard_id, stability, difficulty, state, step, due_at, last_review_at, reviews)
    ON CONFLICT (user_id, flashcard_id) DO UPDATE
   SET stability = excluded.stability, difficulty = excluded.difficulty, state = excluded.state, step = excluded.step,
       due_at = excluded.due_at, last_review_at = excluded.last_review_at, reviews = excluded.reviews
