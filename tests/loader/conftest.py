from __future__ import annotations

import pytest
from loader_data import reading_threads, wait_for_threads

from merlin_models.loader import indexed


@pytest.fixture(autouse=True)
def no_leaked_threads(monkeypatch):
    """Every test must leave no thread of a loader behind, those that leave an epoch halfway after 2 s."""
    monkeypatch.setattr(indexed, "IDLE_SECONDS", 2.0)
    before = reading_threads()
    yield
    assert not wait_for_threads(before)
