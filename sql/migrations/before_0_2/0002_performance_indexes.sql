-- The indexes of the request path, each with the queries of sql/queries/ that it serves.

-- record_ratings (its conflict target), get_card_progress, and each overlay: is this card in this user's progress?
CREATE UNIQUE INDEX idx_user_card_progress_user_flashcard ON user_card_progress (user_id, flashcard_id);
-- count_mastery: the exact recount of one user's cards by mastery, from the index alone.
CREATE INDEX idx_user_card_progress_mastery ON user_card_progress (user_id, mastery_status);

-- list_class_decks, list_published_classes: how many published cards has a deck? From the index alone.
CREATE INDEX idx_flashcards_deck_published ON flashcards (deck_id, is_published);
-- list_deck_cards: a deck's cards in their order, without a sort.
CREATE INDEX idx_flashcards_deck_order ON flashcards (deck_id, sort_order, id);

-- list_published_classes: a class's published decks.
CREATE INDEX idx_decks_class_published ON decks (class_id, is_published);
-- list_class_decks: a class's decks in their order.
CREATE INDEX idx_decks_class_order ON decks (class_id, sort_order, name);

-- list_deck_sessions: a user's sessions of one deck.
CREATE INDEX idx_study_sessions_user_deck ON study_session_decks (user_id, deck_id, session_id);
-- list_sessions: a user's sessions, newest first.
CREATE INDEX idx_study_sessions_user_started ON study_sessions (user_id, started_at DESC, id DESC);
