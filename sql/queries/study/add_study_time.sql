-- An ended session's length joins the user's total, once. Parameters: user_id, duration_seconds.
UPDATE user_stats
   SET total_study_time_seconds = total_study_time_seconds + %(duration_seconds)s
 WHERE user_id = %(user_id)s
