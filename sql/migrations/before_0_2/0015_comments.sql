-- What each table, index, function and trigger is for, in the database itself: psql shows it (\d+), and sql/schema.sql is
-- made from it.

COMMENT ON TABLE schema_migrations IS 'The migrations that this database has; written by migrate alone.';

COMMENT ON TABLE users IS 'Accounts.';
COMMENT ON COLUMN users.email IS 'In its normal form (server/email_addresses.py).';
COMMENT ON COLUMN users.password_hash IS 'Argon2. Null for people who only ever sign in with an external issuer.';
COMMENT ON COLUMN users.plan IS 'Selects the limits of config/ratelimits.toml; null is everybody''s plan.';
COMMENT ON COLUMN users.time_zone IS 'IANA name; the day of a study streak begins at midnight there.';
COMMENT ON INDEX idx_users_created IS 'Serves list_accounts: newest first.';
COMMENT ON INDEX idx_users_admins IS 'Serves list_accounts of the admins, and lock_admins.';
COMMENT ON INDEX idx_users_email_before_nfkc IS
    'Serves find_user_by_email, create_user and create_external_user: the few addresses that were stored before '
    'addresses were normalised by NFKC, by their normal form.';

COMMENT ON TABLE refresh_tokens IS 'Refresh tokens, one row each. All that descend from one sign-in are a family.';
COMMENT ON COLUMN refresh_tokens.family_id IS 'The reuse of a token that was exchanged already ends its family.';
COMMENT ON COLUMN refresh_tokens.token_hash IS 'SHA-256 of the token: a stolen table opens no account.';
COMMENT ON COLUMN refresh_tokens.used_at IS 'When it was exchanged for its successor.';
COMMENT ON COLUMN refresh_tokens.used_again_at IS
    'When it was exchanged for the second time: two tabs of a browser may do so at once.';
COMMENT ON INDEX idx_refresh_tokens_family IS 'Serves revoke_token_family.';
COMMENT ON INDEX idx_refresh_tokens_user IS 'Serves end_sign_ins, and the deletion of a user.';
COMMENT ON INDEX idx_refresh_tokens_expires IS
    'Serves add_refresh_token, which deletes the oldest expired tokens of anybody.';

COMMENT ON TABLE password_resets IS 'One-time tokens that allow a new password to be set, at most one an account.';
COMMENT ON COLUMN password_resets.token_hash IS 'SHA-256 of the token: a stolen table opens no account.';

COMMENT ON TABLE idempotency_keys IS
    'The answers of writes, kept in the transaction of their effect: the same request with the same '
    'Idempotency-Key gets the same answer and changes nothing. A write that failed leaves no row.';
COMMENT ON COLUMN idempotency_keys.fingerprint IS
    'SHA-256 of the request: the same key on another request is a client''s mistake.';
COMMENT ON COLUMN idempotency_keys.status IS
    'Null only inside the transaction that does the write, so that no other transaction sees it null.';
COMMENT ON COLUMN idempotency_keys.stale IS
    'The cache keys that the write made stale. A repeated request invalidates them again: a worker may have died '
    'between its commit and the invalidation.';
COMMENT ON CONSTRAINT idempotency_keys_pkey ON idempotency_keys IS
    'Makes the second of two simultaneous requests wait for the first.';
COMMENT ON INDEX idx_idempotency_keys_created IS
    'Serves claim_idempotency_key, which deletes the oldest expired keys of anybody.';

COMMENT ON TABLE classes IS 'Courses: classes hold decks, decks hold cards.';
COMMENT ON COLUMN classes.scheduler IS
    'How the next review of a card is chosen. It may change at any time: review_log is kept whichever it is.';

COMMENT ON TABLE decks IS 'The decks of a class.';
COMMENT ON INDEX idx_decks_class_published IS 'Serves list_published_classes: the published decks of a class.';
COMMENT ON INDEX idx_decks_class_order IS
    'Serves list_class_decks and list_decks: the decks of a class in their order.';

COMMENT ON TABLE flashcards IS 'The cards of a deck.';
COMMENT ON COLUMN flashcards.category IS
    'Comma-separated tags of an imported file; kept so that nothing of it is lost.';
COMMENT ON CONSTRAINT flashcards_id_deck_unique ON flashcards IS 'The target of the foreign key of user_card_progress.';
COMMENT ON INDEX idx_flashcards_deck_published IS
    'Serves list_class_decks and list_published_classes: the number of published cards, from the index alone.';
COMMENT ON INDEX idx_flashcards_deck_order IS
    'Serves list_deck_cards and list_flashcards: the cards of a deck in their order, without a sort.';

COMMENT ON TABLE user_card_progress IS
    'One row a user and card, made by the first rating. Its key is idx_user_card_progress_user_flashcard.';
COMMENT ON COLUMN user_card_progress.mastery_status IS
    'new (confidence 1..2), learning (3) or mastered (4..5): each rating decides anew.';
