"""Figures, drawn into PNG files with matplotlib, which is an optional extra.

Knows numbers and labels; nothing of what they were measured on.
"""

import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from moestream.errors import PlotError
from moestream.folders import require_openable

Curve = Sequence[tuple[float, float]]
"""Points, x before y."""


def require(path: Path) -> None:
    """Check that a figure can be drawn there: before the work whose result is to be drawn.

    Raises:
        PlotError: matplotlib is not installed.
        OSError: the file cannot be written.
    """
    require_openable(path)
    if importlib.util.find_spec("matplotlib") is None:
        raise PlotError(
            'A figure needs matplotlib. In the checkout: pip install ".[plot]", or: pip install '
            "matplotlib."
        )


def draw_hit_rates(
    path: Path, title: str, curves: Mapping[str, Curve], bounds: frozenset[str]
) -> None:
    """Draw hit rates (0 to 1) against budgets in bytes, a line a policy, the bounds dashed."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for label, curve in curves.items():
        x, y = zip(*sorted(curve), strict=True)
        style = "k--" if label in bounds else "o-"
        axes.plot([n / 2**20 for n in x], [100 * rate for rate in y], style, label=label)
    axes.set(title=title, xlabel="budget, MiB", ylabel="hit rate, %", ylim=(0, 100))
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, format="png", dpi=150)


def draw_profile(
    path: Path,
    title: str,
    shares: NDArray[np.float64],
    layers: Sequence[int],
    coverage: Sequence[float],
) -> None:
    """Draw shares of uses (L, N), a row a layer, and what the n hottest cover: (N + 1,)."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 9), layout="constrained")
    FigureCanvasAgg(figure)
    top, bottom = figure.subplots(2, height_ratios=(2, 1))
    image = top.imshow(100 * shares, aspect="auto", cmap="inferno", interpolation="nearest")
    ticks = range(0, len(layers), max(len(layers) // 12, 1))
    top.set_yticks(list(ticks), [str(layers[i]) for i in ticks])
    top.set(title=title, xlabel="expert", ylabel="layer")
    figure.colorbar(image, ax=top, label="share of the layer's uses, %")
    bottom.plot(range(len(coverage)), [100 * share for share in coverage])
    bottom.set(xlabel="hottest experts of a layer", ylabel="uses covered, %", ylim=(0, 100))
    bottom.set_xlim(0, len(coverage) - 1)
    bottom.grid(alpha=0.3)
    figure.savefig(path, format="png", dpi=150)
