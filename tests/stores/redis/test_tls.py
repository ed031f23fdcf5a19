"""TLS: the server's certificate is checked unless the settings say otherwise."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import functools
import ipaddress
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
import uvloop
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from server.development import EmbeddedServer
from tests.support.redis_servers import PATIENT, answers, open_link, refusal
from tests.support.waiting import wait_until


def make_certificate(folder: Path) -> Path:
    """A self-signed certificate for 127.0.0.1 and its key, in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test")])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = folder / "certificate.pem"
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(private + certificate.public_bytes(serialization.Encoding.PEM))
    return path


@contextlib.asynccontextmanager
async def tls_in_front_of(server: EmbeddedServer, certificate: Path) -> AsyncIterator[str]:
    """The address of a TLS terminator before the server, as a `rediss://` URL."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    copies: set[asyncio.Task[None]] = set()

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        redis_reader, redis_writer = await asyncio.open_connection("127.0.0.1", server.port)
        copies.update(
            {
                asyncio.create_task(copy(reader, redis_writer)),
                asyncio.create_task(copy(redis_reader, writer)),
            }
        )

    terminator = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    port = terminator.sockets[0].getsockname()[1]
    try:
        yield server.url.replace("redis://", "rediss://").replace(str(server.port), str(port))
    finally:
        terminator.close()
        if copies:
            await asyncio.wait(copies)


Run = Callable[[Coroutine[Any, Any, None]], None]


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
def test_trusted_certificate(own_redis: EmbeddedServer, tmp_path: Path, run: Run) -> None:
    """With the authority in the URL a TLS connection carries replies big and small."""

    async def use() -> None:
        certificate = make_certificate(tmp_path)
        async with (
            tls_in_front_of(own_redis, certificate) as url,
            open_link(f"{url}?ssl_ca_certs={certificate}", **PATIENT) as link,
        ):
            big = b"x" * 3_000_000
            assert await link.execute("SET", "big", big) == b"OK"
            assert await link.execute("GET", "big") == big
            replies = await asyncio.gather(*(link.execute("ECHO", number) for number in range(200)))
            assert [str(number).encode() for number in range(200)] == replies

    run(use())


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
def test_unknown_authority(own_redis: EmbeddedServer, tmp_path: Path, run: Run) -> None:
    """A self-signed certificate is refused by default, and accepted when told not to verify."""

    async def use() -> None:
        async with tls_in_front_of(own_redis, make_certificate(tmp_path)) as url:
            async with open_link(url) as link:
                assert (await refusal(link.execute("PING"))).reason == "tls"
            async with open_link(url, verify_tls=False) as link:
                await wait_until(functools.partial(answers, link), "it is accepted")

    run(use())


async def test_wrong_name(own_redis: EmbeddedServer, tmp_path: Path) -> None:
    """A trusted certificate for another name is refused."""
    certificate = make_certificate(tmp_path)
    async with tls_in_front_of(own_redis, certificate) as url:
        elsewhere = url.replace("@127.0.0.1", "@localhost")
        async with open_link(f"{elsewhere}?ssl_ca_certs={certificate}") as link:
            assert (await refusal(link.execute("PING"))).reason == "tls"
