-- A page of users with their figures, longest streak first; then those whose streak has lapsed, the latest first.
-- A streak lapses at a midnight of its user's time zone, so those that live fall into few groups, a midnight each:
-- the top of each group is read along the index, and the best of them are the page. Nothing is ever set to 0.
-- Parameters: before_days, before_lapses_at, before_id (of the last row of the page before; days 0 when that had
-- lapsed already, then with before_ended_days), before_ended_days, page_size.
WITH RECURSIVE midnights (lapses_at) AS (
    (SELECT max(streak_lapses_at) FROM user_stats WHERE streak_lapses_at > now())
    UNION ALL
    SELECT (SELECT max(s.streak_lapses_at) FROM user_stats AS s
             WHERE s.streak_lapses_at > now() AND s.streak_lapses_at < m.lapses_at)
      FROM midnights AS m
     WHERE m.lapses_at IS NOT NULL
), living AS (
    SELECT top.user_id, top.study_streak_days AS days, top.study_streak_days AS ended_days, m.lapses_at
      FROM midnights AS m
     CROSS JOIN LATERAL (
           SELECT s.user_id, s.study_streak_days
             FROM user_stats AS s
            WHERE s.streak_lapses_at = m.lapses_at
              -- As many days as the last row, and at a later midnight: it came before. At an earlier one: it follows.
              AND (s.study_streak_days, s.user_id) < (
                  %(before_days)s::integer + CASE WHEN m.lapses_at < %(before_lapses_at)s::timestamptz THEN 1 ELSE 0 END,
                  CASE WHEN m.lapses_at = %(before_lapses_at)s::timestamptz THEN %(before_id)s::uuid
                       ELSE '00000000-0000-0000-0000-000000000000' END)
            ORDER BY s.study_streak_days DESC, s.user_id DESC
            LIMIT %(page_size)s
           ) AS top
     WHERE m.lapses_at IS NOT NULL AND %(before_days)s::integer > 0
), ended AS (
    SELECT s.user_id, 0 AS days, s.study_streak_days AS ended_days, s.streak_lapses_at AS lapses_at
      FROM user_stats AS s
     WHERE s.streak_lapses_at <= now()
       AND (%(before_days)s::integer > 0
            OR (s.streak_lapses_at, s.study_streak_days, s.user_id)
               < (%(before_lapses_at)s::timestamptz, %(before_ended_days)s::integer, %(before_id)s::uuid))
     ORDER BY s.streak_lapses_at DESC, s.study_streak_days DESC, s.user_id DESC
     LIMIT %(page_size)s
), page AS (
    SELECT * FROM living UNION ALL SELECT * FROM ended
     ORDER BY days DESC, lapses_at DESC, ended_days DESC, user_id DESC
     LIMIT %(page_size)s
)
SELECT u.id, u.email, u.name, u.role, u.created_at, s.total_cards_studied, s.new_cards, s.learning_cards,
       s.mastered_cards, s.total_study_time_seconds, s.last_active_date, page.days AS study_streak_days,
       concat_ws(' ', page.days, page.ended_days, page.lapses_at) AS rank
  FROM page
  JOIN user_stats AS s ON s.user_id = page.user_id
  JOIN users AS u ON u.id = page.user_id
 ORDER BY page.days DESC, page.lapses_at DESC, page.ended_days DESC, page.user_id DESC
