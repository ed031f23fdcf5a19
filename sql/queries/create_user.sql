-- A new account; violates users_email_unique where the address is taken. Parameters: email, password_hash, name.
INSERT INTO users (email, password_hash, name)
VALUES (%(email)s, %(password_hash)s, %(name)s)
RETURNING id, email, password_hash, name, role, plan, time_zone, deactivated_at, created_at
