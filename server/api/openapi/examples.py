"""An example of each body that clients send. A test sends them all, with ids and tokens of its own."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

_CARD = "7b1f4a52-0c1e-4f4e-9d3a-5a8f3f1c2b60"
_DECK = "2f0f0a1e-6f0b-4a53-8b0f-0d9f4c7f6a11"
_CLASS = "b3a7a1d2-52c4-4f0e-8a57-3f3f7d0b9c22"
_SESSION = "e1c9d6b4-77b1-4d0c-9a6e-1b2c3d4e5f60"
_PASSWORD = "correct horse battery"  # noqa: S105 - an example

# By the names of the schemas.
EXAMPLES: Mapping[str, dict[str, Any]] = MappingProxyType(
    {
        "RegisterRequest": {"email": "ada@example.com", "password": _PASSWORD, "name": "Ada"},
        "LoginRequest": {"email": "ada@example.com", "password": _PASSWORD},
        "RefreshRequest": {"refreshToken": "a refresh token of a login"},
        "ProfileChanges": {"name": "Ada", "timeZone": "Europe/Berlin"},
        "SessionRequest": {"deckIds": [_DECK]},
        "RatingRequest": {"confidenceLevel": 4, "sessionId": _SESSION, "responseTime": 1500},
        "RatingsRequest": {
            "ratings": [
                {"flashcardId": _CARD, "confidenceLevel": 2, "ratedAt": "2026-03-02T08:15:00+01:00"},
                {"flashcardId": _CARD, "confidenceLevel": 5},
            ]
        },
        "ClassRequest": {"name": "Asset Security", "description": "What is worth protecting.", "order": 2},
        "ClassChanges": {"isPublished": True, "scheduler": "fsrs"},
        "DeckRequest": {"classId": _CLASS, "name": "Data Lifecycle", "order": 1},
        "DeckChanges": {"isPublished": True},
        "FlashcardRequest": {
            "deckId": _DECK,
            "question": "What is remanence?",
            "answer": "Data that is left on a medium after it was erased.",
            "category": "storage",
            "isPublished": True,
        },
        "FlashcardChanges": {"explanation": "Overwriting, degaussing and destruction remove it."},
        "OverrideRequest": {"limit": 500, "seconds": 3600},
        "AccountChangesRequest": {"plan": "team"},
        "ResetRequest": {"token": "a one-time token", "newPassword": f"{_PASSWORD} staple"},
        "PasswordRequest": {"currentPassword": _PASSWORD, "newPassword": f"{_PASSWORD} staple"},
        "DeletionRequest": {"password": _PASSWORD},
        "FileCard": {"question": "What is remanence?", "answer": "What is left.", "category": "storage"},
    }
)
