-- A user's figures, locked until the transaction ends: the first statement of everything that writes for a user, but for
-- find_rateable_cards. Parameters: user_id.
SELECT s.last_active_at, u.time_zone
  FROM user_stats AS s
  JOIN users AS u ON u.id = s.user_id
 WHERE s.user_id = %(user_id)s
   FOR UPDATE OF s