COMMENT ON COLUMN user_card_progress.deck_id IS
    'The deck of the card. The foreign key keeps it true: a card that moves to another deck takes its progress along.';
COMMENT ON INDEX idx_user_card_progress_user_flashcard IS
    'Serves record_ratings (its conflict target), get_card_progress and every overlay: the progress of a user on '
    'a card.';
COMMENT ON INDEX idx_user_card_progress_mastery IS
    'Serves count_mastery: the exact recount of one user''s cards by mastery, from the index alone.';
COMMENT ON INDEX idx_user_card_progress_deck_flashcard IS
    'Serves the deletion of a card, and of all progress on a deck at once.';

COMMENT ON TABLE study_sessions IS 'Study sessions. The figures are counted once, when a session ends.';
COMMENT ON COLUMN study_sessions.ended_at IS 'Null while the session runs; set once, together with the three figures.';
COMMENT ON CONSTRAINT study_sessions_id_user_unique ON study_sessions IS
    'The target of the foreign key of study_session_decks.';
COMMENT ON INDEX idx_study_sessions_user_started IS 'Serves list_sessions: the sessions of a user, newest first.';

COMMENT ON TABLE study_session_decks IS
    'The decks that a session was started for. It has the user, so that one index finds a user''s sessions of a deck.';
COMMENT ON INDEX idx_study_session_decks_deck IS 'Serves the deletion of a deck.';
COMMENT ON INDEX idx_study_sessions_user_deck IS 'Serves list_deck_sessions: a user''s sessions of one deck.';

COMMENT ON TABLE session_cards IS
    'One row a rating that named a session: the source of the session''s figures.';
COMMENT ON INDEX idx_session_cards_session IS 'Serves end_session, which counts the ratings of a session.';
COMMENT ON INDEX idx_session_cards_flashcard IS 'Serves the deletion of a card.';

COMMENT ON TABLE bookmarks IS 'The cards that users have bookmarked.';
COMMENT ON INDEX idx_bookmarks_user_created IS 'Serves list_bookmarks: newest first.';
COMMENT ON INDEX idx_bookmarks_flashcard IS 'Serves the deletion of a card.';

COMMENT ON TABLE review_log IS
    'One row a rating, in every class. What is derived (memory_states, user_active_days, streaks) can be rebuilt '
    'from it.';
COMMENT ON COLUMN review_log.day IS
    'The date where the user was. Null in what a release wrote that did not know it; lapses_at too.';
COMMENT ON COLUMN review_log.lapses_at IS 'As in user_active_days.';
COMMENT ON INDEX idx_review_log_user_flashcard IS
    'Serves list_reviews and list_memory_states: the reviews of a card by one user, oldest first.';
COMMENT ON INDEX idx_review_log_flashcard IS 'Serves the deletion of a card.';

COMMENT ON TABLE memory_states IS
    'What FSRS makes of the log of a card: one row a user and card, made by the first rating while the class is '
    'set to FSRS.';
COMMENT ON COLUMN memory_states.stability IS 'Days until the probability of recall has fallen to 90 %.';
COMMENT ON COLUMN memory_states.difficulty IS '1 (easy) to 10.';
COMMENT ON COLUMN memory_states.state IS 'From learning to review; then review and relearning in turn.';
COMMENT ON COLUMN memory_states.step IS 'Which of the short (re)learning steps comes next; null in review.';
COMMENT ON COLUMN memory_states.reviews IS
    'How many rows of review_log it was made of. If there are more, they are still to be included.';
COMMENT ON INDEX idx_memory_states_flashcard IS 'Serves the deletion of a card.';

COMMENT ON TABLE user_active_days IS
    'The days on which a user studied. A streak follows from them in whatever order they arrive: a device that '
    'was offline brings a day that fills a gap.';
COMMENT ON COLUMN user_active_days.day IS 'The date where the user was.';
COMMENT ON COLUMN user_active_days.first_at IS 'The first rating of that day.';
COMMENT ON COLUMN user_active_days.lapses_at IS
    'Midnight at the end of the day after it, where the user was: a streak that is not continued before reads 0.';

COMMENT ON TABLE user_stats IS
    'The figures of a user, kept exact in the transaction that changes them, so that no page counts rows. Its row '
    'is also locked first by every write of the user: writes happen one after another and can''t deadlock.';
COMMENT ON COLUMN user_stats.study_streak_days IS
    'The length of the last run of active days (user_active_days).';
COMMENT ON COLUMN user_stats.streak_lapses_at IS
    'When the streak reads 0 unless the user studies before: midnight, a day after the last active day. A streak '
    'that ends is not written.';
COMMENT ON COLUMN user_stats.last_active_at IS
    'The ranking needs a value for people who have not studied yet: ''-infinity'' puts them last.';
