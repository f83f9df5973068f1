"""Beside the broker: collects what devices deliver."""
