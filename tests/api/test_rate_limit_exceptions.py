"""Point 23 in the service: overrides, exemptions, blocks and networks, as administrators and clients see them."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from server.errors import CommandError
from server.net import TrustedProxies
from server.settings import Settings
from tests.api.admin.test_audit import audits
from tests.api.conftest import Api, StartApi
from tests.cli.commands import limits_command

READS = "/api/stats"


@pytest.fixture
async def strict(settings: Settings, start_api: StartApi, strict_limits: Path) -> Api:
    """The service with the limits that it ships with."""
    return await start_api(replace(settings, rate_limits_file=strict_limits))


def path_of(api: Api, policy: str | None = None) -> str:
    """Where an administrator sees a student's limits, or changes what holds under a policy."""
    path = f"/api/admin/rate-limits/user:{api.people['user'].user_id}"
    return path if policy is None else f"{path}/overrides/{policy}"


async def shown(api: Api) -> dict[str, Any]:
    """What an administrator sees of a student's limits."""
    state: dict[str, Any] = await (await api.get(path_of(api), by="admin")).json()
    return state


async def test_point_23_an_override_is_in_force_shown_and_an_audit_event(strict: Api) -> None:
    """A student's next request has the other limit; the peek says so, and until when; each write leaves a line."""
    assert "100" == (await strict.get(READS)).headers["X-RateLimit-Limit"]
    with capture_logs() as lines:
        answer = await strict.put(path_of(strict, "generous"), by="admin", json={"limit": 7, "seconds": 600})
        changed = await answer.json()
    assert (200, "generous", 7, "operator") == (
        answer.status, changed["policy"], changed["limit"], changed["source"]
    )  # fmt: skip
    response = await strict.get(READS)
    assert ("7", "5") == tuple(response.headers[f"X-RateLimit-{name}"] for name in ("Limit", "Remaining"))

    state = await shown(strict)
    assert [("generous", 7, "operator")] == [
        (one["policy"], one["limit"], one["source"]) for one in state["overrides"]
    ]
    assert {7} == {policy["limit"] for policy in state["policies"] if policy["policy"] == "generous"}
    with capture_logs() as more:
        assert 204 == (await strict.delete(path_of(strict, "generous"), by="admin")).status
    assert "100" == (await strict.get(READS)).headers["X-RateLimit-Limit"]
    subject, admin_id = f"user:{strict.people['user'].user_id}", str(strict.people["admin"].user_id)
    common = {"subject": subject, "policy": "generous", "admin_id": admin_id}
    assert [
        {"event": "audit.rate_limit_overridden", **common, "limit": 7, "seconds": 600},
        {"event": "audit.rate_limit_override_ended", **common},
    ] == audits([*lines, *more])


async def test_point_23_an_exemption_ends_a_block_and_a_block_an_exemption(strict: Api) -> None:
    """What was decided last holds; the peek names the block and its end."""
    subject = f"user:{strict.people['user'].user_id}"
    await strict.services.limiter.block(subject, duration_ms=60_000)
    assert 429 == (await strict.get(READS)).status
    block = (await shown(strict))["block"]
    assert block["network"] is None
    assert block["endsAt"] is not None

    await strict.put(path_of(strict, "*"), by="admin", json={"limit": None, "seconds": 600})
    response = await strict.get(READS)
    assert (200, False) == (response.status, "X-RateLimit-Limit" in response.headers)
    assert (None, [("*", None)]) == (
        (state := await shown(strict))["block"],
        [(one["policy"], one["limit"]) for one in state["overrides"]],
    )
    await strict.services.limiter.block(subject, duration_ms=60_000)
    assert 429 == (await strict.get(READS)).status
    assert [] == (await shown(strict))["overrides"]


