-- batched
-- What releases wrote that did not know of review_log or of user_active_days, two hundred users at a time.

-- A card's newest rating that the log does not have; its day follows by trigger.
WITH batch AS MATERIALIZED (
    SELECT user_id FROM user_stats
     WHERE user_id > coalesce(%(after)s::uuid, '00000000-0000-0000-0000-000000000000')
     ORDER BY user_id LIMIT 200
), missing AS MATERIALIZED (
    SELECT p.user_id, p.flashcard_id, p.confidence_level, p.last_seen_at
      FROM batch
      JOIN user_card_progress AS p ON p.user_id = batch.user_id
     WHERE NOT EXISTS (SELECT FROM review_log AS r WHERE r.user_id = p.user_id AND r.flashcard_id = p.flashcard_id
                                                     AND r.rated_at = p.last_seen_at)
), locked AS MATERIALIZED (
    SELECT user_id FROM user_stats WHERE user_id IN (SELECT user_id FROM missing) ORDER BY user_id FOR NO KEY UPDATE
), added AS (
    INSERT INTO review_log (user_id, flashcard_id, confidence_level, rated_at)
    SELECT user_id, flashcard_id, confidence_level, last_seen_at FROM missing JOIN locked USING (user_id)
)
SELECT user_id::text FROM batch ORDER BY user_id;

-- A day that the log has. The locks are taken in the order of a rating: user_stats first.
WITH batch AS MATERIALIZED (
    SELECT user_id FROM user_stats
     WHERE user_id > coalesce(%(after)s::uuid, '00000000-0000-0000-0000-000000000000')
     ORDER BY user_id LIMIT 200
), missing AS MATERIALIZED (
    SELECT * FROM find_missing_active_days(
        coalesce(%(after)s::uuid, '00000000-0000-0000-0000-000000000000'),
        (SELECT user_id FROM batch ORDER BY user_id DESC LIMIT 1))
), locked AS MATERIALIZED (
    SELECT user_id FROM user_stats WHERE user_id IN (SELECT user_id FROM missing) ORDER BY user_id FOR NO KEY UPDATE
), added AS (
    INSERT INTO user_active_days AS a (user_id, day, first_at, lapses_at)
    SELECT user_id, day, first_at, lapses_at FROM missing JOIN locked USING (user_id)
        ON CONFLICT (user_id, day) DO UPDATE
       SET first_at = least(a.first_at, excluded.first_at), lapses_at = greatest(a.lapses_at, excluded.lapses_at)
)
SELECT user_id::text FROM batch ORDER BY user_id;
