"""Fixtures that several test files share."""

import os
import signal
from pathlib import Path

import pytest
from alphabet_model import write_alphabet_model

# Processes that tests start run the installed package, which is compiled, not the checkout they
# happen to be started in.
os.environ["PYTHONSAFEPATH"] = "1"
# Processes of tests would not hear what is ignored here: under nohup, or as a background job.
signal.signal(signal.SIGHUP, signal.SIG_DFL)
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def alphabet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_alphabet_model(tmp_path_factory.mktemp("models") / "alphabet.gguf")


@pytest.fixture(scope="session", autouse=True)
def _state(tmp_path_factory: pytest.TempPathFactory) -> None:
    """What chats and profiles leave goes where no person's is."""
    for folder in ("MOESTREAM_STATE", "MOESTREAM_DATA"):
        os.environ[folder] = str(tmp_path_factory.mktemp(folder.lower()))
    for store in ("HF_HUB_CACHE", "LLAMA_CACHE", "OLLAMA_MODELS"):  # nor are a person's looked at
        os.environ[store] = str(tmp_path_factory.mktemp(store.lower()))
