-- A user has studied: the streak and the last active moment. Parameters: user_id, active_at, active_date,
-- streak_days, lapses_at.
UPDATE user_stats
   SET last_active_at = %(active_at)s, last_active_date = %(active_date)s,
       study_streak_days = %(streak_days)s, streak_lapses_at = %(lapses_at)s
 WHERE user_id = %(user_id)s
