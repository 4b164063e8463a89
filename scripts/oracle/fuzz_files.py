"""Changes model files at random and runs what moestream does with them: it must say no, or run.

Every golden model, with a small tokenizer put into it, has one to three of its metadata, its
tensors' entries or its tokenizer's tables changed. Then it is inspected, planned, given a text to
encode and a token to compute, in a process whose memory is capped. Sound are a result, and a
``MoestreamError`` of one line, within two seconds; anything else is counted and listed with the
seed that makes it again: ``--first SEED --count 1``.

    python scripts/oracle/fuzz_files.py --count 20000

The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import random
import resource
import select
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from copy import deepcopy
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))  # scripts/: its folders are packages

from oracle.gguf_parts import ARRAY, FLOAT32, INT32, NUMBERS, STRING, Entry, Key, Parts, take_apart

GOLDEN = Path(__file__).resolve().parents[2] / "tests" / "data" / "golden"
SECONDS = 2.0
CAP_BYTES = 2 << 30
"""Of address space, beyond what a process has before its first file."""
HUNG_S = 30.0
WHOLE = [0, 1, 2, 3, 7, 31, 127, 255, 2**15, 2**16, 2**24, 2**30, 2**31 - 1, 2**31, 2**32 - 1]
WHOLE += [2**40, 2**62, 2**63 - 1, 2**63, 2**64 - 1, -1]
REAL = [0.0, -0.0, 1.0, -1.0, 1e-45, 1e-30, 1e30, 3.4e38, float("inf"), float("nan"), 1 + 1e-7]
WORDS = [b"", b"none", b"linear", b"yarn", b"llama", b"gpt2", b"gemma4", b"default", b"qwen2", b"a"]
WORDS += [b"\xff\xfe", b"<s>", b"<|im_end|>", "é\n".encode(), b"x" * 5000, b"{{ 1 }}", b"<0x0A>"]


def main() -> None:
    """Run, and list what went wrong."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--count", type=int, default=20000, help="files to try")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args()
    started = time.monotonic()
    found, wrong = campaign(options.first, options.count, options.processes)
    for seed, told in sorted(wrong):
        print(f"seed {seed}: {told}")
    seconds = round(time.monotonic() - started, 1)
    result = {"files": options.count, "wrong": len(wrong), "seconds": seconds, **found}
    print(json.dumps(result))
    sys.exit(1 if wrong else 0)


def campaign(first: int, count: int, processes: int) -> tuple[Counter[str], list[tuple[int, str]]]:
    """Try the seeds; count outcomes, and list those that are wrong."""
    sources = [take_apart(path) for path in sorted(GOLDEN.glob("*.gguf"))]
    found: Counter[str] = Counter()
    wrong: list[tuple[int, str]] = []
    running = [
        _Worker(sources, range(first + n, first + count, processes)) for n in range(processes)
    ]
    while running:
        ready = select.select([worker.pipe for worker in running], [], [], 1)[0]
        for worker in list(running):
            for seed, outcome, told in worker.read() if worker.pipe in ready else worker.look():
                found[outcome] += 1
                if outcome not in ("runs", "refused"):
                    wrong.append((seed, f"{outcome}: {told}"))
            if worker.done:
                running.remove(worker)
    return found, wrong


class _Worker:
    """A process that tries seeds; where one ends it, another goes on with the next."""

    def __init__(self, sources: list[Parts], seeds: range) -> None:
        self._sources, self._seeds, self._next = sources, seeds, 0
        self.done = False
        self._start()

    def _start(self) -> None:
        reads, writes = os.pipe()
        self._heard, self._rest = time.monotonic(), b""
        self._process = os.fork()
        if self._process == 0:
            os.close(reads)
            try:
                with os.fdopen(writes, "w", buffering=1) as out:
                    _try_all(self._sources, self._seeds[self._next :], out)
            finally:  # whatever happens, this process is not the one that counts
                os._exit(0)
        os.close(writes)
        self.pipe = reads

    def read(self) -> list[tuple[int, str, str]]:
        """What came of the seeds since."""
        data = os.read(self.pipe, 1 << 16)
        self._heard = time.monotonic()
        *lines, self._rest = (self._rest + data).split(b"\n")
        self._next += len(lines)
        answers = [tuple(json.loads(line)) for line in lines]
        return answers if data else [*answers, *self._ended("the process ended")]

    def look(self) -> list[tuple[int, str, str]]:
        """Give up on one that says nothing any more."""
        if time.monotonic() - self._heard < HUNG_S:
            return []
        os.kill(self._process, signal.SIGKILL)
        return self._ended("nothing came of it")

    def _ended(self, told: str) -> list[tuple[int, str, str]]:
        os.close(self.pipe)
        status = os.waitstatus_to_exitcode(os.waitpid(self._process, 0)[1])
        if self._next >= len(self._seeds):
            self.done = True
            return []
        seed = self._seeds[self._next]
        self._next += 1
        self.done = self._next >= len(self._seeds)
        if not self.done:
            self._start()
        return [(seed, "crash", f"{told}, status {status}")]


def _try_all(sources: list[Parts], seeds: range, out: Any) -> None:
    """Try seeds one after another, in this process."""
    warnings.simplefilter("ignore")
    logging.disable()
    from oracle.fuzz_use import use  # all that it imports is not of the cap

    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + CAP_BYTES, size + CAP_BYTES))
    signal.signal(signal.SIGALRM, _too_slow)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.gguf")
        for seed in seeds:
            path.write_bytes(make(sources, seed))
            out.write(json.dumps([seed, *_try(use, path, seed)]) + "\n")


class TooSlow(BaseException):
    """The time is over."""


def _too_slow(number: int, frame: object) -> None:
    raise TooSlow


