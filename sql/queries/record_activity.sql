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
SELECT s.deck_id, counted.mastery_status, counted.cards
  FROM user_deck_stats AS s
 CROSS JOIN LATERAL (
       SELECT count(*) FILTER (WHERE p.mastery_status = 'new') AS new_cards,
              count(*) FILTER (WHERE p.mastery_status = 'learning') AS learning_cards,
              count(*) FILTER (WHERE p.mastery_status = 'mastered') AS mastered_cards
         FROM flashcards AS f
         JOIN user_card_progress AS p ON p.user_id = s.user_id AND p.flashcard_id = f.id
        WHERE f.deck_id = s.deck_id AND NOT f.is_published
       ) AS hidden
 CROSS JOIN LATERAL (
       VALUES ('new', s.new_cards - hidden.new_cards),
              ('learning', s.learning_cards - hidden.learning_cards),
              ('mastered', s.mastered_cards - hidden.mastered_cards)
       ) AS counted (mastery_status, cards)
 WHERE s.user_id = %(user_id)s AND s.deck_id = ANY(%(deck_ids)s::uuid[]) AND counted.cards > 0
