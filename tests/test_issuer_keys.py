"""Keys of other issuers: what a file of them must be, what they prove and what not, and what a reload changes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.algorithms import RSAAlgorithm

from gateway.errors import StartupError
from gateway.issuer_keys import IssuerKeys
from gateway.tokens import InvalidTokenError, Tokens
from tests.conftest import settings_for_tests
from tests.issuers import (
    HMAC_SECRET,
    ISSUER,
    Jwk,
    by_ed25519,
    by_hmac,
    by_rsa,
    ed25519_jwk,
    foreign_claims,
    hmac_jwk,
    publish,
    rsa_jwk,
    rsa_key,
)
from tests.test_tokens import KEY, claims, token_of

OTHER = "https://other.example.com"


def tokens_with(path: Path, *keys: Jwk) -> tuple[Tokens, IssuerKeys]:
    """What a gateway checks with that has these keys."""
    settings = settings_for_tests(token_secret=KEY, jwks_file=publish(path, *keys))
    issuer_keys = IssuerKeys(settings)
    return Tokens(settings, issuer_keys), issuer_keys


@pytest.fixture
def tokens(tmp_path: Path) -> Tokens:
    return tokens_with(tmp_path / "jwks.json", rsa_jwk(), ed25519_jwk(), hmac_jwk(), ed25519_jwk("other", 2, iss=OTHER))[0]


@pytest.mark.parametrize("sign", [by_rsa, by_ed25519, by_hmac])
def test_issuer_keys_prove_by_each_algorithm(tokens: Tokens, sign: Callable[..., str]) -> None:
    """RS256, EdDSA and HS256, the key chosen by `kid`; the session knows whose token it was."""
    good = foreign_claims(11)
    for _ in range(2):
        session = tokens.session_of(sign(good))
        assert session.key is not None
        assert (good["jti"], 11, good["exp"], ISSUER) == (
            session.id,
            session.manager_id,
            session.expires_time,
            session.key.issuer,
        )


def test_issuer_keys_leave_the_gateways_own_tokens_alone(tokens: Tokens) -> None:
    """A token without `kid` is the gateway's own."""
    assert tokens.session_of(token_of(claims())).key is None


def _public_pem() -> bytes:
    return rsa_key(1).public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def _with_header(what: dict[str, Any], **header: Any) -> str:
    """Signed with the issuer's own HMAC secret under any header."""
    return token_of(what, key=HMAC_SECRET.decode(), header=header)


