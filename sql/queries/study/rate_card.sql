-- Records one rating, unless something is other than was assumed (see the function in sql/schema.sql).
-- Parameters: user_id, flashcard_id; class_id and zone: that the card and the profile are assumed to have, zone null if
-- it does not matter; confidence_level, mastery_status, review_seconds (until the card comes back), response_time_ms,
-- session_id, rated_at (null: now); day, lapses_at; now: the moment of a rating that names none, and now_until: before
-- when a later one is as good, null for a rating that names its moment; key and fingerprint, null without an
-- Idempotency-Key, and the cache keys that the write makes stale; counts_wanted: of the card's deck.
SELECT rate_card(
       %(user_id)s, %(flashcard_id)s, %(class_id)s, %(confidence_level)s, %(mastery_status)s, %(review_seconds)s,
       %(response_time_ms)s, %(session_id)s, %(rated_at)s, %(day)s, %(lapses_at)s, %(now)s, %(now_until)s, %(zone)s,
       %(key)s, %(fingerprint)s, %(stale)s::text[], %(counts_wanted)s) AS outcome
