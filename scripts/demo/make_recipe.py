"""Make the recipe of the demo model: routers, neuron sets and gains of 30 x 32 experts.

Run it as ``python scripts/demo/make_recipe.py --source MODEL.gguf --work FOLDER``. The folder
keeps the Debian packages and the sampled conversations; it needs a Debian system with apt. On two
idle cores it takes about ten minutes. The recipe goes to ``moestream/demo/recipe.npz``.

Method, layer by layer, on texts of five domains and on the source model's own conversations:

1. the FFN inputs that the layers *already split* give are clustered by direction (`router`);
2. neurons and gains are chosen jointly over the experts (`neurons`), each token weighted by the
   inverse square of its residual stream, the first of a sequence more;
3. the split FFN's output, not the dense one's, goes on to the next layer.
"""

from __future__ import annotations

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # the pool below is the parallelism

import argparse
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from moestream.demo.recipe import RECIPE_PATH, LayerRecipe, save_recipe
from moestream.gguf import GGUFFile
from moestream.tokenizer import Tokenizer

sys.path.insert(0, str(Path(__file__).parents[1]))  # scripts/: its folders are packages
from demo.corpus import DOMAINS, fetch_packages, load_documents
from demo.dense import (
    DenseModel,
    Floats,
    Layer,
    activations,
    attention,
    converse,
    load_dense,
    rms_norm,
)
from demo.questions import questions
from demo.split import neurons, router, routing_weights

Tokens = NDArray[np.int32]
LENGTH, SEQUENCES_PER_DOMAIN, PER_DOCUMENT = 512, 24, 2
CHAT_ROWS, CHAT_LENGTH = 32, 256
SYSTEM = (
    "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face"
    "<|im_end|>\n"
)
THREADS = 2
# All heads rest their attention on the first token, whose state is huge: an error there is an
# error everywhere. Two runs without this weight differed in its state, and by 0.05 nats of loss.
FIRST_TOKEN_WEIGHT = 32


def corpus_tokens(folder: Path, tokenizer: Tokenizer, count: int, *, held_out: bool) -> Tokens:
    """`count` sequences of each domain, in the order of DOMAINS: (5 * count, LENGTH)."""
    documents = [d for d in load_documents(folder) if d.held_out == held_out]
    rows: list[list[int]] = []
    for domain in DOMAINS:
        mine: list[list[int]] = []
        for document in documents:
            if document.domain == domain and len(mine) < count:
                ids = tokenizer.encode(document.text[: LENGTH * 6 * PER_DOCUMENT])
                starts = range(0, len(ids) - LENGTH + 1, LENGTH)[:PER_DOCUMENT]
                mine += [ids[start : start + LENGTH] for start in starts]
        rows += mine[:count]
    return np.array(rows, np.int32)


def chat_tokens(
    path: Path, model: DenseModel, tokenizer: Tokenizer, rows: int, *, held_out: bool
) -> Tokens:
    """Conversations that the source model makes up: (rows, CHAT_LENGTH), kept in `path`."""
    if path.exists():
        return np.asarray(np.load(path), np.int32)
    asked = questions(held_out=held_out)

    def turn(row: int, number: int) -> list[int]:
        question = asked[(row + rows * number) % len(asked)]
        # Half of the conversations have the system prompt, half begin with the user.
        opening = (SYSTEM if row % 2 == 0 else "") if number == 0 else "\n"
        text = f"{opening}<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n"
        return tokenizer.encode(text, add_special=False)

    first = [turn(row, 0) for row in range(rows)]
    ended = tokenizer.encode("<|im_end|>", add_special=False)[0]
    tokens = converse(model, first, turn, length=CHAT_LENGTH, end_id=ended, seed=1)
    np.save(path, tokens)
    return tokens


def token_weights(states: Floats) -> Floats:
    """How much an error at each token matters, by its state: (S, T, E) -> (S, T)."""
    weights: Floats = 1 / np.square(states).sum(axis=-1)
    weights[:, 0] *= FIRST_TOKEN_WEIGHT
    return weights


