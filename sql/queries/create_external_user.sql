-- An account for a person whom an external issuer knows, at first sight; violates users_email_unique where the address
-- has an account, users_external_identity_unique where another request was faster. Parameters: issuer, subject, email,
-- name.
INSERT INTO users (email, name, external_issuer, external_subject)
VALUES (%(email)s, %(name)s, %(issuer)s, %(subject)s)
RETURNING id, email, password_hash, name, role, plan, time_zone, deactivated_at, created_at
