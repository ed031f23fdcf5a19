"""The main job, end to end: register, read, study, rate, see progress; the admin sees it too."""

from __future__ import annotations

from tests.api.conftest import Api, Course

EMAIL, PASSWORD = "Ada@Example.com", "correct horse battery"


async def test_a_student_studies_and_the_admin_sees_it(api: Api, course: Course) -> None:
    """From registration to the admin's page, everything that was done shows where it should."""
    registered = await api.post(
        "/api/auth/register", by=None, json={"email": EMAIL, "password": PASSWORD, "name": "Ada"}
    )
    assert 201 == registered.status
    student = await registered.json()
    bearer = {"Authorization": f"Bearer {student['accessToken']}"}
    login = await api.post("/api/auth/login", by=None, json={"email": EMAIL, "password": PASSWORD})
    assert 200 == login.status

    classes = await (await api.get("/api/classes", by=None, headers=bearer)).json()
    class_id = classes["classes"][0]["id"]
    page = await (await api.get(f"/api/classes/{class_id}", by=None, headers=bearer)).json()
    assert [0, 0] == [deck["studiedCount"] for deck in page["decks"]]
    study = await (await api.get(f"/api/classes/{class_id}/study", by=None, headers=bearer)).json()
    assert ["r1", "r2", "r3", "l1", "l2"] == [card["question"].split()[1] for card in study["flashcards"]]

    session = await api.post(
        "/api/sessions", by=None, headers=bearer, json={"deckIds": [str(course.decks["Analysis"])]}
    )
    assert 201 == session.status
    session_id = (await session.json())["sessionId"]
    rated = await api.put(
        f"/api/progress/cards/{study['flashcards'][0]['id']}",
        by=None,
        headers=bearer,
        json={"confidenceLevel": 4, "sessionId": session_id, "responseTime": 1500},
    )
    assert 200 == rated.status
    assert "mastered" == (await rated.json())["masteryStatus"]
    ended = await api.post(f"/api/sessions/{session_id}/end", by=None, headers=bearer)
    assert {"cardsStudied": 1, "averageConfidence": 4.0} == {
        key: (await ended.json())["session"][key] for key in ("cardsStudied", "averageConfidence")
    }

    progress = await (await api.get(f"/api/progress/class/{class_id}", by=None, headers=bearer)).json()
    assert {
        "classId": class_id, "totalCards": 5, "studiedCards": 1, "newCards": 0, "learningCards": 0,
        "masteredCards": 1, "progress": 20,
    } == progress  # fmt: skip
    page = await (await api.get(f"/api/classes/{class_id}", by=None, headers=bearer)).json()
    assert [(1, 33), (0, 0)] == [(deck["studiedCount"], deck["progress"]) for deck in page["decks"]]

    users = await (await api.get("/api/admin/analytics/users", by="admin")).json()
    seen = users["users"][0]
    assert ("ada@example.com", 1, 1, {"new": 0, "learning": 0, "mastered": 1}) == (
        seen["email"], seen["totalCardsStudied"], seen["studyStreakDays"], seen["masteryBreakdown"]
    )  # fmt: skip
    detail = await (await api.get(f"/api/admin/analytics/users/{seen['id']}", by="admin")).json()
    assert [("Risk", 5, 1, 20), ("Assets", 1, 0, 0)] == [
        (entry["className"], entry["totalCards"], entry["studiedCards"], entry["progress"])
        for entry in detail["classes"]
    ]
