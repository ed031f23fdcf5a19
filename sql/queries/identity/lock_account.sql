-- An account, locked until the transaction ends. Parameters: user_id.
SELECT id, email, name, role, plan, password_hash IS NOT NULL AS has_password, external_issuer, deactivated_at,
       deactivated_at IS NOT NULL AS deactivated, created_at, updated_at
  FROM users
 WHERE id = %(user_id)s
   FOR NO KEY UPDATE
