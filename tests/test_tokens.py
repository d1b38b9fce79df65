"""Tokens: which are genuine. Whether the session behind one is live is shown in test_proofs.py."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
import uuid
from collections.abc import Callable
from typing import Any

import pytest

from gateway.tokens import TOKEN_CHARS_MAX, InvalidTokenError, Session, Tokens
from tests import run_log
from tests.conftest import settings_for_tests

KEY = run_log.KEY
DIGESTS = {"HS256": hashlib.sha256, "HS384": hashlib.sha384, "HS512": hashlib.sha512}

Claims = dict[str, Any]
Forge = Callable[[Claims], str]


def claims(manager_id: int = 10, **changes: Any) -> Claims:
    """What a good token says, with changes; None leaves a claim out."""
    now = int(time.time())
    good = {
        "iss": "crm-gateway",
        "aud": "crm-gateway",
        "sub": str(manager_id),
        "jti": str(uuid.uuid4()),
        "iat": now,
        "exp": now + 600,
    }
    return {name: value for name, value in {**good, **changes}.items() if value is not None}


def token_of(what: Any, *, key: str = KEY, header: Any = None, digest: str = "HS256") -> str:
    """A token made by hand: any header, any claims, any key."""
    parts = [json.dumps(part).encode() for part in (header or {"alg": digest, "typ": "JWT"}, what)]
    signed = ".".join(map(_base64, parts))
    return f"{signed}.{_base64(hmac.new(key.encode(), signed.encode(), DIGESTS[digest]).digest())}"


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _with(**changes: Any) -> Forge:
    return lambda good: token_of({name: value for name, value in {**good, **changes}.items() if value is not None})


def _with_other_claims(good: Claims) -> str:
    head, _, signature = token_of(good).split(".")
    return f"{head}.{token_of({**good, 'sub': '11'}).split('.')[1]}.{signature}"


def _unsigned(good: Claims) -> str:
    return token_of(good, header={"alg": "none"}).rpartition(".")[0] + "."


def _other_last_byte(good: Claims) -> str:
    head, body, signature = token_of(good).split(".")
    return f"{head}.{body}.{'B' if signature[0] == 'A' else 'A'}{signature[1:]}"


BAD_TOKENS: dict[str, Forge] = {
    "expired": _with(exp=int(time.time()) - 1),
    "other key": lambda good: token_of(good, key=KEY + "!"),
    "alg none, unsigned": _unsigned,
    "alg none, signed": lambda good: token_of(good, header={"alg": "none"}),
    "alg HS512, right key": lambda good: token_of(good, digest="HS512"),
    "alg HS384, right key": lambda good: token_of(good, digest="HS384"),
    "alg RS256 over HS256": lambda good: token_of(good, header={"alg": "RS256"}),
    "alg in lower case": lambda good: token_of(good, header={"alg": "hs256"}),
    "alg is a list": lambda good: token_of(good, header={"alg": ["HS256"]}),
    "no alg": lambda good: token_of(good, header={"typ": "JWT"}),
    "header is a list": lambda good: token_of(good, header=["HS256"]),
    "unknown critical header": lambda good: token_of(good, header={"alg": "HS256", "crit": ["x"], "x": 1}),
    "other audience": _with(aud="crm-terminal"),
    "other audiences": _with(aud=["crm", "gateway"]),
    "other issuer": _with(iss="crm-gateway-2"),
    "issuer is a list": _with(iss=["crm-gateway"]),
    **{f"no {name}": _with(**{name: None}) for name in ("exp", "iat", "iss", "aud", "sub", "jti")},
    "exp is no number": _with(exp="soon"),
    "exp is infinite": _with(exp=float("inf")),
    "iat is infinite": _with(iat=float("inf")),
    "sub is a number": _with(sub=10),
    "sub is 0": _with(sub="0"),
    "sub is negative": _with(sub="-10"),
    "sub is no decimal": _with(sub="0x0a"),
    "sub is not whole": _with(sub="10.0"),
    "sub has a space": _with(sub=" 10"),
    "sub has a sign": _with(sub="+10"),
    "sub is not ASCII": _with(sub="\u0661\u0660"),
    "sub is empty": _with(sub=""),
    "sub is past 2^53-1": _with(sub=str(2**53)),
    "sub is very long": _with(sub="1" * 5000),
    "jti is a number": _with(jti=7),
    "jti is empty": _with(jti=""),
    "jti is very long": _with(jti="x" * 257),
    "jti has a NUL": _with(jti="a\0b"),
    "tampered claims": _with_other_claims,
    "tampered signature": _other_last_byte,
    "signature cut off": lambda good: token_of(good).rpartition(".")[0] + ".",
    "a fourth part": lambda good: token_of(good) + ".e30",
    "claims are a list": lambda good: token_of([good]),
    "garbage": lambda _: "garbage",
    "three parts of garbage": lambda _: "a.b.c",
    "two dots": lambda _: "..",
    "empty": lambda _: "",
}


def new_tokens(**changes: Any) -> Tokens:
    return Tokens(settings_for_tests(token_secret=KEY, **changes))


def test_tokens_prove_the_session_they_were_signed_for() -> None:
    """A signed token yields its session again."""
    tokens, session = new_tokens(), Session("session-1", 10, int(time.time()) + 60)
    assert session == tokens.session_of(tokens.sign(session))


def test_tokens_made_elsewhere_with_the_key_are_genuine() -> None:
    """The forged tokens below are bad for what was changed, not for how they are made."""
    good = claims()
    assert Session(good["jti"], 10, good["exp"]) == new_tokens().session_of(token_of(good))


@pytest.mark.parametrize("audience", ["crm-gateway", ["terminal", "crm-gateway"]])
def test_tokens_for_several_audiences_are_genuine(audience: object) -> None:
    """`aud` may be a list that holds the gateway's."""
    assert 10 == new_tokens().session_of(token_of(claims(aud=audience))).manager_id


