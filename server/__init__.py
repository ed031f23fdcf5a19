"""Mastery: the backend of a flashcard study service."""
