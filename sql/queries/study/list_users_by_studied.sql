-- A page of users with their figures, most cards studied first. Read along its index: its cost is its size.
-- Parameters: before_rank, before_id (the last row of the page before; null for the first page), page_size.
SELECT u.id, u.email, u.name, u.role, u.created_at, s.total_cards_studied, s.new_cards, s.learning_cards,
       s.mastered_cards, s.total_study_time_seconds, s.last_active_date, s.total_cards_studied::text AS rank,
       CASE WHEN s.streak_lapses_at > now() THEN s.study_streak_days ELSE 0 END AS study_streak_days
  FROM user_stats AS s
  JOIN users AS u ON u.id = s.user_id
 WHERE %(before_id)s::uuid IS NULL OR (s.total_cards_studied, s.user_id) < (%(before_rank)s::integer, %(before_id)s::uuid)
 ORDER BY s.total_cards_studied DESC, s.user_id DESC
 LIMIT %(page_size)s
