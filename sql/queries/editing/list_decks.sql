-- A page of decks as administrators see them, drafts included, by class, order, name and id: along
-- idx_decks_class_order. Parameters: class_id, published, text (filters; null for none), after_class_id, after_sort_order,
-- after_name, after_id (the last row of the page before; null for the first page), page_size.
SELECT id, class_id, name, description, sort_order, is_published, created_at, updated_at
  FROM decks
 WHERE (%(class_id)s::uuid IS NULL OR class_id = %(class_id)s::uuid)
   AND (%(published)s::boolean IS NULL OR is_published = %(published)s::boolean)
   AND (%(text)s::text IS NULL OR strpos(lower(name), lower(%(text)s::text)) > 0)
   AND (%(after_id)s::uuid IS NULL
        OR (class_id, sort_order, name, id)
           > (%(after_class_id)s::uuid, %(after_sort_order)s::integer, %(after_name)s::text, %(after_id)s::uuid))
 ORDER BY class_id, sort_order, name, id
 LIMIT %(page_size)s
