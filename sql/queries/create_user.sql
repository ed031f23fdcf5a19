-- A new account; violates users_email_unique where the address is taken, and makes none where another spelling of it was
-- taken before addresses were normalised by NFKC. Parameters: email (its normal form), password_hash, name.
INSERT INTO users (email, password_hash, name)
SELECT %(email)s::text, %(password_hash)s::text, %(name)s::text
 WHERE NOT EXISTS (SELECT FROM users
                    WHERE email <> lower(normalize(email, NFKC)) AND lower(normalize(email, NFKC)) = %(email)s::text)
RETURNING id, email, password_hash, name, role, plan, time_zone, deactivated_at, created_at
