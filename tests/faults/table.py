"""All checks, in the order they run: the table of contents of this folder."""

from __future__ import annotations

from tests.faults import (
    bugs,
    canaries,
    conformance,
    controls,
    disk,
    ended_sessions,
    flood,
    hostile,
    keys,
    kills,
    malformed,
    outages,
    proofs,
    sign_in_timing,
    slow_readers,
)
from tests.faults.check import Check

NOTHING_BROKEN = "0 acknowledged lost, 0 doubled, 0 torn (event without its participants)"

CHECKS = [
    Check(
        "kill-gateway",
        "c",
        "acknowledged means durable",
        f"SIGKILL under load, 20 cycles: {NOTHING_BROKEN}",
        kills.kill_gateway,
    ),
    Check(
        "kill-postgres",
        "c",
        "acknowledged means durable",
        f"SIGKILL of all of it, 6 cycles: {NOTHING_BROKEN}",
        kills.kill_postgres,
    ),
    Check("answered-again", "t", "service is back", "<= 1 s after a bare asyncpg loop", kills.answered_again),
    Check(
        "drain",
        "c",
        "1012 means: unanswered was not executed",
        "SIGTERM under load, 20 cycles: 0 lost, 0 doubled, 0 executed among the unanswered, exit 0 within the drain time",
        kills.terminate_gateway,
    ),
    Check("control-asynchronous", "c", "the kills can fail", "asynchronous commit is detected", controls.asynchronous_commit),
    Check(
        "control-early",
        "c",
        "the kills can fail",
        "acknowledging before the commit is detected",
        controls.early_acknowledgement,
    ),
    Check("control-keyless", "c", "the replays can fail", "ignoring keys is detected", controls.ignored_keys),
    Check(
        "planted-bugs", "c", "the tests can fail", "every planted bug is caught by the tests named for it", bugs.planted_bugs
    ),
    Check(
        "postgres-stopped",
        "t",
        "every command is answered, service comes back",
        "SIGSTOP for 10 s: answered <= 6 s, loop stall <= 50 ms over the control, first success <= 1 s after",
        outages.stopped_postgres,
    ),
    Check("black-hole", "t", "every command is answered, service comes back", "no byte for 10 s: the same", outages.black_hole),
    Check(
        "flood",
        "t",
        "nobody's flood starves another",
        "a manager with 16 sockets x 64 adds in flight beside one who adds every 20 ms: that one's p99 <= 2x undisturbed",
        flood.flooding_manager,
    ),
    Check(
        "pool-exhausted",
        "c",
        "nothing leaks from the pool",
        "slow commands take all of it: NO_SERVICE, not_executed; whole afterwards",
        outages.exhausted_pool,
    ),
    Check(
        "disk-full",
        "c",
        "a full disk is told and survived",
        "clean error, gateway alive, readiness red, nothing acknowledged lost",
        disk.full_disk,
    ),
    Check(
        "lost-answers",
        "c",
        "sent twice, done once",
        "the link cut before, within and behind the committing statement, and its answer swallowed, 100 each: "
        "told the truth or unknown; after the retry exactly one event, 400 of 400",
        keys.lost_answers,
    ),
    Check(
        "replays",
        "c",
        "sent twice, done once",
        "1,000 replays, 50 at once on one key, two processes: one event each, the same reply",
        keys.replays,
    ),
    Check(
        "slow-readers",
        "t",
        "who does not read costs nobody else",
        "200 clients that never read, under load from others: each counted as 4000; resident memory +64 MiB at most; the "
        "others' p99 <= 2x undisturbed",
        slow_readers.slow_readers,
    ),
    Check(
        "sign-in-timing",
        "t",
        "signing in costs nobody else, and tells nobody who exists",
        "20 at once, done within 6 s: loop stall <= 20 ms over the control; known against unknown login: medians within 15 %",
        sign_in_timing.sign_in_timing,
    ),
    Check(
        "waiting-games",
        "c",
        "every wait has its limit",
        "slow handshakes, half-sent messages, endless fragments, mute sockets: each closed by its limit, nobody else",
        hostile.waiting_games,
    ),
    Check(
        "autobahn",
        "c",
        "the library's WebSocket is the gateway's",
        "all of Autobahn's cases but the library's documented deviation, 7.1.5",
        conformance.autobahn,
    ),
    Check(
        "refusals",
        "c",
        "nobody comes in without a proof",
        "20 hostile Origins; every command before login; tokens expired, of another key, alg none, other audience, "
        "tampered: all refused",
        proofs.refusals,
    ),
    Check(
        "ended-sessions",
        "c",
        "what a session may do follows the database",
        "MngLogout, revoke, a disabled manager, changed rights, under open sockets of two processes: acted on at the next "
        "command; sockets of ended sessions closed with 4501 within 1 s, idle ones too, those of changed rights never",
        ended_sessions.ended_sessions,
    ),
    Check(
        "canaries",
        "c",
        "secrets and texts of clients stay out of what is kept",
        "canaries in tokens, passwords, titles, bodies and keys through every command and failure at DEBUG: 0 in the logs, "
        "PostgreSQL's too, on the metrics page and in a redacted recording; two bugs that log are detected",
        canaries.canaries,
    ),
    Check(
        "broken-frames",
        "c",
        "every frame gets exactly one reply",
        "10,000 malformed frames over 40 sockets: each exactly one right answer by a slow oracle; 0 INTERNAL, 0 disconnects",
        malformed.broken_frames,
    ),
]
