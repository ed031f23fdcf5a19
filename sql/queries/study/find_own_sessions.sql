-- Which of these sessions are the user's, and whether they have ended. Parameters: user_id, session_ids.
SELECT id, ended_at
  FROM study_sessions
 WHERE user_id = %(user_id)s AND id = ANY(%(session_ids)s::uuid[])
