-- The account with an address. Parameters: email (lower case).
SELECT id, email, password_hash, name, role, plan, time_zone, deactivated_at, created_at
  FROM users
 WHERE email = %(email)s
