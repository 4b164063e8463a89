"""What the server's page is told where ranks share a model: of the first one's layers, plainly."""

import signal
from pathlib import Path

import httpx2
import pytest
from alphabet_model import write_alphabet_model
from command_line import run
from ranks import Ranks, free_ports

IN_TIME_S = 60


@pytest.mark.slow
def test_the_page_says_what_is_of_one_machine(tmp_path, monkeypatch):
    """A profile of the whole model is listed, and told of the layers that the page shows."""
    monkeypatch.setenv("MOESTREAM_DATA", str(tmp_path / "data"))
    model = write_alphabet_model(tmp_path / "abc.gguf", layers=3)
    made = ["generate", str(model), "-p", "x", "-n", "4", "--save-profile", "abc"]
    assert run(*made).returncode == 0
    (port,) = free_ports(1)
    command = ["-m", "moestream", "serve", str(model), "--port", str(port)]
    with (
        Ranks(tmp_path, [command] * 2) as ranks,
        httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=IN_TIME_S) as client,
    ):
        assert f":{port}" in ranks.first.stderr.readline()
        assert client.get("/v1/moestream/profiles").json() == {"profiles": ["abc"]}
        told = client.get("/v1/moestream/profiles/abc").json()["uses"]
        assert 0 < len(told) < 3
        asked = {"name": "mine", "tokens": 4, "uses": told}
        refused = [
            client.post("/v1/moestream/profiles", json=asked),
            client.get("/v1/moestream/forecast"),
        ]
        ranks.first.send_signal(signal.SIGINT)
        ranks.end()
    for answer, instead in zip(refused, ("--save-profile", "--machines"), strict=True):
        assert answer.status_code == 400
        message = answer.json()["error"]["message"]
        assert message.startswith("2 machines share the model, and the page knows the layers of")
        assert instead in message
    assert not list(Path(tmp_path, "data").rglob("mine*"))


@pytest.mark.slow
def test_the_page_of_a_machine_with_dense_layers_alone(tmp_path):
    """The experts are elsewhere: that is not to have none."""
    model = write_alphabet_model(tmp_path / "abc.gguf", layers=3)
    (port,) = free_ports(1)
    code = (
        "from moestream.server import residency; from moestream.__main__ import main; "
        "residency.expert_sizes = lambda file: {}; main()"
    )
    command = ["-c", code, "serve", str(model), "--port", str(port)]
    with (
        Ranks(tmp_path, [command] * 2) as ranks,
        httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=IN_TIME_S) as client,
    ):
        assert f":{port}" in ranks.first.stderr.readline()
        assert client.get("/v1/moestream/profiles").status_code == 200
        told = client.get("/v1/moestream/forecast").json()["error"]["message"]
        with client.stream("GET", "/v1/moestream/residency") as news:
            assert news.status_code == 200
            assert any('"layers":[]' in line.replace(" ", "") for line in news.iter_lines())
        ranks.first.send_signal(signal.SIGINT)
        ranks.end()
    assert told.startswith("2 machines share the model")
