-- Finds a deck of a class by its name, or makes it; what is not null replaces what was there.
-- `is_changed` says whether that made a difference. Parameters: class_id, name, description, sort_order,
-- is_published (of a new one).
WITH known AS (
    SELECT id FROM decks WHERE class_id = %(class_id)s AND name = %(name)s ORDER BY created_at, id LIMIT 1
), updated AS (
    UPDATE decks AS d
       SET description = coalesce(%(description)s, d.description),
           sort_order = coalesce(%(sort_order)s, d.sort_order), updated_at = now()
      FROM known
     WHERE d.id = known.id
       AND (d.description, d.sort_order) IS DISTINCT FROM
           (coalesce(%(description)s, d.description), coalesce(%(sort_order)s, d.sort_order))
    RETURNING d.id
), created AS (
    INSERT INTO decks (class_id, name, description, sort_order, is_published)
    SELECT %(class_id)s, %(name)s, %(description)s, coalesce(%(sort_order)s, 0), %(is_published)s
     WHERE NOT EXISTS (SELECT FROM known)
    RETURNING id
)
SELECT id, EXISTS (SELECT FROM updated) AS is_changed FROM known UNION ALL SELECT id, true FROM created
