-- Writes a locked class anew. Parameters: class_id; name, description, icon, color, sort_order, is_published, scheduler.
UPDATE classes
   SET name = %(name)s, description = %(description)s, icon = %(icon)s, color = %(color)s,
       sort_order = %(sort_order)s, is_published = %(is_published)s, scheduler = %(scheduler)s, updated_at = now()
 WHERE id = %(class_id)s
RETURNING id, name, description, icon, color, sort_order, is_published, scheduler, created_at, updated_at
