-- Makes a card. Parameters: deck_id, question, answer, explanation, category, sort_order, is_published.
INSERT INTO flashcards (deck_id, question, answer, explanation, category, sort_order, is_published)
VALUES (%(deck_id)s, %(question)s, %(answer)s, %(explanation)s, %(category)s, %(sort_order)s, %(is_published)s)
RETURNING id, deck_id, question, answer, explanation, category, sort_order, is_published, created_at, updated_at
