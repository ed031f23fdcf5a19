-- A page of a user's progress that has changed after a moment, in the order of the changes. Parameters: user_id,
-- after_changed (exclusive, with after_id), after_id (the last row of the page before), page_size.
SELECT describe_progress(p) AS progress, flashcard_id, changed_at
  FROM user_card_progress AS p
 WHERE user_id = %(user_id)s
   AND (changed_at, flashcard_id) > (%(after_changed)s::timestamptz, %(after_id)s::uuid)
 ORDER BY changed_at, flashcard_id
 LIMIT %(page_size)s
