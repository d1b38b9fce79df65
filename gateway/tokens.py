"""Tokens: signing the gateway's own, and checking what a client shows, other issuers' tokens included.

Whether a session is still live is not asked here.
"""

from __future__ import annotations

import hashlib
import time
from collections import OrderedDict
from typing import Any

import jwt
from msgspec import Struct

from gateway.fields import INTEGER_MAX
from gateway.issuer_keys import IssuerKey, IssuerKeys
from gateway.settings import Settings

ALGORITHM = "HS256"
TOKEN_CHARS_MAX = 8192
"""A longer one is refused unread; the gateway's own have some 300 characters."""
CLOCK_SKEW_SECONDS = 10
"""How far in the future `iat` and `nbf` may be: gateways' clocks differ, and are set back now and then. `exp` is exact."""
_REQUIRED = ["exp", "iat", "iss", "aud", "sub", "jti"]


class Session(Struct, frozen=True):
    """A proof of identity that was found to be genuine: the session's id (`jti`), its manager, its end (time_t).

    `key` is the other issuer's that signed it; None is the gateway's own.
    """

    id: str
    manager_id: int
    expires_time: int
    key: IssuerKey | None = None


class InvalidTokenError(Exception):
    """A token that proves nothing. The message says why, for the log alone; it never quotes the token."""


class Tokens:
    """Signs with the gateway's own secret; checks with that, or with another issuer's key where a token names one (`kid`).

    Checked ones are remembered by their SHA-256.
    """

    def __init__(self, settings: Settings, issuer_keys: IssuerKeys | None = None) -> None:
        self._secret = settings.token_secret
        self._issuer_keys = issuer_keys or IssuerKeys(Settings())
        self._issuer = settings.token_issuer
        self._audience = settings.token_audience
        self._cache_max = settings.token_cache_max
        self._checked: OrderedDict[bytes, Session] = OrderedDict()

    def sign(self, session: Session) -> str:
        """The token of a session; its row must be stored before anybody is given this."""
        claims = {
            "iss": self._issuer,
            "aud": self._audience,
            "sub": str(session.manager_id),
            "jti": session.id,
            "iat": int(time.time()),
            "exp": session.expires_time,
        }
        return jwt.encode(claims, self._secret, algorithm=ALGORITHM)

    def session_of(self, token: str) -> Session:
        """The session a token proves. Raises InvalidTokenError."""
        if len(token) > TOKEN_CHARS_MAX:
            raise InvalidTokenError("too long")
        digest = hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
        session = self._checked.get(digest)
        if session is None:
            session = self._checked[digest] = self._check(token)
            if len(self._checked) > self._cache_max:
                self._checked.popitem(last=False)
        if session.expires_time <= time.time():
            del self._checked[digest]
            raise InvalidTokenError("expired")
        if session.key is not None and not self._issuer_keys.holds(session.key):
            del self._checked[digest]
            raise InvalidTokenError("its key was removed")
        return session

    def _check(self, token: str) -> Session:
        try:
            key, secret, algorithm = self._key_of(token)
            claims = jwt.decode(
                token,
                secret,
                algorithms=[algorithm],
                issuer=key.issuer if key else self._issuer,
                audience=self._audience,
                options={"require": _REQUIRED},
                leeway=CLOCK_SKEW_SECONDS,
            )
        except (jwt.PyJWTError, ValueError, OverflowError, RecursionError) as error:
            raise InvalidTokenError(type(error).__name__) from None
        return Session(_jti(claims), _manager_id(claims), min(int(claims["exp"]), INTEGER_MAX), key)

    def _key_of(self, token: str) -> tuple[IssuerKey | None, jwt.PyJWK | str, str]:
        """The key that a token must be signed with, and its one algorithm: what the token says of that is not asked."""
        kid = jwt.get_unverified_header(token).get("kid")
        if kid is None:
            return None, self._secret, ALGORITHM
        found = self._issuer_keys.find(kid)
        if found is None:
            raise InvalidTokenError("no such key")
        return *found, found[1].algorithm_name


def _jti(claims: dict[str, Any]) -> str:
    jti = claims["jti"]
    if not isinstance(jti, str) or not 1 <= len(jti) <= 256 or not jti.isprintable():
        raise InvalidTokenError("jti is no identifier")
    return jti


def _manager_id(claims: dict[str, Any]) -> int:
    sub = claims["sub"]
    if not isinstance(sub, str) or not (sub.isascii() and sub.isdecimal()) or len(sub) > 16:
        raise InvalidTokenError("sub is no manager id")
    manager_id = int(sub)
    if not 1 <= manager_id <= INTEGER_MAX:
        raise InvalidTokenError("sub is no manager id")
    return manager_id
