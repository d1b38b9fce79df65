"""What a recording leaves out: passwords and tokens always, titles and bodies when asked.

Filler has the shape of what it stands for, so that the command is answered as it was: also where it was refused.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

import msgspec
from msgspec import Raw, Struct

from gateway.faults import members_of
from gateway.wire import EMPTY

LOGIN = "MngLogin"
REDACTED = b'"redacted"'
_TEXTS = ("title", "ast_json")
_SECRETS = (b"password", b"passwd", b"pwd", b"passphrase", b"token", b"secret", b"authorization", b"apikey")
"""What has one of these in its name is left out, as `access_token` is; and `secretary`: rather too much than too little."""
_STRING = re.compile(rb'("[^"\\]*(?:\\.[^"\\]*)*")(\s*:)?')
"""With its colon, where it is a name."""
_CHARS = re.compile(rb"\\u[dD][89abAB]..\\u....|\\u....|\\.|[^\\]+")
_FILLER = bytes(
    ord("x") if code < 0x80 else 0x9F if code < 0xC0 else 0xC3 if code < 0xE0 else 0xE2 if code < 0xF0 else 0xF0
    for code in range(256)
)
"""Each character becomes one of as many bytes of UTF-8."""
_ONES = bytes.maketrans(b"123456789", b"111111111")
_LOWER = bytes.maketrans(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ", b"abcdefghijklmnopqrstuvwxyz")
_NO_LETTERS = bytes(code for code in range(128) if not chr(code).isalpha())


class Redaction:
    """Redacts the data of frames; `requests` says which keys each command knows."""

    def __init__(self, requests: Mapping[str, type[Struct]], *, text: bool) -> None:
        self._text = text
        self._known = {command: _names_of(request) for command, request in requests.items()}

    def redacted(self, command: str, data: bytes) -> Raw:
        """The data on one line, without what must not be recorded; nothing of a command that does not exist."""
        known = self._known.get(command)
        if known is None:
            return EMPTY
        if self._text or command == LOGIN or _may_name_secret(data):
            redact = self._of_login if command == LOGIN else self._of_command
            members = {name: Raw(redact(known, name, bytes(value))) for name, value in members_of(data).items()}
            data = msgspec.json.encode(members)
        return Raw(data.replace(b"\n", b" ").replace(b"\r", b" "))

    def _of_login(self, known: frozenset[str], name: str, value: bytes) -> bytes:
        """A value that stands where it should not may be the password."""
        return value if name in known and not _is_secret(name) and not _holds_others(value) else REDACTED

    def _of_command(self, known: frozenset[str], name: str, value: bytes) -> bytes:
        if _is_secret(name):
            return REDACTED
        if self._text and (name in _TEXTS or name not in known):
            return _filled(value)
        if _holds_others(value):
            if _names_secret(value):
                return _filled(value)
            if self._text:
                return _STRING.sub(lambda string: string[0] if string[2] else _filled(string[1]), value)
        return value


def _names_of(request: type[Struct]) -> frozenset[str]:
    """The keys that a command knows; of `__access` it takes anything."""
    return frozenset(field.encode_name for field in msgspec.structs.fields(request) if not field.encode_name.startswith("__"))


def _holds_others(value: bytes) -> bool:
    return value.startswith((b"[", b"{"))


def _is_secret(name: str) -> bool:
    return _hold_secret(_letters(name.encode()))


def _names_secret(value: bytes) -> bool:
    """Whether any name in the list or object is that of a secret."""
    return _may_name_secret(value) and any(
        string[2] and _is_secret(json.loads(string[1])) for string in _STRING.finditer(value)
    )


def _may_name_secret(data: bytes) -> bool:
    """Also where an escape may spell a letter."""
    return b"\\u00" in data or _hold_secret(_letters(data))


def _hold_secret(letters: bytes) -> bool:
    return any(secret in letters for secret in _SECRETS)


def _letters(text: bytes) -> bytes:
    """What names are compared by: without case, blanks and all else."""
    return text.translate(_LOWER, _NO_LETTERS)


def _filled(value: bytes) -> bytes:
    """Texts, names and digits become others, of as many characters and bytes.

    A number that stands where a text should is none, and stays; so does a blank text, and each NUL.
    """
    if not value.startswith((b'"', b"[", b"{")) or (value.startswith(b'"') and not json.loads(value).strip()):
        return value
    parts = value.replace(rb"\\", rb"\/").replace(rb"\"", rb"\/").split(b'"')
    parts[0::2] = [between.translate(_ONES) for between in parts[0::2]]
    parts[1::2] = [_CHARS.sub(_filled_chars, text) if b"\\" in text else text.translate(_FILLER) for text in parts[1::2]]
    return b'"'.join(parts)


def _filled_chars(chars: re.Match[bytes]) -> bytes:
    text = chars[0]
    if not text.startswith(b"\\"):
        return text.translate(_FILLER)
    if len(text) == len(rb"\n"):
        return rb"\/"
    if text == rb"\u0000":
        return text
    return rb"\u0078" if len(text) == len(rb"\u0078") else rb"\ud83d\ude00"