BAD: dict[str, Callable[[dict[str, Any]], str]] = {
    "no kid": lambda good: by_rsa(good, kid=None),
    "no kid, HS256": lambda good: by_hmac(good, kid=None),
    "unknown kid": lambda good: by_rsa(good, kid="gone"),
    "kid is a number": lambda good: _with_header(good, alg="HS256", kid=1),
    "kid is a path": lambda good: _with_header(good, alg="HS256", kid="/dev/null"),
    "kid of another key": lambda good: by_ed25519(good, number=2),
    "kid of another algorithm's key": lambda good: by_rsa(good, kid="ed"),
    "HS256 under an RSA kid": lambda good: by_hmac(good, kid="rsa"),
    "HS256 with the RSA public key as secret": lambda good: token_of(
        good, key=_public_pem().decode(), header={"alg": "HS256", "kid": "rsa"}
    ),
    "HS256 with the RSA modulus as secret": lambda good: token_of(
        good, key=rsa_jwk()["n"], header={"alg": "HS256", "kid": "rsa"}
    ),
    "HS256 with the Ed25519 public key as secret": lambda good: token_of(
        good, key=ed25519_jwk()["x"], header={"alg": "HS256", "kid": "ed"}
    ),
    "alg none under a kid": lambda good: _with_header(good, alg="none", kid="rsa").rpartition(".")[0] + ".",
    "alg HS512 under an HS256 kid": lambda good: token_of(
        good, key=HMAC_SECRET.decode(), header={"alg": "HS512", "kid": "hmac"}, digest="HS512"
    ),
    "alg RS512 under an RS256 kid": lambda good: jwt.encode(good, rsa_key(1), "RS512", {"kid": "rsa"}),
    "PS256 under an RS256 kid": lambda good: jwt.encode(good, rsa_key(1), "PS256", {"kid": "rsa"}),
    "a key of its own in the header": lambda good: jwt.encode(
        good, rsa_key(2), "RS256", {"kid": "rsa", "jwk": rsa_jwk(number=2)}
    ),
    "tampered claims": lambda good: (
        by_rsa(good).split(".")[0] + "." + by_rsa({**good, "sub": "12"}).split(".")[1] + "." + by_rsa(good).split(".")[2]
    ),
    "issuer of another key": lambda good: by_rsa({**good, "iss": OTHER}),
    "the gateway's own issuer": lambda good: by_rsa({**good, "iss": "crm-gateway"}),
    "the gateway's own key under a kid": lambda good: token_of(good, header={"alg": "HS256", "kid": "hmac"}),
    "the gateway's own key for the issuer": token_of,
    "the gateway's own token under an unknown kid": lambda good: token_of(
        {**good, "iss": "crm-gateway"}, header={"alg": "HS256", "kid": "gone"}
    ),
    "other audience": lambda good: by_rsa({**good, "aud": "crm-terminal"}),
    "expired": lambda good: by_rsa({**good, "exp": good["iat"] - 1}),
    **{
        f"no {name}": lambda good, name=name: by_rsa({k: v for k, v in good.items() if k != name})  # type: ignore[misc]
        for name in ("exp", "iat", "iss", "aud", "sub", "jti")
    },
    "sub is no manager": lambda good: by_rsa({**good, "sub": "anna"}),
}


@pytest.mark.parametrize("name", BAD)
@pytest.mark.filterwarnings("ignore::jwt.warnings.InsecureKeyLengthWarning")
def test_issuer_keys_refuse(tokens: Tokens, name: str) -> None:
    """Each bad token is refused, the first time and again, and its text is in no message."""
    bad = BAD[name](foreign_claims())
    for _ in range(2):
        with pytest.raises(InvalidTokenError) as caught:
            tokens.session_of(bad)
        assert bad not in str(caught.value)


def short_modulus() -> str:
    """That of an RSA key of 1024 bits."""
    return str(RSAAlgorithm.to_jwk(rsa_key(1, 1024).public_key(), as_dict=True)["n"])


