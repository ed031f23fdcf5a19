"""An OpenID Connect issuer that the tests run: it signs tokens, publishes its keys, rotates them, and misbehaves."""

from __future__ import annotations

import hashlib
import hmac
import json
import time
from base64 import urlsafe_b64encode
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any

from aiohttp import web
from aiohttp.test_utils import TestServer
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.hashes import SHA256
from jwt.algorithms import ECAlgorithm, RSAAlgorithm, get_default_algorithms

if TYPE_CHECKING:
    from tests.api.conftest import Api

AUDIENCE = "mastery-tests"
PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey
Publish = Callable[[web.Request, bytes], Awaitable[web.StreamResponse]]


class Issuer:
    """An identity provider.

    Attributes:
        keys: those that it signs with (the first one) and publishes, by key id; an id that begins with "-" is not said.
        extra: further entries of its JWKS document.
        publish_by: how it answers instead, given the request and the document.
        fetches: how often it was asked for its keys.
    """

    def __init__(self) -> None:
        self.keys: dict[str, PrivateKey] = {}
        self.extra: list[Any] = []
        self.publish_by: Publish | None = None
        self.fetches = 0
        self.asked_with: list[Mapping[str, str]] = []
        self.server: TestServer | None = None
        self.rotate("first")

    def rotate(self, key_id: str, key: PrivateKey | None = None) -> None:
        """Sign with a new key from now on, and publish only that."""
        self.keys = {key_id: key or new_key()}

    @property
    def name(self) -> str:
        """What its tokens say as `iss`."""
        assert self.server is not None
        return str(self.server.make_url("/")).rstrip("/")

    def claims(self, subject: str = "user_1", **claims: Any) -> dict[str, Any]:
        """The claims of a token for the service under test; given ones replace or add to the usual, None removes."""
        now = int(time.time())
        usual = {
            "iss": self.name, "aud": AUDIENCE, "sub": subject, "iat": now, "exp": now + 600,
            "email": f"{subject}@example.org", "name": "Grace",
        }  # fmt: skip
        return {name: value for name, value in (usual | claims).items() if value is not None}

    def token(self, subject: str = "user_1", *, algorithm: str = "RS256", **claims: Any) -> str:
        """A token for the service under test; claims as in `claims`."""
        return self.sign(self.claims(subject, **claims), alg=algorithm)

    def sign(self, claims: Any, **header: Any) -> str:
        """A token with any claims and header fields whatever; a header field that is Ellipsis is left out."""
        key_id, key = next(iter(self.keys.items()))
        usual = {"alg": "RS256", "typ": "JWT"} | ({} if key_id.startswith("-") else {"kid": key_id})
        return sign(
            claims, key, {name: value for name, value in (usual | header).items() if value is not ...}
        )

    def document(self) -> bytes:
        """Its JWKS document."""
        published = []
        for key_id, key in self.keys.items():
            entry = public_jwk(key) | {"use": "sig"}
            published.append(entry if key_id.startswith("-") else {**entry, "kid": key_id})
        return json.dumps({"keys": [*self.extra, *published]}).encode()

    async def publish(self, request: web.Request) -> web.StreamResponse:
        """Answer with the JWKS document."""
        self.fetches += 1
        self.asked_with.append(request.headers)
        if self.publish_by is not None:
            return await self.publish_by(request, self.document())
        return web.Response(body=self.document(), content_type="application/json")


def new_key(bits: int = 2048) -> rsa.RSAPrivateKey:
    """A new RSA key."""
    return rsa.generate_private_key(public_exponent=65537, key_size=bits)


def public_jwk(key: PrivateKey) -> dict[str, Any]:
    """The public half of a key as an entry of a JWKS document, without an id."""
    if isinstance(key, rsa.RSAPrivateKey):
        return RSAAlgorithm.to_jwk(key.public_key(), as_dict=True)
    return ECAlgorithm.to_jwk(key.public_key(), as_dict=True)


def sign(claims: Any, key: PrivateKey | str, header: dict[str, Any]) -> str:
    """A token that is signed well, however odd its claims and header are.

    The algorithm is the key's: HS256 for text, RS256 or ES256, whatever the header says.
    """
    signed = ".".join(_encode(json.dumps(part).encode()) for part in (header, claims))
    if isinstance(key, str):
        signature = hmac.digest(key.encode(), signed.encode(), hashlib.sha256)
    elif isinstance(key, rsa.RSAPrivateKey):
        signature = key.sign(signed.encode(), PKCS1v15(), SHA256())
    else:
        signature = get_default_algorithms()["ES256"].sign(signed.encode(), key)
    return f"{signed}.{_encode(signature)}"


def _encode(part: bytes) -> str:
    return urlsafe_b64encode(part).rstrip(b"=").decode()


async def me(api: Api, token: str) -> tuple[int, Any]:
    """Status and user of GET /api/auth/me."""
    response = await api.get("/api/auth/me", by=None, headers={"Authorization": f"Bearer {token}"})
    return response.status, (await response.json()).get("user")