def _try(use: Any, path: Path, seed: int) -> tuple[str, str]:
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        return use(path, seed)
    except TooSlow:
        return "slow", _where()
    except BaseException:
        return "wrong", _where()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def _where() -> str:
    lines = traceback.format_exc().strip().splitlines()
    places = [line.strip() for line in lines if "moestream/" in line]
    return f"{lines[-1][:200]} at {'; '.join(places[-2:])[:300]}"


# --- the changes ---


def make(sources: list[Parts], seed: int) -> bytes:
    """A changed file: the same for a seed."""
    rng = random.Random(seed)
    parts = deepcopy(sources[seed % len(sources)])
    give_tokenizer(parts, rng)
    for _ in range(rng.randint(1, 3)):
        rng.choice([_change_key, _change_key, _change_entry, _change_table])(parts, rng)
    contents = bytearray(bytes(parts))
    if rng.random() < 0.1:
        contents[rng.randrange(len(contents) - len(parts.data))] = rng.randrange(256)
    return bytes(contents)


def give_tokenizer(parts: Parts, rng: random.Random) -> None:
    """Put a vocabulary of as many tokens as the model has in its place."""
    size = next(entry.dims[1] for entry in parts.entries if entry.name == b"token_embd.weight")
    parts.keys = [key for key in parts.keys if not key.name.startswith(b"tokenizer.")]
    letters = [chr(code).encode() for code in range(0x21, 0x7F)] + [b"ab", "Ġ".encode(), b"<|x|>"]
    tokens = (letters + [f"t{number}".encode() for number in range(size)])[:size]
    types = [3 if token.startswith(b"<|") else 1 for token in tokens]
    keys = {b"tokens": tokens, b"token_type": types}
    if rng.random() < 0.5:
        add(parts, b"model", STRING, b"gpt2")
        add(parts, b"pre", STRING, b"gpt-2")
        keys[b"merges"] = [b"a b"]
    else:
        add(parts, b"model", STRING, b"llama")
        keys[b"scores"] = [-float(number) for number in range(size)]
    for name, values in keys.items():
        of = {int: INT32, float: FLOAT32}.get(type(values[0]), STRING)
        parts.keys.append(Key(b"tokenizer.ggml." + name, ARRAY, values, of))
    for role in (b"bos", b"eos", b"unknown"):
        add(parts, role + b"_token_id", 4, rng.randrange(size))
    add(parts, b"add_bos_token", 7, True)


def add(parts: Parts, name: bytes, type: int, value: Any) -> None:
    """Add a key of the tokenizer."""
    parts.keys.append(Key(b"tokenizer.ggml." + name, type, value))


def _change_key(parts: Parts, rng: random.Random) -> None:
    key = rng.choice(parts.keys)
    way = rng.random()
    if way < 0.08:
        parts.keys.remove(key)
    elif way < 0.12:
        parts.keys.append(deepcopy(key))
    elif way < 0.2 and key.type != ARRAY:
        key.type = rng.choice([*NUMBERS, STRING, 13])
    elif way < 0.25 and key.type != ARRAY:
        key.type, key.of, key.value = ARRAY, key.type, [key.value] * rng.choice([0, 1, 2, 3, 999])
    elif key.type == ARRAY:
        _change_array(key, rng)
    else:
        key.value = _other(key.value, rng)


def _change_array(key: Key, rng: random.Random) -> None:
    way = rng.random()
    if way < 0.2:
        key.value = key.value[: rng.randrange(len(key.value) + 1)]
    elif way < 0.3:
        key.value = key.value * 2
    elif way < 0.4:
        key.of = rng.choice([*NUMBERS, STRING, ARRAY])
    elif key.value:
        for _ in range(rng.choice([1, 1, 5, len(key.value)])):
            place = rng.randrange(len(key.value))
            key.value[place] = _other(key.value[place], rng)


def _other(value: Any, rng: random.Random) -> Any:
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        near = [value + 1, value - 1, value * 2, value // 2, -value, rng.randrange(2**32)]
        return rng.choice(WHOLE + near)
    if isinstance(value, float):
        return rng.choice([*REAL, value * 2, -value, rng.uniform(-100, 100)])
    cut = value[: rng.randrange(len(value) + 1)]
    return rng.choice([*WORDS, cut, value + b"x", value.upper(), rng.randbytes(rng.randrange(9))])


def _change_entry(parts: Parts, rng: random.Random) -> None:
    entry: Entry = rng.choice(parts.entries)
    way = rng.random()
    if way < 0.15:
        parts.entries.remove(entry)
    elif way < 0.25:
        entry.name = _other(entry.name, rng)
    elif way < 0.35:
        entry.name = rng.choice(parts.entries).name
    elif way < 0.5:
        entry.type = rng.choice([*range(42), 2**32 - 1])
    elif way < 0.6:
        entry.offset = rng.choice([*WHOLE, entry.offset + 32, entry.offset + 1])
    elif way < 0.7:
        rng.shuffle(entry.dims)
    elif way < 0.8:
        entry.dims = rng.choice([[], [*entry.dims, 1], [1, *entry.dims], entry.dims[:-1], [1] * 5])
    else:
        place = rng.randrange(len(entry.dims)) if entry.dims else 0
        entry.dims[place : place + 1] = [_other(entry.dims[place] if entry.dims else 1, rng)]


def _change_table(parts: Parts, rng: random.Random) -> None:
    tables = [key for key in parts.keys if key.name.startswith(b"tokenizer.")]
    if not tables:
        return
    key = rng.choice(tables)
    if key.type == ARRAY:
        _change_array(key, rng)
    else:
        key.value = _other(key.value, rng)


if __name__ == "__main__":
    main()
