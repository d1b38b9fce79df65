"""What a failure of the database means to a client, and to whoever starts the gateway. Runs nothing itself."""

from __future__ import annotations

import socket

import asyncpg

from gateway.errors import CommandError, ErrorCode, Outcome, StartupError, no_service

LOST = (asyncpg.InterfaceError, asyncpg.InternalClientError, asyncpg.ConnectionDoesNotExistError, OSError, EOFError)
"""The connection ended before an answer. `ConnectionDoesNotExistError` is asyncpg's own, though its class says PostgreSQL;
`InternalClientError` is what it raises on a connection that fails while a statement is begun.
"""

UNREACHABLE = (OSError, TimeoutError, ValueError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)
"""What connecting raises, a wrong address and a wrong password included."""

GIVEN_UP = ("57014", "55P03")
"""query_canceled by statement_timeout, lock_not_available by lock_timeout."""


def failure_of(error: BaseException, lost: Outcome) -> CommandError:
    """The answer to a database error; `lost` is the outcome when no answer came at all."""
    if isinstance(error, asyncpg.ConnectionDoesNotExistError) and isinstance(error.__cause__, asyncpg.PostgresError):
        error = error.__cause__  # PostgreSQL's last words: it said that it gave the statement up, then hung up
    if isinstance(error, TimeoutError):
        return CommandError(ErrorCode.TIMEOUT, "the database did not answer in time", outcome=lost)
    if isinstance(error, LOST):
        return no_service("the connection to the database was lost", outcome=lost)
    assert isinstance(error, asyncpg.PostgresError)
    state = error.sqlstate or ""
    if state in GIVEN_UP:
        return CommandError(ErrorCode.TIMEOUT, "the database took too long and gave the command up")
    if state[:2] in ("08", "40", "53", "57", "58", "25"):  # gone, conflict, full, shutting down, disk, read-only
        return no_service("the database cannot do this now")
    raise error


def unreachable(error: BaseException) -> StartupError:
    """The message for a database that cannot be used, in PostgreSQL's own words if it answered.

    Those of other errors may hold a part of a password that was taken for a host or a port.
    """
    if isinstance(error, asyncpg.ClientConfigurationError):
        return StartupError(
            f"The database's address cannot be used ({type(error).__name__}): check in GATEWAY_DATABASE_URL sslmode (or "
            "PGSSLMODE; disable, allow, prefer, require, verify-ca or verify-full), its files (the last two need sslrootcert, "
            f"PGSSLROOTCERT or ~/.postgresql/root.crt), host, port and names. {_QUOTING}"
        )
    if isinstance(error, asyncpg.PostgresError) and error.sqlstate in GIVEN_UP:
        return StartupError(
            f"PostgreSQL did not let the gateway at its tables in time ({error}): they are locked, by a `gateway schema apply` "
            "that is under way, say. Try again when that has ended."
        )
    if isinstance(error, asyncpg.PostgresError) and error.sqlstate and not isinstance(error, LOST):
        return StartupError(
            f"PostgreSQL refuses the connection ({error}): check user, password, database name and parameters in "
            f"GATEWAY_DATABASE_URL. {_QUOTING}"
        )
    if isinstance(error, socket.gaierror):
        return StartupError(
            "The database cannot be reached, as its host is not known: check its name in GATEWAY_DATABASE_URL, and that "
            f"this machine can look names up. {_QUOTING}"
        )
    return StartupError(
        f"The database cannot be reached ({type(error).__name__}): check host and port in GATEWAY_DATABASE_URL, and that "
        f"PostgreSQL runs there. {_QUOTING}"
    )


_QUOTING = (
    "A password with other characters than letters and digits must be percent-encoded there, or given in PGPASSWORD instead."
)
