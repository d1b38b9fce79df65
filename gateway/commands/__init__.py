"""The commands of the gateway: one file each, and `table.py`, which lists them all."""
