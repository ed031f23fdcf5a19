-- The exact recount of a user's cards by mastery, for comparison with user_stats. Parameters: user_id.
SELECT mastery_status, count(*) AS cards
  FROM user_card_progress
 WHERE user_id = %(user_id)s
 GROUP BY mastery_status
