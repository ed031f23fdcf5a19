-- Ratings become progress: a row for a card seen for the first time, else the row moved on. A rating that is older
-- than the newest one known (an offline device that comes back) counts as seen and changes nothing else. The cards are
-- locked before, by find_rateable_cards.
-- Parameters: user_id and, one entry a card: flashcard_ids, confidence_levels, mastery_statuses, times, seen_ats,
-- review_ats.
INSERT INTO user_card_progress AS p (
       user_id, flashcard_id, deck_id, confidence_level, mastery_status, times_seen, last_seen_at, next_review_at)
SELECT %(user_id)s, r.flashcard_id, f.deck_id, r.confidence_level, r.mastery_status, r.times, r.seen_at, r.review_at
  FROM unnest(%(flashcard_ids)s::uuid[], %(confidence_levels)s::smallint[], %(mastery_statuses)s::text[],
              %(times)s::integer[], %(seen_ats)s::timestamptz[], %(review_ats)s::timestamptz[])
       AS r (flashcard_id, confidence_level, mastery_status, times, seen_at, review_at)
  JOIN flashcards AS f ON f.id = r.flashcard_id
    ON CONFLICT (user_id, flashcard_id) DO UPDATE
   SET times_seen = p.times_seen + excluded.times_seen,
       confidence_level = CASE WHEN excluded.last_seen_at >= p.last_seen_at
                               THEN excluded.confidence_level ELSE p.confidence_level END,
       mastery_status = CASE WHEN excluded.last_seen_at >= p.last_seen_at
                             THEN excluded.mastery_status ELSE p.mastery_status END,
       next_review_at = CASE WHEN excluded.last_seen_at >= p.last_seen_at
                             THEN excluded.next_review_at ELSE p.next_review_at END,
       last_seen_at = greatest(p.last_seen_at, excluded.last_seen_at)
RETURNING flashcard_id, confidence_level, mastery_status, times_seen, last_seen_at, next_review_at