def split_layer(
    layer: Layer, states: list[Floats], pool: ThreadPoolExecutor, rng: np.random.Generator
) -> tuple[LayerRecipe, list[Floats]]:
    """The recipe of one layer from the states (S, T, E) after its attention, and its outputs."""
    flat = [state.reshape(-1, state.shape[-1]) for state in states]
    normed = [rms_norm(x, layer.ffn_norm) for x in flat]
    values = list(pool.map(lambda inputs: activations(layer, inputs), normed))
    codes, scales = router(np.concatenate(normed), rng)
    rows = codes.astype(np.float32) * scales.astype(np.float32)[:, None]
    weights = [routing_weights(inputs @ rows.T) for inputs in normed]
    column_squares = np.square(layer.down).sum(axis=1)
    energy = np.concatenate(
        [
            np.square(value) * (column_squares * token_weights(state).reshape(-1, 1))
            for value, state in zip(values, states, strict=True)
        ]
    )
    chosen, gains = neurons(energy, np.concatenate(weights))
    recipe = LayerRecipe(codes, scales, chosen, gains)

    def output(value: Floats, weight: Floats) -> Floats:
        kept = value * recipe.coefficients(weight, len(layer.down))
        return np.asarray(kept @ layer.down, np.float32)

    outputs = pool.map(output, values, weights)
    return recipe, [out.reshape(x.shape) for out, x in zip(outputs, states, strict=True)]


def make_recipe(
    model: DenseModel, batches: list[Tokens], progress: Callable[[str], None]
) -> list[LayerRecipe]:
    """Split all layers in turn; each batch is (S, T), of its own length."""
    rng, recipes = np.random.default_rng(0), []
    # Small pieces keep both threads busy to the end.
    pieces = [batch[start : start + 8] for batch in batches for start in range(0, len(batch), 8)]
    states = [model.embedding[piece] for piece in pieces]
    with ThreadPoolExecutor(THREADS) as pool:
        for index, layer in enumerate(model.layers):
            attended = pool.map(partial(attention, layer), states)
            states = [x + added for x, added in zip(states, attended, strict=True)]
            recipe, outputs = split_layer(layer, states, pool, rng)
            states = [x + added for x, added in zip(states, outputs, strict=True)]
            recipes.append(recipe)
            progress(f"layer {index} of {len(model.layers)} split")
    return recipes


def main() -> None:
    """Parse arguments, gather the corpus, make and save the recipe."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--source", type=Path, required=True, help="SmolLM2-135M-Instruct GGUF")
    parser.add_argument("--work", type=Path, required=True, help="folder for packages and samples")
    parser.add_argument("--output", type=Path, default=RECIPE_PATH)
    parser.add_argument("--sequences", type=int, default=SEQUENCES_PER_DOMAIN, help="a domain")
    arguments = parser.parse_args()
    began = time.monotonic()

    def progress(text: str) -> None:
        print(f"{time.monotonic() - began:7.1f} s  {text}", flush=True)

    fetch_packages(arguments.work / "packages")
    model = load_dense(arguments.source)
    with GGUFFile.open(arguments.source) as file:
        tokenizer = Tokenizer.from_gguf(file)
    texts = corpus_tokens(
        arguments.work / "packages", tokenizer, arguments.sequences, held_out=False
    )
    progress(f"{texts.size} tokens of text")
    chat = chat_tokens(arguments.work / "chat.npy", model, tokenizer, CHAT_ROWS, held_out=False)
    progress(f"{chat.size} tokens of conversation")
    recipe = make_recipe(model, [texts, chat], progress)
    save_recipe(recipe, len(model.layers[0].down), arguments.output)
    progress(f"{arguments.output.stat().st_size} bytes in {arguments.output}")


if __name__ == "__main__":
    main()
