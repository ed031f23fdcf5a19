"""ETag and If-None-Match (RFC 9110, section 13), and what may be stored where."""

from __future__ import annotations

from tests.api.conftest import Api, Course


async def test_a_reader_that_has_it_already_gets_304(api: Api, course: Course) -> None:
    """Weak and strong forms, lists, several lines and the star match; other tags do not."""
    for path in (
        "/api/classes",
        f"/api/classes/{course.classes['Risk']}",
        "/api/stats",
        "/api/bookmarks",
        "/api/auth/me",
    ):
        first = await api.get(path)
        tag = first.headers["ETag"]
        assert tag.startswith('W/"')
        strong = tag.removeprefix("W/")
        for matching in (tag, strong, "*", f'"x", {tag}', f'{tag},W/"y"', f'"x",{strong} , "y"', " * "):
            response = await api.get(path, headers={"If-None-Match": matching})
            assert (304, b"") == (response.status, await response.read()), matching
            assert (tag, first.headers["Cache-Control"], first.headers["Vary"]) == tuple(
                response.headers[name] for name in ("ETag", "Cache-Control", "Vary")
            )
        lines = [("If-None-Match", '"x"'), ("If-None-Match", tag)]
        bearer = ("Authorization", f"Bearer {api.tokens.issue(api.people['user'])}")
        assert 304 == (await api.client.get(path, headers=[bearer, *lines])).status
        for other in ('"x"', 'W/"x"', strong[1:-1], "", '"', f"{strong}x", '"*"'):
            assert 200 == (await api.get(path, headers={"If-None-Match": other})).status, other


async def test_the_tag_changes_with_the_content(api: Api, course: Course) -> None:
    """A rating changes the tag of what shows it, for the reader who rated."""
    path = f"/api/classes/{course.classes['Risk']}"
    tags = [(await api.get(path, by=by)).headers["ETag"] for by in ("user", "other")]
    await api.put(f"/api/progress/cards/{course.cards['r1']}", json={"confidenceLevel": 5})
    after = [(await api.get(path, by=by)).headers["ETag"] for by in ("user", "other")]
    assert (True, False) == (tags[0] != after[0], tags[1] != after[1])


async def test_nothing_of_a_user_is_public(api: Api, course: Course) -> None:
    """Reads are private and checked again each time, writes are not stored, and both vary by the caller."""
    card = course.cards["r1"]
    await api.put(f"/api/progress/cards/{card}", json={"confidenceLevel": 5})
    risk = course.classes["Risk"]
    for path in (
        "/api/classes", f"/api/classes/{risk}", f"/api/classes/{risk}/study", f"/api/progress/class/{risk}",
        f"/api/progress/cards/{card}", f"/api/decks/{course.decks['Law']}/flashcards", "/api/stats",
        "/api/bookmarks", "/api/sessions", "/api/auth/me",
    ):  # fmt: skip
        headers = (await api.get(path)).headers
        assert ("private, no-cache", "Authorization, Accept-Encoding") == (
            headers["Cache-Control"],
            headers["Vary"],
        ), path
    for response in (
        await api.put(f"/api/progress/cards/{card}", json={"confidenceLevel": 5}),
        await api.put(f"/api/bookmarks/{card}"),
        await api.delete(f"/api/bookmarks/{card}"),
        await api.get("/api/admin/analytics/users", by="admin"),
        await api.get("/api/health", by=None),
        await api.get("/api/metrics", by=None),
    ):
        assert "no-store" == response.headers["Cache-Control"]
