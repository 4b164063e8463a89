"""Write moestream/native/core/grid_tables.h: the grids of llama.cpp's codebook types.

A code of these types is the number of a row of a grid, four or eight values at once. The rows
come from the gguf package (MIT licence), as numbers of levels.

    python scripts/native/grids.py
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import gguf.quants
import numpy as np
from numpy.typing import NDArray

HEADER = Path(__file__).parents[2] / "moestream/native/core/grid_tables.h"
GRIDS = ("IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S", "IQ1_S")
PER_LINE = 22


def packed_rows(name: str) -> NDArray[np.uint16]:
    """Each row of a grid, as the numbers of its levels: 2 bits a value, or 3 where there are 8."""
    quant = getattr(gguf.quants, name)
    quant.init_grid()
    levels = list(quant.grid_map)
    bits = 2 if len(levels) <= 4 else 3
    rows = np.vectorize(levels.index)(quant.grid.reshape(quant.grid_shape).astype(int))
    return (rows << (bits * np.arange(rows.shape[1]))).sum(axis=1).astype(np.uint16)


def lines(name: str) -> Iterator[str]:
    """One table in C++: a text of four hexadecimal digits a row."""
    rows = packed_rows(name)
    yield f"inline constexpr char k{name.replace('_', '').title()}Rows[] ="
    texts = [
        '    "' + "".join(f"{row:04x}" for row in rows[start : start + PER_LINE]) + '"'
        for start in range(0, len(rows), PER_LINE)
    ]
    yield "\n".join(texts) + ";"


def main() -> None:
    """Write the header."""
    text = [
        "// Rows of the codebook types' grids, for grids.h. Made by scripts/native/grids.py from",
        "// the gguf package, Copyright (c) Georgi Gerganov and its authors, MIT licence.",
        "// A row is four hexadecimal digits.",
        "#pragma once",
        "",
        "namespace moestream {",
        "",
    ]
    for name in GRIDS:
        text += [*lines(name), ""]
    HEADER.write_text("\n".join([*text, "}  // namespace moestream", ""]))


if __name__ == "__main__":
    main()
