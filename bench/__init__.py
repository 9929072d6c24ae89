"""Benchmarks against other projects and in other settings."""

import atlas  # noqa: F401  its settings of threads hold for every contestant
