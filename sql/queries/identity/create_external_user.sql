-- An account for a person whom an external issuer knows, at first sight; no row where the address has an account (also
-- one of before addresses were normalised by NFKC) or can't be stored, or where another request was faster. It violates
-- no constraint: the server's log would quote the row. Parameters: issuer, subject, email (its normal form), name.
-- Private: email, name.
INSERT INTO users (email, name, external_issuer, external_subject)
SELECT %(email)s::text, %(name)s::text, %(issuer)s::text, %(subject)s::text
 WHERE %(email)s::text = lower(%(email)s::text) AND length(%(email)s::text) BETWEEN 3 AND 254
   AND NOT EXISTS (SELECT FROM users
                    WHERE email <> lower(normalize(email, NFKC)) AND lower(normalize(email, NFKC)) = %(email)s::text)
    ON CONFLICT DO NOTHING
RETURNING id, email, password_hash, name, role, plan, time_zone, deactivated_at, created_at
