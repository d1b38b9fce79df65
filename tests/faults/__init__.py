"""Proves the promises of the protocol under faults and hostile input: `make faults` (docs/reliability.md)."""
