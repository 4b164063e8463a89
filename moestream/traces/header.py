"""What a trace says of the model that it is of."""

from moestream.engine.engine import Engine
from moestream.errors import TraceError
from moestream.streaming.store import expert_sizes
from moestream.traces.format import TraceHeader


def header_of(engine: Engine) -> TraceHeader:
    """The header of a trace of an engine's sessions.

    Raises:
        TraceError: the model has no experts.
    """
    sizes = expert_sizes(engine.file)
    if not sizes:
        raise TraceError(f"{engine.file.path}: has no experts, so no routing can be traced")
    config = engine.config
    return TraceHeader(
        config.num_layers,
        config.num_experts,
        config.num_experts_per_tok,
        sizes,
        model=engine.file.path.name,
        arch=config.architecture,
    )
