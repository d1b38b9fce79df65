"""A WebSocket command gateway between trading-platform CRMs and PostgreSQL."""

__version__ = "0.1.0"
