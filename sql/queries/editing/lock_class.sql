-- A class that is about to change: until the transaction ends nobody else changes it, and no deck comes in, whose
-- foreign key needs a share of the lock. Parameters: class_id.
SELECT id, name, description, icon, color, sort_order, is_published, scheduler, created_at, updated_at
  FROM classes
 WHERE id = %(class_id)s
   FOR UPDATE
