"""Keys of other issuers, from the JWKS file that GATEWAY_JWKS_FILE names: each bound to one `kid`, issuer and algorithm."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import jwt
import msgspec
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from msgspec import Meta, Struct

from gateway.errors import StartupError
from gateway.settings import Settings

KEY_TYPES = {"RS256": "RSA", "EdDSA": "OKP", "HS256": "oct"}
"""The algorithms there are, and the one type of key that each takes: no public key can serve as an HMAC secret."""
RSA_BITS_MIN = 2048
"""What NIST and RFC 7518 ask for."""
SECRET_BYTES_MIN = 32
"""As long as HS256's digest; RFC 7518 asks for it."""
NAME_CHARS_MAX = 256

Name = Annotated[str, Meta(min_length=1, max_length=NAME_CHARS_MAX)]


class IssuerKey(NamedTuple):
    """Which key signed a token, without the key: another under the same `kid` has another digest."""

    kid: str
    issuer: str
    sha256: bytes


class Jwk(Struct, frozen=True):
    """One key of the file. `iss` is the gateway's own addition to RFC 7517: the only issuer that the key speaks for."""

    kid: Name
    iss: Name
    alg: Literal["RS256", "EdDSA", "HS256"]
    kty: str
    use: str = "sig"
    key_ops: tuple[str, ...] = ("verify",)
    n: str = ""
    e: str = ""
    crv: str = ""
    x: str = ""
    k: str = ""
    d: str = ""


class _JwkSet(Struct, frozen=True):
    keys: tuple[Jwk, ...]


class IssuerKeys:
    """The keys in force. Raises StartupError when the file is wrong; without a file there are none."""

    def __init__(self, settings: Settings) -> None:
        self._path = settings.jwks_file
        self._own_issuer = settings.token_issuer
        self._keys: dict[str, tuple[IssuerKey, jwt.PyJWK]] = {}
        self.reload()

    def reload(self) -> None:
        """Reads the file anew. Raises StartupError that names the fault; the keys in force then stay."""
        if self._path:
            try:
                self._keys = self._read()
            except OSError as error:
                raise StartupError(f"GATEWAY_JWKS_FILE: cannot read {self._path} ({error.strerror}): name a file.") from None
            except ValueError as error:
                raise StartupError(f"GATEWAY_JWKS_FILE: {self._path} is not usable: {error}. See SECURITY.md.") from None

    def find(self, kid: str) -> tuple[IssuerKey, jwt.PyJWK] | None:
        """The key of that `kid`."""
        return self._keys.get(kid)

    def holds(self, key: IssuerKey) -> bool:
        """Whether the key is still in force: what it signed counts no longer once it is gone."""
        found = self._keys.get(key.kid)
        return found is not None and found[0] == key

    def _read(self) -> dict[str, tuple[IssuerKey, jwt.PyJWK]]:
        """Raises ValueError that says what is wrong with which key, and quotes no key."""
        found: dict[str, tuple[IssuerKey, jwt.PyJWK]] = {}
        for jwk in msgspec.json.decode(Path(self._path).read_bytes(), type=_JwkSet).keys:
            if jwk.kid in found:
                raise ValueError(f"two keys have the kid {jwk.kid!r}: give each its own")
            if fault := self._fault(jwk):
                raise ValueError(f"key {jwk.kid!r}: {fault}")
            found[jwk.kid] = (IssuerKey(jwk.kid, jwk.iss, hashlib.sha256(msgspec.json.encode(jwk)).digest()), _loaded(jwk))
        return found

    def _fault(self, jwk: Jwk) -> str | None:
        """Why the key may not be used."""
        kty = KEY_TYPES[jwk.alg]
        faults = (
            (jwk.kty != kty, f"alg {jwk.alg} needs kty {kty}, it has {jwk.kty[:16]!r}"),
            (jwk.kty == "OKP" and jwk.crv != "Ed25519", "crv must be Ed25519"),
            (bool(jwk.d), "d is the private key, which belongs to the issuer alone: leave it out"),
            (jwk.use != "sig" or "verify" not in jwk.key_ops, "use must be 'sig' and key_ops must have 'verify'"),
            (not jwk.iss.isprintable() or not jwk.kid.isprintable(), "kid and iss must be printable"),
            (
                jwk.iss == self._own_issuer,
                "iss is the gateway's own GATEWAY_TOKEN_ISSUER, whose tokens need a session: name the other issuer",
            ),
        )
        return next((told for wrong, told in faults if wrong), None)


def _loaded(jwk: Jwk) -> jwt.PyJWK:
    members: dict[str, Any] = {name: value for name, value in msgspec.structs.asdict(jwk).items() if value}
    try:
        loaded = jwt.PyJWK(members, jwk.alg)
    except (jwt.PyJWTError, ValueError, TypeError):  # their texts quote the key
        raise ValueError(f"key {jwk.kid!r}: its members do not make a key of kty {jwk.kty}") from None
    if isinstance(loaded.key, RSAPublicKey) and loaded.key.key_size < RSA_BITS_MIN:
        raise ValueError(f"key {jwk.kid!r}: has {loaded.key.key_size} bits, it must have {RSA_BITS_MIN} or more")
    if isinstance(loaded.key, bytes) and len(loaded.key) < SECRET_BYTES_MIN:
        raise ValueError(f"key {jwk.kid!r}: k has {len(loaded.key)} bytes, it must have {SECRET_BYTES_MIN} or more")
    return loaded
