"""The benchmark, `python -m tests.bench`: the gateway beside pgbench, psql and a bare echo, in rounds of one run."""
