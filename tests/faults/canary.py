"""Texts that occur nowhere else, sent in the place of a secret or of a client's own words."""

from __future__ import annotations

import secrets
from typing import Any, NamedTuple

from tests.client import LEAST


class Canary(NamedTuple):
    """What it is said to be, and the way it was sent."""

    kind: str
    way: str


class Canaries(dict[str, Canary]):
    """Texts that are found nowhere else."""

    def new(self, kind: str, way: str) -> str:
        """A canary of that kind, sent that way."""
        text = f"canary-{secrets.token_hex(8)}"
        self[text] = Canary(kind, way)
        return text

    def genuine(self, token: str, way: str) -> str:
        """A token that is good: its signature is the canary."""
        self[token.rpartition(".")[2]] = Canary("token", way)
        return token

    def event(self, way: str, **more: object) -> dict[str, Any]:
        """An event whose title and body are canaries, names in the body included."""
        if "title" not in more:
            more["title"] = self.new("title", way)
        if "ast_json" not in more:
            more["ast_json"] = {self.new("body", way): [self.new("body", way)]}
        return {**LEAST, **more}
