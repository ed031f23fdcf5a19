-- Records ratings, all or none, unless something is other than was assumed (see the function in sql/schema.sql).
-- Parameters: user_id; key and fingerprint, null without an Idempotency-Key, and the cache keys that the write makes
-- stale; is_batch: the form of the answer; counts_wanted: of the decks with rated cards; zone: that the profile is
-- assumed to have, null if it does not matter; now: the moment of ratings that name none, and now_until: before when a
-- later one is as good, null if no rating is of now.
-- One entry a rating: flashcard_ids, confidence_levels, mastery_statuses, review_seconds (until the card comes back),
-- response_times_ms, session_ids, rated_ats (null: now), days, lapses_ats. One entry a card: card_ids, class_ids. Then
-- own_sessions: each session once; memories: of the cards whose class is set to FSRS, as JSON, or null.
SELECT outcome, status, location, body, stale, counts, missing
  FROM record_ratings(
       %(user_id)s, %(key)s, %(fingerprint)s, %(stale)s::text[], %(is_batch)s, %(counts_wanted)s, %(zone)s, %(now)s,
       %(now_until)s, %(flashcard_ids)s::uuid[], %(confidence_levels)s::smallint[], %(mastery_statuses)s::text[],
       %(review_seconds)s::integer[], %(response_times_ms)s::integer[], %(session_ids)s::uuid[],
       %(rated_ats)s::timestamptz[], %(days)s::date[], %(lapses_ats)s::timestamptz[], %(card_ids)s::uuid[],
       %(class_ids)s::uuid[], %(own_sessions)s::uuid[], %(memories)s::jsonb)
