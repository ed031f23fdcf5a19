-- Spaced repetition by FSRS, for the classes that are set to it. The log of reviews is the truth, whatever the class is
-- set to; a memory state is what FSRS makes of a card's log. So a class may change its scheduler at any time.
ALTER TABLE classes
    ADD COLUMN scheduler text NOT NULL DEFAULT 'fixed',
    ADD CONSTRAINT classes_scheduler_known CHECK (scheduler IN ('fixed', 'fsrs'));

-- One row a rating, in every class.
CREATE TABLE review_log (
    id                bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    user_id           uuid NOT NULL REFERENCES users ON DELETE CASCADE,
    flashcard_id      uuid NOT NULL REFERENCES flashcards ON DELETE CASCADE,
    confidence_level  smallint NOT NULL,
    response_time_ms  integer,
    rated_at          timestamptz NOT NULL,
    CONSTRAINT review_log_confidence_range CHECK (confidence_level BETWEEN 1 AND 5),
    CONSTRAINT review_log_response_time_positive CHECK (response_time_ms >= 0)
);
-- What is known of the time before there was a log: each card's newest rating.
INSERT INTO review_log (user_id, flashcard_id, confidence_level, rated_at)
SELECT user_id, flashcard_id, confidence_level, last_seen_at FROM user_card_progress;
-- Serves list_reviews and list_memory_states: one user's reviews of a card, oldest first.
CREATE INDEX idx_review_log_user_flashcard ON review_log (user_id, flashcard_id, rated_at, id);
-- Serves the deletion of a card.
CREATE INDEX idx_review_log_flashcard ON review_log (flashcard_id);

-- One row a user and card, made by the first rating while the card's class is set to FSRS.
CREATE TABLE memory_states (
    user_id         uuid NOT NULL REFERENCES users ON DELETE CASCADE,
    flashcard_id    uuid NOT NULL REFERENCES flashcards ON DELETE CASCADE,
    -- Days until the probability of recall has fallen to 90 %.
    stability       double precision NOT NULL,
    -- 1 (easy) to 10.
    difficulty      double precision NOT NULL,
    -- learning -> review, review <-> relearning.
    state           text NOT NULL,
    -- Which of the short (re)learning steps comes next; null in review.
    step            smallint,
    due_at          timestamptz NOT NULL,
    last_review_at  timestamptz NOT NULL,
    -- How many rows of review_log it was made of; if there are more by now, they are still to be taken in.
    reviews         integer NOT NULL,
    PRIMARY KEY (user_id, flashcard_id),
    CONSTRAINT memory_states_stability_positive CHECK (stability > 0),
    CONSTRAINT memory_states_difficulty_range CHECK (difficulty BETWEEN 1 AND 10),
    CONSTRAINT memory_states_state_known CHECK (state IN ('learning', 'review', 'relearning')),
    CONSTRAINT memory_states_step_fits_state CHECK ((step IS NULL) = (state = 'review')),
    CONSTRAINT memory_states_due_after_review CHECK (due_at >= last_review_at),
    CONSTRAINT memory_states_reviews_positive CHECK (reviews >= 1)
);
-- Serves the deletion of a card.
CREATE INDEX idx_memory_states_flashcard ON memory_states (flashcard_id);