@pytest.mark.parametrize(
    ("policy", "body", "field"),
    [
        ("generous", {"limit": 0, "seconds": 1}, "limit"),
        ("generous", {"limit": "5", "seconds": 1}, "limit"),
        ("generous", {"seconds": 1}, "limit"),
        ("generous", {"limit": 5, "seconds": 0}, "seconds"),
        ("generous", {"limit": 5, "seconds": 366 * 86_400 + 1}, "seconds"),
        ("generous", {"limit": 5, "seconds": 1, "until": "x"}, "until"),
        ("*", {"limit": 5, "seconds": 1}, "limit"),
        ("auth", {"limit": 5, "seconds": 1}, "policy"),
        ("nothing", {"limit": 5, "seconds": 1}, "policy"),
    ],
)
async def test_point_23_an_override_that_can_not_be_meant_is_400(
    strict: Api, policy: str, body: dict[str, Any], field: str
) -> None:
    """With the field: a limit, a time, a policy that counts this client."""
    refused = await strict.put(path_of(strict, policy), by="admin", json=body)
    assert (400, field) == (refused.status, (await refused.json())["errors"][0]["field"])


@pytest.fixture
def with_networks(strict_limits: Path, tmp_path: Path) -> Path:
    """A rate limits file with networks."""
    file = tmp_path / "limits.toml"
    lists = "[networks]\nallow = ['198.51.100.0/24']\nblock = ['203.0.113.0/24']\n"
    file.write_text(f"{strict_limits.read_text()}\n{lists}")
    return file


async def test_point_23_listed_networks_are_refused_or_not_limited(
    settings: Settings, start_api: StartApi, with_networks: Path
) -> None:
    """403 from a blocked one, signed in or not, and no limits in an allowed one; the peek names the network."""
    api = await start_api(
        replace(settings, rate_limits_file=with_networks, trusted_proxies=TrustedProxies.parse("1"))
    )

    async def get(address: str, by: str | None = "user") -> Any:
        return await api.get(READS, by=by, headers={"X-Forwarded-For": address})

    for by in ("user", None):
        blocked = await get("203.0.113.9", by)
        assert (403, "network_blocked") == (blocked.status, (await blocked.json())["code"])
    health = await api.get("/api/health", headers={"X-Forwarded-For": "203.0.113.9"})
    assert 200 == health.status
    allowed, other = await get("198.51.100.9"), await get("192.0.2.1")
    assert [(200, False), (200, True)] == [
        (one.status, "X-RateLimit-Limit" in one.headers) for one in (allowed, other)
    ]
    for address, expected in (
        ("203.0.113.9", ("203.0.113.0/24", None)),
        ("198.51.100.1", (None, "198.51.100.0/24")),
    ):
        state = await (await api.get(f"/api/admin/rate-limits/ip:{address}", by="admin")).json()
        assert expected == ((state["block"] or {}).get("network"), state["allowedNetwork"])
    metrics = await (await api.get("/api/metrics", by=None)).text()
    assert 'rate_limit_decisions_total{outcome="denied",policy="generous",source="block-list"} 2.0' in metrics


async def test_point_23_the_command_line_overrides_exempts_and_names_a_block(strict: Api) -> None:
    """`limits override`, `exempt`, `restore` and `show`, each write an audit event of the command line."""
    limits = partial(limits_command, strict.services.settings)
    subject = f"user:{strict.people['user'].user_id}"
    with capture_logs() as lines:
        answer = await limits("override", subject, "--policy=api", "--limit=5000", "--seconds=600")
        assert "a limit of 5000 under api for 600 s" in answer
        assert "api: 5000 until 20" in await limits("show", subject)
        await limits("exempt", subject, "--seconds=600")
        assert "every policy: not limited until 20" in await limits("show", subject)
        assert "(2 overrides ended)" in await limits("restore", subject)
        await limits("block", subject, "--seconds=600")
        first, *_ = (await limits("show", subject)).splitlines()
        assert first.startswith("blocked until 20")
    assert [
        "audit.rate_limit_overridden", "audit.rate_limit_overridden", "audit.rate_limit_override_ended",
        "audit.rate_limits_blocked",
    ] == [line["event"] for line in audits(lines)]  # fmt: skip
    with pytest.raises(CommandError, match="no policy auth counts user:"):
        await limits("override", subject, "--policy=auth", "--limit=1", "--seconds=1")
