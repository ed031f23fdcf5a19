-- The account with an address: as it is stored today, or as it was before addresses were normalised by NFKC. Of several,
-- the one that was registered with this very spelling. Parameters: email (its normal form), spelling (lower case).
-- Private: email, spelling.
SELECT id, email, password_hash, name, role, plan, time_zone, deactivated_at, created_at
  FROM (SELECT * FROM users WHERE email IN (%(email)s::text, %(spelling)s::text)
        UNION
        SELECT * FROM users
         WHERE email <> lower(normalize(email, NFKC)) AND lower(normalize(email, NFKC)) = %(email)s::text) AS found
 ORDER BY email = %(spelling)s::text DESC, email = %(email)s::text DESC, created_at, id
 LIMIT 1
