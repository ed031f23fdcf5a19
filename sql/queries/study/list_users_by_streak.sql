-- A page of users with their figures, longest streak first; then those whose streak has lapsed, the latest first.
-- A streak lapses at a midnight of its user's time zone, so those that live fall into few groups, a midnight each:
-- the top of each group is read along the index, and the best of them are the page. Nothing is ever set to 0.
-- Statistics of the table are out of date after the next midnight. So whatever is read here is read in the index's own
-- order, from a position that the planner does not know, up to a limit: then nothing else looks cheaper to it.
-- Parameters: before_days, before_lapses_at, before_id (of the last row of the page before; days 0 when that had
-- lapsed already, then with before_ended_days), before_ended_days, page_size.
WITH RECURSIVE present (lapses_at) AS MATERIALIZED (
    SELECT now()
), midnights (lapses_at) AS (
    (SELECT streak_lapses_at FROM user_stats ORDER BY streak_lapses_at DESC LIMIT 1)
    UNION ALL
    SELECT (SELECT s.streak_lapses_at FROM user_stats AS s
             WHERE s.streak_lapses_at < m.lapses_at ORDER BY s.streak_lapses_at DESC LIMIT 1)
      FROM midnights AS m
     WHERE m.lapses_at > now()
), living AS (
    SELECT top.user_id, top.study_streak_days AS days, top.study_streak_days AS ended_days, m.lapses_at
      FROM midnights AS m
      -- As many days as the last row, and at a later midnight: it came before. At an earlier one: it follows.
     CROSS JOIN LATERAL (
           VALUES (%(before_days)s::integer + CASE WHEN m.lapses_at < %(before_lapses_at)s::timestamptz THEN 1 ELSE 0 END,
                   CASE WHEN m.lapses_at = %(before_lapses_at)s::timestamptz THEN %(before_id)s::uuid
                        ELSE '00000000-0000-0000-0000-000000000000' END)
           ) AS before (days, user_id)
     CROSS JOIN LATERAL (
           SELECT s.user_id, s.study_streak_days, s.streak_lapses_at
             FROM user_stats AS s
            WHERE (s.streak_lapses_at, s.study_streak_days, s.user_id) < (m.lapses_at, before.days, before.user_id)
            ORDER BY s.streak_lapses_at DESC, s.study_streak_days DESC, s.user_id DESC
            LIMIT %(page_size)s
           ) AS top
     WHERE m.lapses_at > now() AND top.streak_lapses_at = m.lapses_at AND %(before_days)s::integer > 0
), ended AS (
    SELECT top.user_id, 0 AS days, top.study_streak_days AS ended_days, top.streak_lapses_at AS lapses_at
      FROM present
     CROSS JOIN LATERAL (
           SELECT s.user_id, s.study_streak_days, s.streak_lapses_at
             FROM user_stats AS s
            WHERE (s.streak_lapses_at, s.study_streak_days, s.user_id) < (
                  CASE WHEN %(before_days)s::integer > 0 THEN present.lapses_at
                       ELSE least(present.lapses_at, %(before_lapses_at)s::timestamptz) END,
                  CASE WHEN %(before_days)s::integer > 0 THEN 2147483647 ELSE %(before_ended_days)s::integer END,
                  CASE WHEN %(before_days)s::integer > 0 THEN 'ffffffff-ffff-ffff-ffff-ffffffffffff'
                       ELSE %(before_id)s::uuid END)
            ORDER BY s.streak_lapses_at DESC, s.study_streak_days DESC, s.user_id DESC
            LIMIT %(page_size)s
           ) AS top
), page AS (
    SELECT * FROM living UNION ALL SELECT * FROM ended
     ORDER BY days DESC, lapses_at DESC, ended_days DESC, user_id DESC
     LIMIT %(page_size)s
)
SELECT u.id, u.email, u.name, u.role, u.created_at, s.total_cards_studied, s.new_cards, s.learning_cards,
       s.mastered_cards, s.total_study_time_seconds, s.last_active_date, page.days AS study_streak_days,
       concat_ws(' ', page.days, page.ended_days, page.lapses_at) AS rank
  FROM page
 CROSS JOIN LATERAL (SELECT * FROM user_stats AS s WHERE s.user_id = page.user_id LIMIT 1) AS s
 CROSS JOIN LATERAL (SELECT * FROM users AS u WHERE u.id = page.user_id LIMIT 1) AS u
 ORDER BY page.days DESC, page.lapses_at DESC, page.ended_days DESC, page.user_id DESC
