-- Ratings join their sessions. Parameters, one entry a rating: session_ids, flashcard_ids, confidence_levels,
-- response_times_ms, rated_ats.
INSERT INTO session_cards (session_id, flashcard_id, confidence_level, response_time_ms, rated_at)
SELECT r.session_id, r.flashcard_id, r.confidence_level, r.response_time_ms, r.rated_at
  FROM unnest(%(session_ids)s::uuid[], %(flashcard_ids)s::uuid[], %(confidence_levels)s::smallint[],
              %(response_times_ms)s::integer[], %(rated_ats)s::timestamptz[])
       AS r (session_id, flashcard_id, confidence_level, response_time_ms, rated_at)
