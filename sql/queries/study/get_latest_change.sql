-- When a user's progress last changed; null where there is none. Parameters: user_id.
SELECT max(changed_at) AS changed_at FROM user_card_progress WHERE user_id = %(user_id)s