COMMENT ON INDEX idx_user_stats_recent IS 'Serves list_users_by_recent.';
COMMENT ON INDEX idx_user_stats_studied IS 'Serves list_users_by_studied.';
COMMENT ON INDEX idx_user_stats_streak IS
    'Serves list_users_by_streak: the longest streaks of each moment at which streaks lapse, of which few lie ahead.';

COMMENT ON TABLE user_deck_stats IS
    'How many cards of a deck a user has studied, by mastery, published or not: a row for each deck with such a '
    'card. Publishing, hiding or moving a deck or class writes nothing here: readers subtract the few cards that '
    'are hidden.';
COMMENT ON COLUMN user_deck_stats.deck_id IS
    'No foreign key: it would make every rating lock the row of its deck, and this row goes with its last card.';

COMMENT ON FUNCTION create_user_stats() IS
    'A user has figures from the first moment, so that every later change is an UPDATE of an existing row.';
COMMENT ON FUNCTION count_progress_inserted() IS
    'Counts new progress in user_stats and user_deck_stats. Two rules hold in all three of these functions. Locks '
    'are taken in one order by every transaction: cards, then the users'' rows of user_stats by user_id, then '
    'progress and user_deck_stats; a transaction that holds a row of user_stats may recount that user. And only '
    'plans along an index are allowed, as a session keeps the plan of a statement in a function: made for the '
    'deletion of a large deck it would be a scan, and stay one for the single ratings that follow on the same '
    'connection.';
COMMENT ON FUNCTION count_progress_updated() IS
    'Counts progress that has changed its mastery or its deck. Most ratings leave both as they were, and write '
    'nothing here.';
COMMENT ON FUNCTION count_progress_deleted() IS 'Takes progress that is gone off the counters.';
COMMENT ON FUNCTION find_deck_of_progress() IS
    'Completes progress that names no deck. Locked as the foreign key will lock it: a card that is being moved is '
    'waited for.';
COMMENT ON FUNCTION delete_progress_in_deck() IS
    'Deletes the progress on a deck in one statement, so that the counters of each user are written once and not '
    'once a card; after all of its cards are locked, so that ratings of them have ended or wait.';
COMMENT ON FUNCTION delete_progress_in_class() IS 'The same for all decks of a class.';
COMMENT ON FUNCTION count_published_cards(uuid, uuid[]) IS
    'What a user has of the published cards of some decks, by mastery, rows without cards left out: the counters '
    'of the decks, less the user''s cards that are hidden in them. Asked with every rating (record_activity). A '
    'function, because a session keeps its plan: planning took twice as long as the rest of the statement.';
COMMENT ON FUNCTION keep_streaks() IS
    'Derives the streak from the active days: that of the last run of days. A day belongs to the run of the day '
    'before it if the user studied on it before the streak had lapsed. In one time zone that means the very next '
    'day; for a traveller, that a streak which was shown as living goes on.';
COMMENT ON FUNCTION known_time_zone(text) IS 'A time zone, or UTC for one that this server does not know.';
COMMENT ON FUNCTION find_missing_active_days(uuid, uuid) IS
    'The days that the log of some users has and user_active_days has not, or not from so early or until so late: '
    'for users above an id, up to another. Serves check-counters. A rating without a day belongs to the known day '
    'that it lies in. That ends 24 hours before its streak lapses; where the clocks change, a moment in the hour '
    'that this is wrong by belongs to the day that the time zone of the profile says.';
COMMENT ON FUNCTION note_active_day() IS
    'Notes the day of a rating that names none, as it comes from an older release: the day that this release has '
    'just written into user_stats, or the date in the time zone of the profile. At the end of the transaction, '
    'when a release that knows of user_active_days has written it.';

COMMENT ON TRIGGER users_have_stats ON users IS 'Each account has its row of figures.';
COMMENT ON TRIGGER progress_has_deck ON user_card_progress IS
    'A statement that records a rating need not know the deck.';
COMMENT ON TRIGGER progress_inserted ON user_card_progress IS 'Once a statement, whatever makes the rows.';
COMMENT ON TRIGGER progress_updated ON user_card_progress IS 'Once a statement, also when a card changes its deck.';
COMMENT ON TRIGGER progress_deleted ON user_card_progress IS
    'Once a statement, also when a class takes its cards along.';
COMMENT ON TRIGGER decks_take_progress ON decks IS 'Before the foreign keys would delete the progress card by card.';
COMMENT ON TRIGGER classes_take_progress ON classes IS
    'Before the foreign keys would delete the progress deck by deck.';
COMMENT ON TRIGGER active_days_inserted ON user_active_days IS 'After the first rating of a day.';
COMMENT ON TRIGGER active_days_updated ON user_active_days IS
    'After an earlier rating of a day that is known, or another midnight.';
COMMENT ON TRIGGER reviews_have_days ON review_log IS
    'Only for ratings of older releases: the present one names the day.';
