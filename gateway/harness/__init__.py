"""The harness (docs/harness.md): sends command streams to a running gateway, checks every reply and measures."""
