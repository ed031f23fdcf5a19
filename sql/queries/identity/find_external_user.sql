-- The account of a person whom an external issuer knows. Parameters: issuer, subject.
SELECT id, email, password_hash, name, role, plan, time_zone, deactivated_at, created_at
  FROM users
 WHERE external_issuer = %(issuer)s AND external_subject = %(subject)s
