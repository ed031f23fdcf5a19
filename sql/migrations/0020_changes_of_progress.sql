-- When each row of progress last changed, for devices that were offline and ask what is new.

ALTER TABLE user_card_progress ADD COLUMN changed_at timestamptz NOT NULL DEFAULT now();
COMMENT ON COLUMN user_card_progress.changed_at IS
    'When the row was last written. A user''s ratings happen one after another (lock_user_stats), and this is the time '
    'within that lock: in the order of a user''s changes it never falls behind one that was visible before. What was '
    'there before this column counts as changed when the column came. Not indexed: a rating would no longer be an update '
    'in place, and list_changed_progress reads the rows of one user alone.';

CREATE FUNCTION note_progress_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.changed_at := clock_timestamp();
    RETURN NEW;
END
$$;
COMMENT ON FUNCTION note_progress_change() IS
    'By trigger, so that the ratings of every release are noted. clock_timestamp(): now() is the beginning of the '
    'transaction, which may lie before another one that ended first.';

CREATE TRIGGER progress_changes
    BEFORE INSERT OR UPDATE OF confidence_level, mastery_status, times_seen, last_seen_at, next_review_at
    ON user_card_progress FOR EACH ROW EXECUTE FUNCTION note_progress_change();
COMMENT ON TRIGGER progress_changes ON user_card_progress IS
    'Not when a card changes its deck: that is no change of the progress, and is made outside of the user''s lock.';
