"""The main job by the Python client that openapi-python-client generates: nothing of it is written by hand."""

from __future__ import annotations

import os
from io import BytesIO
from typing import TypeVar
from uuid import uuid4

from mastery_client import AuthenticatedClient, Client
from mastery_client.api.administration import (
    admin_classes_create_class,
    admin_classes_update_class,
    admin_decks_create_deck,
    admin_imports_import_deck,
    admin_imports_upload_deck,
    admin_list_users,
)
from mastery_client.api.identity import auth_login, auth_refresh, auth_register
from mastery_client.api.reading import classes_get_class, classes_list_classes, classes_study_class
from mastery_client.api.studying import (
    study_add_bookmark,
    study_end_session,
    study_get_card_progress,
    study_get_due_counts,
    study_get_stats,
    study_list_progress,
    study_rate_card,
    study_rate_cards,
    study_start_session,
)
from mastery_client.models import (
    BatchedRatingRequest,
    ClassChanges,
    ClassRequest,
    DeckRequest,
    ErrorCode,
    FileCard,
    FileForm,
    LoginRequest,
    MasteryStatus,
    Problem,
    RatingRequest,
    RatingsRequest,
    RefreshRequest,
    RegisterRequest,
    SessionRequest,
    StudyMode,
)
from mastery_client.types import File

Answer = TypeVar("Answer")


def given(answer: Answer | Problem | None) -> Answer:
    """The answer of a call that has to succeed."""
    if answer is None or isinstance(answer, Problem):
        raise SystemExit(f"not what was expected: {answer}")
    return answer


address = os.environ["MASTERY"]
with (
    Client(base_url=address) as stranger,
    AuthenticatedClient(base_url=address, token=os.environ["ADMIN"]) as admin,
):
    # An administrator makes a class of two decks, and publishes it.
    made = given(admin_classes_create_class.sync(client=admin, body=ClassRequest(name="Generated")))
    decks = [
        given(
            admin_decks_create_deck.sync(
                client=admin, body=DeckRequest(class_id=made.id, name=name, is_published=True)
            )
        )
        for name in ("One", "Two")
    ]
    for deck in decks:
        cards = [FileCard(question=f"{deck.name} {n}?", answer=str(n), category="numbers") for n in range(2)]
        imported = given(admin_imports_import_deck.sync(deck.id, client=admin, body=cards))
        assert (2, 0) == (imported.created, imported.unchanged)
        # The same and one more from a spreadsheet, uploaded as a form.
        csv = BytesIO(f"Front,Back,Tags\n{deck.name} 0?,0,numbers\n{deck.name} 2?,2,numbers\n".encode())
        form = FileForm(file=File(payload=csv, file_name="more.csv"))
        uploaded = given(admin_imports_upload_deck.sync(deck.id, client=admin, body=form))
        assert (1, 1, "comma") == (uploaded.created, uploaded.unchanged, uploaded.dialect)
    given(admin_classes_update_class.sync(made.id, client=admin, body=ClassChanges(is_published=True)))

    # A student comes.
    email = f"{uuid4()}@example.com"
    account = RegisterRequest(email=email, password="correct horse battery", name="Ada")
    given(auth_register.sync(client=stranger, body=account))
    wrong = auth_login.sync(client=stranger, body=LoginRequest(email=email, password="something else"))
    assert isinstance(wrong, Problem)
    assert wrong.code is ErrorCode.WRONG_CREDENTIALS
    login = LoginRequest(email=email, password=account.password)
    tokens = given(auth_login.sync(client=stranger, body=login))
    tokens = given(
        auth_refresh.sync(client=stranger, body=RefreshRequest(refresh_token=tokens.refresh_token))
    )

    with AuthenticatedClient(base_url=address, token=tokens.access_token) as student:
        classes, cursor = [], None
        while True:
            page = given(
                classes_list_classes.sync(client=student, limit=3, **({"cursor": cursor} if cursor else {}))
            )
            classes += page.classes
            cursor = page.next_cursor
            if cursor is None:
                break
        (found,) = [entry for entry in classes if entry.id == made.id]
        assert 6 == found.card_count
        assert [0, 0] == [
            deck.studied_count for deck in given(classes_get_class.sync(found.id, client=student)).decks
        ]

        # Several decks: a list in the query.
        study = given(
            classes_study_class.sync(
                found.id, client=student, mode=StudyMode.ALL, decks=[deck.id for deck in decks], limit=4
            )
        )
        assert (6, 4, "numbers") == (study.total_cards, len(study.flashcards), study.flashcards[0].category)
        rest = given(
            classes_study_class.sync(
                found.id,
                client=student,
                mode=StudyMode.ALL,
                decks=[deck.id for deck in decks],
                cursor=str(study.next_cursor),
            )
        )
        first, second, *others = [*study.flashcards, *rest.flashcards]
        assert (6, None) == (2 + len(others), rest.next_cursor)

        session = given(
            study_start_session.sync(
                client=student, body=SessionRequest(deck_ids=[deck.id for deck in decks])
            )
        )
        rating = RatingRequest(confidence_level=4, session_id=session.session_id, response_time=1500)
        key = str(uuid4())
        for _ in range(2):  # repeated: counts once
            rated = given(study_rate_card.sync(first.id, client=student, body=rating, idempotency_key=key))
        assert (1, MasteryStatus.MASTERED) == (rated.times_seen, rated.mastery_status)
        batch = [BatchedRatingRequest(flashcard_id=card.id, confidence_level=2) for card in (second, *others)]
        assert 5 == len(
            given(study_rate_cards.sync(client=student, body=RatingsRequest(ratings=batch))).progress
        )
        ended = given(study_end_session.sync(session.session_id, client=student)).session
        assert (1, 4.0) == (ended.cards_studied, ended.average_confidence)

        given(study_add_bookmark.sync(first.id, client=student))
        changes = given(study_list_progress.sync(client=student))
        assert 6 == len(changes.progress)
        assert [] == given(study_list_progress.sync(client=student, since=changes.until)).progress
        assert 0 == given(study_get_due_counts.sync(client=student)).due_cards
        assert 6 == given(study_get_stats.sync(client=student)).total_cards_studied
        assert rated == given(study_get_card_progress.sync(first.id, client=student))
        refused = admin_list_users.sync(client=student)
        assert isinstance(refused, Problem)
        assert refused.code is ErrorCode.FORBIDDEN

    assert email in [user.email for user in given(admin_list_users.sync(client=admin)).users]
