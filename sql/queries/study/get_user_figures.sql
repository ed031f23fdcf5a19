-- One user with their figures. Parameters: user_id.
SELECT u.id, u.email, u.name, u.role, u.created_at, s.total_cards_studied, s.new_cards, s.learning_cards,
       s.mastered_cards, s.total_study_time_seconds, s.last_active_date,
       CASE WHEN s.streak_lapses_at > now() THEN s.study_streak_days ELSE 0 END AS study_streak_days
  FROM user_stats AS s
  JOIN users AS u ON u.id = s.user_id
 WHERE s.user_id = %(user_id)s
