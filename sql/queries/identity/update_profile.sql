-- Changes what an account says of itself; what is not to be changed stays as it was. Parameters: user_id, sets_name,
-- name, time_zone (null: stays).
-- Private: name.
UPDATE users
   SET name = CASE WHEN %(sets_name)s::boolean THEN %(name)s ELSE name END,
       time_zone = coalesce(%(time_zone)s, time_zone),
       updated_at = now()
 WHERE id = %(user_id)s AND deactivated_at IS NULL
RETURNING name, time_zone
