-- Ratings join the log, each with the day that it was where the user was, and the end of the day after it.
-- Parameters: user_id and, one entry a rating: flashcard_ids, confidence_levels, response_times_ms, rated_ats, days,
-- lapses_ats.
INSERT INTO review_log (user_id, flashcard_id, confidence_level, response_time_ms, rated_at, day, lapses_at)
SELECT %(user_id)s, r.flashcard_id, r.confidence_level, r.response_time_ms, r.rated_at, r.day, r.lapses_at
  FROM unnest(%(flashcard_ids)s::uuid[], %(confidence_levels)s::smallint[], %(response_times_ms)s::integer[],
              %(rated_ats)s::timestamptz[], %(days)s::date[], %(lapses_ats)s::timestamptz[])
       WITH ORDINALITY AS r (flashcard_id, confidence_level, response_time_ms, rated_at, day, lapses_at, n)
 ORDER BY r.n
