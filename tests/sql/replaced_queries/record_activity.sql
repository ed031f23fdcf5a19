-- A user has studied: on these days, and last at that moment. A day that is known changes only if it began earlier or
-- ends later than was known; the streak follows by trigger. The answer: what the user has of the published cards of
-- some decks, by mastery, as this transaction has made it.
-- Parameters: user_id, active_at, deck_ids and, one entry a day: days, first_ats, lapses_ats.
WITH studied AS (
    INSERT INTO user_active_days AS a (user_id, day, first_at, lapses_at)
    SELECT %(user_id)s, d.day, d.first_at, d.lapses_at
      FROM unnest(%(days)s::date[], %(first_ats)s::timestamptz[], %(lapses_ats)s::timestamptz[])
           AS d (day, first_at, lapses_at)
        ON CONFLICT (user_id, day) DO UPDATE
       SET first_at = least(a.first_at, excluded.first_at), lapses_at = greatest(a.lapses_at, excluded.lapses_at)
     WHERE excluded.first_at < a.first_at OR excluded.lapses_at > a.lapses_at
), active AS (
    UPDATE user_stats SET last_active_at = %(active_at)s WHERE user_id = %(user_id)s
)
SELECT deck_id, mastery_status, cards FROM count_published_cards(%(user_id)s, %(deck_ids)s::uuid[])
