-- Every admin who can sign in, locked until the transaction ends: of two changes that each leave one admin, the second
-- sees what the first has done.
SELECT id
  FROM users
 WHERE role = 'admin' AND deactivated_at IS NULL
 ORDER BY created_at DESC, id DESC
   FOR NO KEY UPDATE
