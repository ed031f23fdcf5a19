"""The wheels: what `pip install .` and `pip install ./packaging/ratelimit` bring works outside the checkout."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import venv
from importlib import metadata
from pathlib import Path

import pytest

from server.development import EmbeddedServer
from tests.support.checkout import ROOT

PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
OFFLINE = ("--no-deps", "--no-index", "--no-build-isolation")


def run(*command: str | Path, cwd: Path, **environment: str) -> str:
    """What a command prints, run somewhere without anything of the checkout in its environment."""
    done = subprocess.run(
        [*map(str, command)],
        cwd=cwd,
        env={"PATH": os.environ["PATH"], **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert 0 == done.returncode, done.stdout + done.stderr
    return done.stdout


def build(source: Path, folder: Path) -> Path:
    """The wheel of a source tree, made by its build backend as pip would."""
    backend = f"from hatchling.build import build_wheel; print(build_wheel({str(folder)!r}))"
    return folder / run(sys.executable, "-c", backend, cwd=source).splitlines()[-1]


def bare_environment(folder: Path, source: Path, *packages: str) -> Path:
    """An environment in which pip has installed a source tree, beside copies of some packages; its Python's path."""
    venv.create(folder, symlinks=True)
    python = folder / "bin" / "python"
    site = Path(
        run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=folder).strip()
    )
    ours = Path(sysconfig.get_path("platlib"))
    for package in packages:
        for part in {file.parts[0] for file in metadata.files(package) or () if file.parts[0] != ".."}:
            if (ours / part).is_dir():
                shutil.copytree(ours / part, site / part)  # with what is compiled of it
    run(*PIP, "wheel", *OFFLINE, "--wheel-dir", folder, source, cwd=folder)
    run(*PIP, "--python", python, "install", *OFFLINE, *folder.glob("*.whl"), cwd=folder)
    return python


@pytest.fixture(scope="module")
def limiter_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment with the limiter's wheel, redis and hiredis, and nothing else."""
    folder = tmp_path_factory.mktemp("limiter")
    return bare_environment(
        folder / "env", build(ROOT / "packaging" / "ratelimit", folder), "redis", "hiredis"
    )


PROGRAM = """
import asyncio, sys
from mastery_ratelimit import Limiter, Policy
import mastery_ratelimit.asgi, mastery_ratelimit.headers

async def main():
    async with Limiter.from_url(sys.argv[1], deadline_ms=5000) as limiter:
        policy = Policy.parse("1/minute")
        print([(await limiter.hit("user:wheel", policy)).source for _ in range(3)])

asyncio.run(main())
assert not [name for name in sys.modules if name.partition(".")[0] in ("server", "structlog", "aiohttp")]
"""


def test_the_limiter_needs_redis_and_hiredis_only(
    limiter_python: Path, shared_redis: EmbeddedServer, tmp_path: Path
) -> None:
    """Installed alone it is complete, typed, and decides on a real Redis."""
    run(*PIP, "--python", limiter_python, "check", cwd=tmp_path)
    assert "['redis', 'redis', 'local-deny']\n" == run(
        limiter_python, "-c", PROGRAM, shared_redis.url, cwd=tmp_path
    )
    located = "import mastery_ratelimit as m, os; print(os.path.dirname(m.__file__))"
    package = Path(run(limiter_python, "-c", located, cwd=tmp_path).strip())
    assert (package / "py.typed").is_file()
    assert (ROOT / "LICENSE").read_text() == (package / "LICENSE").read_text()


def test_a_wheel_of_the_source_distribution_is_the_same(tmp_path: Path) -> None:
    """What is built from the checkout and what is built from a source distribution of it have the same files."""
    folders = [tmp_path / name for name in ("direct", "sdist", "unpacked", "wheel")]
    for folder in folders:
        folder.mkdir()
    direct, sdist, unpacked, from_sdist = folders
    source = ROOT / "packaging" / "ratelimit"
    backend = f"from hatchling.build import build_sdist; print(build_sdist({str(sdist)!r}))"
    name = run(sys.executable, "-c", backend, cwd=source).splitlines()[-1]
    shutil.unpack_archive(sdist / name, unpacked, filter="data")
    [tree] = unpacked.iterdir()
    files = []
    for wheel in (build(source, direct), build(tree, from_sdist)):
        shutil.unpack_archive(wheel, wheel.parent / "content", format="zip")
        content = wheel.parent / "content"
        files.append({p.relative_to(content): p.read_bytes() for p in content.rglob("*.*") if p.is_file()})
    assert files[0] == files[1]
    assert ROOT.joinpath("lua/decide_charges.lua").read_bytes() in files[0].values()


