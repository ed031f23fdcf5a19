-- Locks the figures of everybody who has rated one of these cards, in one order, as lock_user_stats does for one:
-- how many that is. Parameters: flashcard_ids.
SELECT count(*) AS students
  FROM (SELECT s.user_id
          FROM user_stats AS s
         WHERE s.user_id IN (SELECT p.user_id
                               FROM user_card_progress AS p
                              WHERE p.flashcard_id = ANY(%(flashcard_ids)s::uuid[]))
         ORDER BY s.user_id
           FOR UPDATE OF s) AS locked
