"""What several test modules share: the real language model that the product itself fetches."""

from __future__ import annotations

from pathlib import Path

import pytest

from rmft.models.catalogue import add_model


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """The folder of SmolLM2-135M-Instruct, fetched (94 MB) and converted when it is not there yet."""
    return add_model("smollm2-135m", say=print)