INSTALLED = """
import server.files
from server.cli.migration_files import read_migrations
from server.ratelimit.limits_file import load_rate_limits
from server.settings import Settings
from server.stores.postgres.queries import load_queries
from server.stores.redis.scripts import load_script

assert not server.files.IS_CHECKOUT
load_rate_limits(server.files.ROOT / "config" / "ratelimits.toml")
load_script("decide_charges")
print(len(load_queries()), len(read_migrations()))
"""


def test_the_service_can_be_installed(tmp_path: Path) -> None:
    """Its wheel has the queries, migrations, scripts and configuration, and its command runs anywhere."""
    wheel = build(ROOT, tmp_path)
    site = tmp_path / "site"
    shutil.unpack_archive(wheel, site, format="zip")  # as pip does with a wheel that is pure Python
    program = f"import sys; sys.path.insert(0, {str(site)!r})\n{INSTALLED}"
    queries, migrations = map(int, run(sys.executable, "-c", program, cwd=tmp_path).split())
    assert len([*(ROOT / "sql" / "queries").rglob("*.sql")]) == queries
    assert migrations > 0
    usage = run(sys.executable, "-m", "server", "--help", cwd=tmp_path, PYTHONPATH=str(site))
    assert "serve" in usage


# Runs the Python blocks of a page as one program; `app` and `guarded` are applications that are asked afterwards.
RUN_PAGE = """
import ast, asyncio, json, sys

blocks, namespace = json.loads(sys.argv[1]), {}


async def run():
    for number, block in enumerate(blocks):
        code = compile(block, f"block {number}", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        if (waiting := eval(code, namespace)) is not None:
            await waiting


async def ask_aiohttp(app):
    from aiohttp.test_utils import TestClient, TestServer

    async with TestClient(TestServer(app)) as client:
        answers = [await client.get("/export", headers={"X-User": "page"}) for _ in range(3)]
        assert "100/minute" in answers[0].headers["RateLimit-Policy"]
        return [answer.status for answer in answers]


async def ask_asgi(application):
    sent = []

    async def send(message):
        sent.append(message)

    async with application._limiter:
        await application({"type": "http", "client": ["192.0.2.9", 1]}, None, send)
    return [name.decode() for name, _ in sent[0]["headers"]]


async def main():
    await run()
    print(len(blocks))
    if "app" in namespace:
        print(await ask_aiohttp(namespace["app"]))
    if "guarded" in namespace:
        print(await ask_asgi(namespace["guarded"]))

asyncio.run(main())
"""


def blocks_of(page: str, url: str) -> list[str]:
    """The Python blocks of a page, on the tests' Redis; no busy machine is too late for them."""
    text = (ROOT / page).read_text().replace('("redis://localhost:6379/0")', f'("{url}", deadline_ms=60_000)')
    return re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def test_the_examples_of_the_pages_run(
    limiter_python: Path, shared_redis: EmbeddedServer, tmp_path: Path
) -> None:
    """Every example of the limiter's pages does what it shows, with the wheel; without aiohttp where it needs none."""
    everything = blocks_of("docs/limiter.md", shared_redis.url)
    alone = [block for block in everything if "aiohttp" not in block]
    assert len(everything) - len(alone) == 1
    located = "import mastery_ratelimit as m, os; print(os.path.dirname(m.__path__[0]))"
    site = run(limiter_python, "-c", located, cwd=tmp_path).strip()
    (tmp_path / "only").mkdir()
    (tmp_path / "only" / "mastery_ratelimit").symlink_to(Path(site) / "mastery_ratelimit")
    headers = "['ratelimit-policy', 'ratelimit']"
    printed = run(limiter_python, "-c", RUN_PAGE, json.dumps(alone), cwd=tmp_path).splitlines()
    assert str(len(alone)) == printed[0]
    assert headers[1:-1] in printed[1]
    with_aiohttp = run(
        sys.executable,
        "-c",
        RUN_PAGE,
        json.dumps([block for block in everything if block not in alone]),
        cwd=tmp_path,
        PYTHONPATH=str(tmp_path / "only"),
    )
    assert "[200, 200, 429]" == with_aiohttp.splitlines()[-1]
    for page in ("docs/limiter-migration.md", "packaging/ratelimit/README.md"):
        blocks = blocks_of(page, shared_redis.url)
        program = [
            sys.executable,
            "-c",
            RUN_PAGE.replace("/export", "/search"),
            json.dumps([b.replace("redis://localhost", shared_redis.url) for b in blocks]),
        ]
        assert str(len(blocks)) in run(*program, cwd=tmp_path, PYTHONPATH=str(tmp_path / "only")).splitlines()
