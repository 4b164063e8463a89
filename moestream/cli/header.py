"""From a MODEL argument to what a model says of itself, whether it is here or on the hub.

Every command that looks at a model without running it begins so.
"""

from typing import TYPE_CHECKING

from moestream import ui
from moestream.errors import ModelNotFoundError

if TYPE_CHECKING:
    from moestream.catalog import ModelSpec
    from moestream.gguf import GGUFHeader


def open_header(model: str, *, build: bool, quiet: bool) -> "GGUFHeader":
    """Open a model's file; of one that is not here, fetch the header alone.

    Args:
        model: a name, ``hf:ORG/REPO[:QUANT|FILE]`` or a path.
        build: whether to build a model that has a recipe.
        quiet: tell nothing but errors.

    Raises:
        ModelNotFoundError: there is none; or it would have to be built.
        DownloadError: the hub could not be asked.
        ModelFormatError, UnsupportedQuantError: it is no sound GGUF file.
    """
    from moestream.catalog import find_spec, locate, resolve
    from moestream.gguf import GGUFFile

    spec = find_spec(model)
    if spec is not None and locate(spec) is None:
        if spec.kind == "hf":
            return _of_hub(spec, quiet)
        if spec.kind == "recipe" and not build:
            raise ModelNotFoundError(
                f"{model} is not here yet, and it has no header before it is built; build it with: "
                f"moestream models pull {model}"
            )
    with ui.progress(quiet=quiet) as progress:
        path = resolve(model, progress=progress)
    return GGUFFile.open(path)


def _of_hub(spec: "ModelSpec", quiet: bool) -> "GGUFHeader":
    from moestream.hub import parse_reference
    from moestream.hub.header import fetch_header
    from moestream.hub.listing import endpoint, look_up

    reference = parse_reference(spec.source)
    with ui.working(f"reading a header of {reference.repository} at {endpoint()}", quiet=quiet):
        return fetch_header(*look_up(reference))
