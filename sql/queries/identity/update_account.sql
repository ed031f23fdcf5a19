-- Changes what an account may do. Parameters: user_id, role, plan (null for everybody's), is_deactivated.
UPDATE users
   SET role = %(role)s::text, plan = %(plan)s::text, updated_at = now(),
       deactivated_at = CASE WHEN %(is_deactivated)s::boolean THEN coalesce(deactivated_at, now()) END
 WHERE id = %(user_id)s
RETURNING id, email, name, role, plan, password_hash IS NOT NULL AS has_password, external_issuer, deactivated_at,
          deactivated_at IS NOT NULL AS deactivated, created_at, updated_at
