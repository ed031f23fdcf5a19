-- An account for a person whom an external issuer knows, at first sight; violates users_email_unique where the address
-- has an account, users_external_identity_unique where another request was faster; makes none where another spelling of
-- the address was taken before addresses were normalised by NFKC. Parameters: issuer, subject, email (its normal form),
-- name.
INSERT INTO users (email, name, external_issuer, external_subject)
SELECT %(email)s::text, %(name)s::text, %(issuer)s::text, %(subject)s::text
 WHERE NOT EXISTS (SELECT FROM users
                    WHERE email <> lower(normalize(email, NFKC)) AND lower(normalize(email, NFKC)) = %(email)s::text)
RETURNING id, email, password_hash, name, role, plan, time_zone, deactivated_at, created_at
