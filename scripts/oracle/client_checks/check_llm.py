"""`llm`, by extra-openai-models.yaml."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ASKED = "What is the capital of Italy?"
MODELS = """\
- model_id: local
  model_name: demo
  api_base: "{url}/v1"
  api_key_name: local
  supports_schema: true
  supports_tools: true
"""


def _llm(url: str, *arguments: str) -> str:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "extra-openai-models.yaml").write_text(MODELS.format(url=url))
        Path(folder, "keys.json").write_text(json.dumps({"local": "x"}))
        ran = subprocess.run(
            [str(Path(sys.executable).with_name("llm")), *arguments],
            env=os.environ | {"LLM_USER_PATH": folder},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
    assert ran.returncode == 0, ran.stderr[-300:]
    return ran.stdout


def check_prompt(url: str) -> None:
    """An answer, in parts and whole."""
    text = _llm(url, "-m", "local", ASKED)
    assert "Rome" in text
    assert text == _llm(url, "-m", "local", "--no-stream", ASKED)


def check_schema(url: str) -> None:
    """A form."""
    city = {"enum": ["Rome", "Oslo"]}
    schema: dict[str, object] = {"type": "object", "properties": {"city": city}}
    schema |= {"required": ["city"], "additionalProperties": False}
    told = json.loads(_llm(url, "-m", "local", "--schema", json.dumps(schema), ASKED))
    assert told["city"] in city["enum"]
