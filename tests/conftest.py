"""Fixtures that several test files share."""

from pathlib import Path

import pytest
from alphabet_model import write_alphabet_model


@pytest.fixture(scope="session")
def alphabet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_alphabet_model(tmp_path_factory.mktemp("models") / "alphabet.gguf")
