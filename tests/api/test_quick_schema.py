"""What a QuickSchema reads in one pass is what marshmallow makes of it, and what it leaves alone too."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from marshmallow import Schema, ValidationError

from server.api.schemas import BatchedRatingSchema, QuickSchema, RatingSchema
from tests.support.properties import examples

ID = "6f1b6c2e-9f0f-4c3f-8f4e-0a1b2c3d4e5f"
VALUES: st.SearchStrategy[Any] = st.one_of(
    st.integers(-2, 7),
    st.sampled_from([
        ID, ID.upper(), ID[1:], f"{{{ID}}}", ID.replace("-", ""), "", "4", None, True, False, 4.0, 4.5, float("nan"),
        86_400_000, 86_400_001, 10**30, -(10**30), [], {}, "2026-01-02T03:04:05Z", "2026-01-02T03:04:05", "soon",
    ]),
)  # fmt: skip
NAMES = (
    "confidenceLevel",
    "confidence_level",
    "sessionId",
    "responseTime",
    "flashcardId",
    "ratedAt",
    "other",
)
# Mostly what is right, with a few changes.
BODIES = st.builds(
    lambda whole, changes, left_out: {k: v for k, v in (whole | changes).items() if k not in left_out},
    st.sampled_from(
        [
            {"confidenceLevel": 4, "responseTime": 2300},
            {"confidenceLevel": 1, "flashcardId": ID, "sessionId": ID},
        ]
    ),
    st.dictionaries(st.sampled_from(NAMES), VALUES, max_size=2),
    st.sets(st.sampled_from(NAMES), max_size=2),
)  # fmt: skip


def outcome(load: Callable[[Any], Any], body: Any) -> tuple[str, str]:
    """What is loaded, or what is wrong, with the types of everything in it."""
    try:
        return "loaded", repr(load(body))
    except ValidationError as error:
        return "refused", repr(error.messages)


@pytest.mark.parametrize(
    "schema", [RatingSchema(), BatchedRatingSchema()], ids=lambda schema: type(schema).__name__
)
@given(body=st.one_of(BODIES, VALUES))
@settings(max_examples=examples(150))
def test_it_loads_what_marshmallow_does(schema: QuickSchema, body: Any) -> None:
    """The same values of the same types, or the same messages."""
    assert outcome(lambda value: Schema.load(schema, value), body) == outcome(schema.load, body)


def test_what_is_plainly_right_does_not_reach_marshmallow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor does a rating without what may be left out."""
    monkeypatch.delattr(Schema, "load")
    schema = RatingSchema()
    rest = {"session_id": None, "response_time_ms": None}
    assert {"confidence_level": 4, **rest} == schema.load({"confidenceLevel": 4})
    assert {"confidence_level": 4, **rest} == schema.load({"confidenceLevel": 4, "sessionId": None})
