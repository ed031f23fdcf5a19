-- Streaks that have ended since somebody last looked become 0, so that the ranking by streak is true; each once.
-- A row that somebody else is writing is left to them, so that a look at the ranking neither waits nor deadlocks.
WITH lapsed AS (
    SELECT user_id
      FROM user_stats
     WHERE study_streak_days > 0 AND streak_lapses_at <= now()
       FOR UPDATE SKIP LOCKED
)
UPDATE user_stats AS s
   SET study_streak_days = 0
  FROM lapsed
 WHERE s.user_id = lapsed.user_id
