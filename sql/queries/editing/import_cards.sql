-- Merges cards of a file into a deck by their questions: new ones are made, published; changed ones are updated; what
-- the file leaves empty or does not have stays as it is. The deck is locked before: by lock_deck. A large file comes in
-- several calls, each of which looks through the deck once.
-- Parameters: deck_id; is_published, of new cards; keeps_order, whether cards of the deck keep their order instead of
-- getting the file's; first, the position of the first card in the file; cards, a JSON array of objects {question,
-- answer, explanation, category} in the file's order: one long text costs the sender's event loop much less than as
-- many parameters as there are texts.
WITH given AS (
    SELECT question, answer, explanation, category, position + %(first)s::integer - 1 AS sort_order
      FROM ROWS FROM (json_to_recordset(%(cards)s::json)
                      AS (question text, answer text, explanation text, category text))
           WITH ORDINALITY AS g (question, answer, explanation, category, position)
), known AS (
    SELECT DISTINCT ON (question) id, question
      FROM flashcards
     WHERE deck_id = %(deck_id)s AND question IN (SELECT question FROM given)
     ORDER BY question, created_at, id
), updated AS (
    UPDATE flashcards AS f
       SET answer = given.answer, explanation = coalesce(given.explanation, f.explanation),
           category = coalesce(given.category, f.category),
           sort_order = CASE WHEN %(keeps_order)s THEN f.sort_order ELSE given.sort_order END, updated_at = now()
      FROM known JOIN given USING (question)
     WHERE f.id = known.id AND f.deck_id = %(deck_id)s
       AND (f.answer, f.explanation, f.category, f.sort_order) IS DISTINCT FROM
           (given.answer, coalesce(given.explanation, f.explanation), coalesce(given.category, f.category),
            CASE WHEN %(keeps_order)s THEN f.sort_order ELSE given.sort_order END)
    RETURNING f.id
), created AS (
    INSERT INTO flashcards (deck_id, question, answer, explanation, category, sort_order, is_published)
    SELECT %(deck_id)s, question, answer, explanation, category, sort_order, %(is_published)s
      FROM given
     WHERE NOT EXISTS (SELECT FROM known WHERE known.question = given.question)
    RETURNING id
)
SELECT (SELECT count(*) FROM created) AS created,
       (SELECT count(*) FROM updated) AS updated,
       (SELECT count(*) FROM given) - (SELECT count(*) FROM created) - (SELECT count(*) FROM updated) AS unchanged
