-- A page of accounts, newest first. Parameters: role, text (filters; null for none; the text is looked for in address and
-- name, in capitals or not), before_created, before_id (the last row of the page before; null for the first page),
-- page_size.
-- Private: text.
SELECT id, email, name, role, plan, password_hash IS NOT NULL AS has_password, external_issuer, deactivated_at,
       deactivated_at IS NOT NULL AS deactivated, created_at, updated_at, created_at::text AS position
  FROM users
 WHERE (%(role)s::text IS NULL OR role = %(role)s::text)
   AND (%(text)s::text IS NULL OR strpos(lower(email), lower(%(text)s::text)) > 0
        OR strpos(lower(name), lower(%(text)s::text)) > 0)
   AND (%(before_id)s::uuid IS NULL
        OR (created_at, id) < (%(before_created)s::timestamptz, %(before_id)s::uuid))
 ORDER BY created_at DESC, id DESC
 LIMIT %(page_size)s
