"""Fixtures of several files."""

import pytest

from dynunet import plotting


@pytest.fixture
def without_the_curve(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing the loss takes longer than most short runs of training."""
    monkeypatch.setattr(plotting, "loss_curve", lambda log, path: None)
