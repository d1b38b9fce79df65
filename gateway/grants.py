"""What a database role needs to serve a gateway and to run its tools, where it does not own the tables, and who lacks what."""

from __future__ import annotations

import re
from typing import Any

import asyncpg

from gateway.errors import StartupError

ALL = ("SELECT", "INSERT", "UPDATE", "DELETE")
SERVING = {
    "schema_version": ("SELECT",),
    "access_epoch": ("SELECT", "UPDATE"),  # advanced by triggers, which run as whoever ends a session
    "manager": ("SELECT",),
    "session": ALL,
    "revoked_token": ("SELECT", "INSERT", "DELETE"),
    "calendar_event": ALL,
    "calendar_participant": ALL,
    "idempotency_key": ALL,  # UPDATE to lock those that are to be removed
    "SEQUENCE calendar_event_id": ("USAGE",),
}
"""All that `gateway serve` does."""
TOOLS = {**SERVING, "manager": ("SELECT", "INSERT", "UPDATE"), "revoked_token": ALL}
"""`gateway manager` and `gateway revoke` as well."""

_MISSING = """
    SELECT object, array_agg(privilege ORDER BY number) AS privileges, quote_ident(current_user) AS role
    FROM unnest($1::text[], $2::text[]) WITH ORDINALITY AS needed (object, privilege, number)
    WHERE NOT CASE
        WHEN object LIKE 'SEQUENCE %' THEN has_sequence_privilege(to_regclass(substr(object, 10)), privilege)
        ELSE has_table_privilege(to_regclass(object), privilege)
    END
    GROUP BY object ORDER BY min(number)
"""


async def require(db: Any) -> None:
    """Raises StartupError with the statements that grant what serving needs and this user has not.

    What is not there is passed over: the version of the schema tells that.
    """
    needed = [(name, privilege) for name, privileges in SERVING.items() for privilege in privileges]
    rows = await db.fetch(_MISSING, *map(list, zip(*needed, strict=True)))
    if rows:
        grants = "; ".join(_grant(row["object"], row["privileges"], row["role"]) for row in rows)
        raise StartupError(f"PostgreSQL does not let this user do all that serving takes. As the owner of the tables: {grants}")


def denied(error: asyncpg.InsufficientPrivilegeError) -> StartupError:
    """The message for something that the database did not let a tool do, with the statement that grants it."""
    words = re.findall(r"\w+", str(error))
    named = [name for name in TOOLS if name.split()[-1] in words]
    grants = "; ".join(_grant(name, TOOLS[name], "user") for name in named) or "GRANT what README.md lists under `Operate it`"
    return StartupError(f"PostgreSQL does not let this user do this ({error}). As the owner of the tables: {grants}")


def _grant(name: str, privileges: tuple[str, ...], role: str) -> str:
    return f"GRANT {', '.join(privileges)} ON {name} TO {role}"
