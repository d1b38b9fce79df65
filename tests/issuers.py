"""Other issuers, as the gateway sees them: keys made for the run, the file they are published in, and what they sign."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from jwt.algorithms import HMACAlgorithm, OKPAlgorithm, RSAAlgorithm

from tests.test_tokens import claims

ISSUER = "https://id.example.com"
HMAC_SECRET = b"a secret of another issuer, long enough to be one"
Jwk = dict[str, Any]


@cache
def rsa_key(number: int, bits: int = 2048) -> RSAPrivateKey:
    """Each number a key of its own, made once."""
    return generate_private_key(65537, bits)


@cache
def ed25519_key(number: int) -> Ed25519PrivateKey:
    return Ed25519PrivateKey.generate()


def rsa_jwk(kid: str = "rsa", number: int = 1, **changes: Any) -> Jwk:
    return _jwk(RSAAlgorithm.to_jwk(rsa_key(number).public_key(), as_dict=True), kid, "RS256", changes)


def ed25519_jwk(kid: str = "ed", number: int = 1, **changes: Any) -> Jwk:
    return _jwk(OKPAlgorithm.to_jwk(ed25519_key(number).public_key(), as_dict=True), kid, "EdDSA", changes)


def hmac_jwk(kid: str = "hmac", secret: bytes = HMAC_SECRET, **changes: Any) -> Jwk:
    return _jwk(HMACAlgorithm.to_jwk(secret, as_dict=True), kid, "HS256", changes)


def _jwk(members: Any, kid: str, algorithm: str, changes: Jwk) -> Jwk:
    whole = {**members, "kid": kid, "alg": algorithm, "iss": ISSUER, **changes}
    return {name: value for name, value in whole.items() if value is not None}


def publish(path: Path, *keys: Jwk) -> str:
    """Writes the file; the name as a setting takes it."""
    path.write_text(json.dumps({"keys": keys}))
    return str(path)


def foreign_claims(manager_id: int = 10, **changes: Any) -> dict[str, Any]:
    """What a good token of the issuer says; None leaves a claim out."""
    return claims(manager_id, **{"iss": ISSUER, **changes})


def by_rsa(what: dict[str, Any], kid: str | None = "rsa", number: int = 1) -> str:
    return jwt.encode(what, rsa_key(number), "RS256", {"kid": kid} if kid else None)


def by_ed25519(what: dict[str, Any], kid: str | None = "ed", number: int = 1) -> str:
    return jwt.encode(what, ed25519_key(number), "EdDSA", {"kid": kid} if kid else None)


def by_hmac(what: dict[str, Any], kid: str | None = "hmac", secret: bytes = HMAC_SECRET) -> str:
    return jwt.encode(what, secret, "HS256", {"kid": kid} if kid else None)
