"""``moestream models pull``: fetch a model, or build the demo."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from moestream import ui
from moestream.cli.command import Command
from moestream.cli.options.model_argument import complete_name
from moestream.cli.options.output import json_option
from moestream.errors import ModelNotFoundError

if TYPE_CHECKING:
    from moestream.catalog import ModelSpec

EXAMPLES = """
moestream models pull qwen3-coder-30b-a3b
moestream models pull hf:bartowski/Qwen_Qwen3-30B-A3B-GGUF:IQ4_XS
HF_TOKEN=hf_... moestream models pull hf:ORG/PRIVATE-REPO:Q4_K_M
"""


@click.command(cls=Command, examples=EXAMPLES)
@click.argument("model", shell_complete=complete_name)
@json_option
def pull(model: str, as_json: bool) -> None:
    """Fetch a model from the hub, and print where it lies.

    MODEL is a name from models.toml or hf:ORG/REPO[:QUANT|FILE]; the default of QUANT is Q4_K_M.
    A download that broke off goes on where it was; every file is checked by the sha256 that the hub
    states. HF_TOKEN, HF_ENDPOINT and HF_HUB_OFFLINE are respected.
    """
    from moestream.catalog import find_spec, locate

    spec = find_spec(model)
    if spec is None:
        raise ModelNotFoundError(_is_unknown(model))
    started = time.perf_counter()
    if (store := _other_store(spec)) is not None:
        ui.note(f"here already, in {store}, and run from there; nothing was fetched")
        path = str(locate(spec))
        if as_json:
            ui.print_json({"model": model, "path": path, "fetched_bytes": 0, "seconds": 0.0})
        else:
            ui.print_line(path)
        return
    values = _download(model, spec.source) if spec.kind == "hf" else _make(model)
    seconds = time.perf_counter() - started
    _tell(values["fetched_bytes"], seconds, made=spec.kind == "recipe")
    if as_json:
        ui.print_json({"model": model, **values, "seconds": seconds})
    else:
        ui.print_line(values["path"])


def _other_store(spec: "ModelSpec") -> str | None:
    """Whose store has a model, if it is another program's."""
    from moestream import hub
    from moestream.hub.stores import hf_cache, llama_cpp

    if spec.kind != "hf":
        return None
    reference = hub.parse_reference(spec.source)
    if hub.find(reference) is not None:
        return None
    stores = (hf_cache, llama_cpp)
    return next((store.NAME for store in stores if store.find(reference) is not None), None)


def _download(model: str, source: str) -> dict[str, Any]:
    from moestream.hub import parse_reference
    from moestream.hub.download import download
    from moestream.hub.http import endpoint
    from moestream.hub.repository import look_up
    from moestream.offline import require_online

    reference = parse_reference(source)
    require_online(reference.repository)
    with ui.working(f"asking {endpoint()} for {reference.repository}"):
        listing, chosen = look_up(reference)
    size = listing.size_bytes(chosen)
    ui.note(f"{reference.repository}: {chosen.names[0]}, {ui.format_bytes(size)}")
    try:
        with ui.progress(transfer=True) as progress:
            outcome = download(listing, chosen, progress=progress)
    except KeyboardInterrupt:
        ui.note(f"what was fetched is kept; go on with: moestream models pull {model}")
        raise
    return {
        "path": str(outcome.path),
        "size_bytes": outcome.size_bytes,
        "fetched_bytes": outcome.fetched_bytes,
        "repository": reference.repository,
        "commit": listing.commit,
        "files": list(chosen.names),
    }


def _make(model: str) -> dict[str, Any]:
    """Build what has a recipe; a file of the user's own is only looked for."""
    from moestream.catalog import resolve

    with ui.progress() as progress:
        path: Path = resolve(model, progress=progress)
    return {"path": str(path), "size_bytes": path.stat().st_size, "fetched_bytes": 0}


def _tell(fetched_bytes: int, seconds: float, *, made: bool) -> None:
    if fetched_bytes:
        rate = ui.format_bytes(int(fetched_bytes / max(seconds, 1e-6)))
        ui.note(f"fetched {ui.format_bytes(fetched_bytes)} in {seconds:.1f} s, {rate}/s; checked")
    else:
        ui.note("here" if made else "here already, as the hub has it")


def _is_unknown(model: str) -> str:
    import difflib

    from moestream.catalog import catalog

    close = difflib.get_close_matches(model.lower(), catalog(), n=3)
    if model.count("/") == 1:
        close = [f"hf:{model}"]
    hint = f"did you mean {' or '.join(close)}?" if close else "see moestream models list."
    return f"no model is called {model!r}; {hint} Any on the hub is hf:ORG/REPO[:QUANT|FILE]"
