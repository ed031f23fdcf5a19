-- A new account; or a row without an id, where the address is taken (also by another spelling, of before addresses were
-- normalised by NFKC), or can't be stored (is_storable says which). It violates no constraint: the server's log would
-- quote the row. Parameters: email (its normal form), password_hash, name.
-- Private: email, name, password_hash.
WITH wanted AS (
    SELECT %(email)s::text AS email, %(email)s::text = lower(%(email)s::text) AS is_storable
), added AS (
    INSERT INTO users (email, password_hash, name)
    SELECT email, %(password_hash)s::text, %(name)s::text
      FROM wanted
     WHERE is_storable
       AND NOT EXISTS (SELECT FROM users
                        WHERE email <> lower(normalize(email, NFKC)) AND lower(normalize(email, NFKC)) = %(email)s::text)
        ON CONFLICT (email) DO NOTHING
    RETURNING id, email, password_hash, name, role, plan, time_zone, deactivated_at, created_at
)
SELECT added.*, wanted.is_storable
  FROM wanted LEFT JOIN added ON true
