-- Every class, drafts included.
SELECT id FROM classes
