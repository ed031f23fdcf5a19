-- A user's figures; a lapsed streak reads 0. Parameters: user_id.
SELECT total_cards_studied, new_cards, learning_cards, mastered_cards, total_study_time_seconds, last_active_date,
       CASE WHEN streak_lapses_at > now() THEN study_streak_days ELSE 0 END AS study_streak_days
  FROM user_stats
 WHERE user_id = %(user_id)s