@pytest.mark.parametrize("manager_id", [1, 10, 2**53 - 1])
def test_tokens_take_every_manager_id(manager_id: int) -> None:
    """`sub` goes up to 2^53-1."""
    assert manager_id == new_tokens().session_of(token_of(claims(manager_id))).manager_id


@pytest.mark.parametrize("name", BAD_TOKENS)
def test_tokens_refuse(name: str) -> None:
    """Each bad token is refused, the first time and again, and its text is in no message."""
    tokens, bad = new_tokens(), BAD_TOKENS[name](claims())
    for _ in range(2):
        with pytest.raises(InvalidTokenError) as caught:
            tokens.session_of(bad)
        assert not bad or bad not in str(caught.value)


@pytest.mark.parametrize("text", ["t\xf6ken", "\U0001f600", "\ud83d", "a\0b", "e30.e30.\xe9", " ", "\n"])
def test_tokens_refuse_what_is_no_token_text(text: str) -> None:
    """Non-ASCII text, half a surrogate pair and NUL are refused like any garbage."""
    with pytest.raises(InvalidTokenError):
        new_tokens().session_of(text)


def test_tokens_refuse_a_very_long_one_unread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Past the limit nothing is decoded, however genuine the rest of the token is."""
    tokens, padded = new_tokens(), token_of(claims(padding="x" * TOKEN_CHARS_MAX))
    monkeypatch.setattr("gateway.tokens.jwt.decode", None)
    with pytest.raises(InvalidTokenError, match="too long"):
        tokens.session_of(padded)


def test_tokens_other_secret_issuer_and_audience_are_settings() -> None:
    """A gateway accepts its own issuer, audience and secret, and no other gateway's."""
    session = Session("session-1", 10, int(time.time()) + 60)
    for changes in (
        {"token_issuer": "b"},
        {"token_audience": "b"},
        {"token_secret": "another secret of 32 or more characters"},
    ):
        other = Tokens(settings_for_tests(**{"token_secret": KEY, **changes}))
        assert session == other.session_of(other.sign(session))
        with pytest.raises(InvalidTokenError):
            new_tokens().session_of(other.sign(session))


def test_tokens_checked_once_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    """A second look decodes nothing, until the bounded memory has let the token go."""
    tokens, first, second = new_tokens(token_cache_max=1), token_of(claims()), token_of(claims())
    tokens.session_of(first)
    with monkeypatch.context() as patch:
        patch.setattr("gateway.tokens.jwt.decode", None)
        assert 10 == tokens.session_of(first).manager_id
    tokens.session_of(second)
    monkeypatch.setattr("gateway.tokens.jwt.decode", None)
    with pytest.raises(TypeError):
        tokens.session_of(first)


def test_tokens_remembered_expire_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """A remembered token is refused once its `exp` has come."""
    tokens, good = new_tokens(), claims()
    token = token_of(good)
    tokens.session_of(token)
    monkeypatch.setattr("gateway.tokens.time.time", lambda: float(good["exp"]))
    with pytest.raises(InvalidTokenError, match="expired"):
        tokens.session_of(token)
