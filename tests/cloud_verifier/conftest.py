"""Tests on Ray take part when asked for by name: importing it alone takes longer than most test files run."""

import os
import secrets
from pathlib import Path

import pytest


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    if collection_path.name != "test_scale.py":
        return None
    # Ray reads these when it is imported. Its own ports are open beyond loopback: nobody else may speak to them.
    os.environ.update(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=secrets.token_hex(), RAY_USAGE_STATS_ENABLED="0")
    return None if config.option.markexpr == "ray" else True
