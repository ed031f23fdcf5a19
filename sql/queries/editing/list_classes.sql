-- A page of classes as administrators see them, drafts included, by order, name and id. Parameters: published, text
-- (filters; null for none), after_sort_order, after_name, after_id (the last row of the page before; null for the first
-- page), page_size.
SELECT id, name, description, icon, color, sort_order, is_published, scheduler, created_at, updated_at
  FROM classes
 WHERE (%(published)s::boolean IS NULL OR is_published = %(published)s::boolean)
   AND (%(text)s::text IS NULL OR strpos(lower(name), lower(%(text)s::text)) > 0)
   AND (%(after_id)s::uuid IS NULL
        OR (sort_order, name, id) > (%(after_sort_order)s::integer, %(after_name)s::text, %(after_id)s::uuid))
 ORDER BY sort_order, name, id
 LIMIT %(page_size)s