FAULTS: dict[str, tuple[list[Jwk], str]] = {
    "no alg": ([rsa_jwk(alg=None)], "alg"),
    "alg none": ([rsa_jwk(alg="none")], "'none'"),
    "alg of another type": ([rsa_jwk(alg="HS256")], "needs kty oct"),
    "an OKP key for HS256": ([ed25519_jwk(alg="HS256")], "needs kty oct"),
    "a secret for RS256": ([hmac_jwk(alg="RS256")], "needs kty RSA"),
    "alg that is not taken": ([rsa_jwk(alg="RS512")], "'RS512'"),
    "kid that is null": ([{**rsa_jwk(), "kid": None}], ".kid`"),
    "empty kid": ([rsa_jwk(kid="")], "kid"),
    "no iss": ([rsa_jwk(iss=None)], "`iss`"),
    "iss of the gateway itself": ([rsa_jwk(iss="crm-gateway")], "GATEWAY_TOKEN_ISSUER"),
    "iss with a line break": ([rsa_jwk(iss="a\nb")], "printable"),
    "the same kid twice": ([rsa_jwk(), rsa_jwk(number=2)], "two keys have the kid 'rsa'"),
    "for encryption": ([rsa_jwk(use="enc")], "use must be 'sig'"),
    "not for checking": ([rsa_jwk(key_ops=["encrypt"])], "key_ops"),
    "a private key": ([ed25519_jwk(d="c2VjcmV0")], "private key"),
    "another curve": ([ed25519_jwk(crv="Ed448")], "Ed25519"),
    "a short RSA key": ([rsa_jwk(n=short_modulus())], "1024 bits"),
    "a short secret": ([hmac_jwk(secret=b"short")], "5 bytes"),
    "an RSA key without modulus": ([rsa_jwk(n=None)], "do not make a key"),
    "a broken Ed25519 key": ([ed25519_jwk(x="AAAA")], "do not make a key"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_issuer_keys_refuse_a_file(tmp_path: Path, name: str) -> None:
    """The message names the setting, the file and the fault, and quotes no key."""
    keys, told = FAULTS[name]
    with pytest.raises(StartupError) as caught:
        tokens_with(tmp_path / "jwks.json", *keys)
    assert str(caught.value).startswith("GATEWAY_JWKS_FILE")
    assert str(tmp_path / "jwks.json") in str(caught.value)
    assert told in str(caught.value)
    secrets = [value for key in keys for member, value in key.items() if member in ("k", "n", "x", "d")]
    assert [] == [value for value in secrets if value in str(caught.value)]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"keys":{}}', '{"keys":[1]}', "\xff", "-----BEGIN PUBLIC KEY-----"])
def test_issuer_keys_refuse_what_is_no_jwks(tmp_path: Path, text: str) -> None:
    """Another format is told as one, at start and at a reload."""
    (tmp_path / "jwks.json").write_text(text, "latin-1")
    with pytest.raises(StartupError, match="is not usable"):
        IssuerKeys(settings_for_tests(jwks_file=str(tmp_path / "jwks.json")))


def test_issuer_keys_refuse_a_file_that_is_not_there(tmp_path: Path) -> None:
    """The message names the setting and the file."""
    with pytest.raises(StartupError, match=r"GATEWAY_JWKS_FILE: cannot read .*none \(No such file"):
        IssuerKeys(settings_for_tests(jwks_file=str(tmp_path / "none")))


def test_issuer_keys_are_two_during_a_rotation(tmp_path: Path) -> None:
    """Old and new key both prove; once the old one is gone its tokens do not, although they were checked before."""
    path, good = tmp_path / "jwks.json", foreign_claims()
    old, new = by_rsa(good, "2025"), by_rsa(good, "2026", number=2)
    tokens, issuer_keys = tokens_with(path, rsa_jwk("2025"))
    assert 10 == tokens.session_of(old).manager_id
    publish(path, rsa_jwk("2025"), rsa_jwk("2026", 2))
    issuer_keys.reload()
    assert [10, 10] == [tokens.session_of(each).manager_id for each in (old, new)]
    publish(path, rsa_jwk("2026", 2))
    issuer_keys.reload()
    with pytest.raises(InvalidTokenError):
        tokens.session_of(old)
    assert 10 == tokens.session_of(new).manager_id


def test_issuer_keys_another_key_under_a_kid_ends_the_first(tmp_path: Path) -> None:
    """A key that took the place of a stolen one takes nothing over from it."""
    path, token = tmp_path / "jwks.json", by_rsa(foreign_claims())
    tokens, issuer_keys = tokens_with(path, rsa_jwk())
    assert 10 == tokens.session_of(token).manager_id
    publish(path, rsa_jwk(number=2))
    issuer_keys.reload()
    with pytest.raises(InvalidTokenError):
        tokens.session_of(token)


@pytest.mark.parametrize("text", [None, "", json.dumps({"keys": [rsa_jwk("new", 2), rsa_jwk("bad", alg="none")]})])
def test_issuer_keys_bad_reload_keeps_the_keys_in_force(tmp_path: Path, text: str | None) -> None:
    """A file that is gone or has one bad key changes nothing, not even for its good keys."""
    path, token = tmp_path / "jwks.json", by_rsa(foreign_claims())
    tokens, issuer_keys = tokens_with(path, rsa_jwk())
    path.unlink() if text is None else path.write_text(text)
    with pytest.raises(StartupError):
        issuer_keys.reload()
    assert 10 == tokens.session_of(token).manager_id
    with pytest.raises(InvalidTokenError):
        tokens.session_of(by_rsa(foreign_claims(), "new", number=2))
