-- Streaks that have ended since somebody last looked become 0, so that the ranking by streak is true; each once.
UPDATE user_stats
   SET study_streak_days = 0
 WHERE study_streak_days > 0 AND streak_lapses_at <= now()
