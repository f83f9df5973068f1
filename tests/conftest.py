"""Settings for every test: hypothesis is repeatable and does not measure time (benchmarks do)."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

settings.register_profile(
    "aiotkit",
    deadline=None,
    derandomize=True,
    max_examples=60,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("aiotkit")
