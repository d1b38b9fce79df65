"""The write-ahead log's files as a server in steady state has them: kept and written over, none made in a measurement.

A new file of 16 MiB is filled with zeros and synced by whoever needs it; seen here: one commit of 32 ms, every second or two.
"""

from __future__ import annotations

import asyncpg

FILES = 120
KEPT = "2GB"
_FILE_BYTES = 16 * 2**20
_MESSAGE_BYTES = 2**20


async def keep_files(dsn: str) -> None:
    """Lets PostgreSQL keep its files at checkpoints, and writes until there are enough."""
    db = await asyncpg.connect(dsn)
    try:
        await db.execute(f"ALTER SYSTEM SET min_wal_size = '{KEPT}'")
        await db.execute("ALTER SYSTEM SET max_wal_size = '4GB'")
        await db.execute("SELECT pg_reload_conf()")
        missing = FILES - await db.fetchval("SELECT count(*) FROM pg_ls_waldir()")
        if missing > 0:
            await db.execute(
                "SELECT pg_logical_emit_message(false, 'bench', repeat('x', $1)) FROM generate_series(1, $2)",
                _MESSAGE_BYTES,
                missing * _FILE_BYTES // _MESSAGE_BYTES,
            )
            await db.execute("CHECKPOINT")
    finally:
        await db.close()
