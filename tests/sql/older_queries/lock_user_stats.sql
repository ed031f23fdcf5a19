-- A user's figures, locked until the transaction ends: the first statement of everything that writes for a user, but for
-- find_rateable_cards. A streak that never was lapsed long ago. Parameters: user_id.
SELECT s.study_streak_days, coalesce(s.streak_lapses_at, '-infinity') AS streak_lapses_at, s.last_active_date,
       s.last_active_at, u.time_zone
  FROM user_stats AS s
  JOIN users AS u ON u.id = s.user_id
 WHERE s.user_id = %(user_id)s
   FOR UPDATE OF s
