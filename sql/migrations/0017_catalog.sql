-- baseline
-- What is studied: classes hold decks, decks hold cards.

CREATE TABLE classes (
    id            uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    name          text NOT NULL,
    description   text,
    icon          text,
    color         text,
    sort_order    integer NOT NULL DEFAULT 0,
    is_published  boolean NOT NULL DEFAULT false,
    created_at    timestamptz NOT NULL DEFAULT now(),
    updated_at    timestamptz NOT NULL DEFAULT now(),
    scheduler     text NOT NULL DEFAULT 'fixed',
    CONSTRAINT classes_name_length CHECK (length(name) BETWEEN 1 AND 255),
    CONSTRAINT classes_description_length CHECK (length(description) <= 2000),
    CONSTRAINT classes_icon_length CHECK (length(icon) <= 64),
    CONSTRAINT classes_color_length CHECK (length(color) <= 32),
    CONSTRAINT classes_sort_order_positive CHECK (sort_order >= 0),
    CONSTRAINT classes_scheduler_known CHECK (scheduler IN ('fixed', 'fsrs'))
);
COMMENT ON TABLE classes IS 'Courses: classes hold decks, decks hold cards.';
COMMENT ON COLUMN classes.scheduler IS
    'How the next review of a card is chosen. It may change at any time: review_log is kept whichever it is.';

CREATE TABLE decks (
    id            uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    class_id      uuid NOT NULL REFERENCES classes ON DELETE CASCADE,
    name          text NOT NULL,
    description   text,
    sort_order    integer NOT NULL DEFAULT 0,
    is_published  boolean NOT NULL DEFAULT false,
    created_at    timestamptz NOT NULL DEFAULT now(),
    updated_at    timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT decks_name_length CHECK (length(name) BETWEEN 1 AND 255),
    CONSTRAINT decks_description_length CHECK (length(description) <= 2000),
    CONSTRAINT decks_sort_order_positive CHECK (sort_order >= 0)
);
CREATE INDEX idx_decks_class_published ON decks (class_id, is_published);
CREATE INDEX idx_decks_class_order ON decks (class_id, sort_order, name);
COMMENT ON TABLE decks IS 'The decks of a class.';
COMMENT ON INDEX idx_decks_class_published IS 'Serves list_published_classes: the published decks of a class.';
COMMENT ON INDEX idx_decks_class_order IS
    'Serves list_class_decks and list_decks: the decks of a class in their order.';

CREATE TABLE flashcards (
    id            uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    deck_id       uuid NOT NULL REFERENCES decks ON DELETE CASCADE,
    question      text NOT NULL,
    answer        text NOT NULL,
    explanation   text,
    category      text,
    sort_order    integer NOT NULL DEFAULT 0,
    is_published  boolean NOT NULL DEFAULT false,
    created_at    timestamptz NOT NULL DEFAULT now(),
    updated_at    timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT flashcards_id_deck_unique UNIQUE (id, deck_id),
    CONSTRAINT flashcards_question_length CHECK (length(question) BETWEEN 1 AND 5000),
    CONSTRAINT flashcards_answer_length CHECK (length(answer) BETWEEN 1 AND 5000),
    CONSTRAINT flashcards_explanation_length CHECK (length(explanation) <= 2000),
    CONSTRAINT flashcards_category_length CHECK (length(category) <= 2000),
    CONSTRAINT flashcards_sort_order_positive CHECK (sort_order >= 0)
);
CREATE INDEX idx_flashcards_deck_published ON flashcards (deck_id, is_published);
CREATE INDEX idx_flashcards_deck_order ON flashcards (deck_id, sort_order, id);
COMMENT ON TABLE flashcards IS 'The cards of a deck.';
COMMENT ON COLUMN flashcards.category IS
    'Comma-separated tags of an imported file; kept so that nothing of it is lost.';
COMMENT ON CONSTRAINT flashcards_id_deck_unique ON flashcards IS 'The target of the foreign key of user_card_progress.';
COMMENT ON INDEX idx_flashcards_deck_published IS
    'Serves list_class_decks and list_published_classes: the number of published cards, from the index alone.';
COMMENT ON INDEX idx_flashcards_deck_order IS
    'Serves list_deck_cards and list_flashcards: the cards of a deck in their order, without a sort.';
