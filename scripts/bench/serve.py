"""How fast the server is: beside ``generate``, with many clients, with long prompts, under a cap.

python scripts/bench/serve.py MODEL [--llama-server build/bin/llama-server] [--only clients,...]

Each part starts servers of its own, warms them up, and measures ``--repeat`` times; figures are
medians. llama-server runs in the same run, on the same file, with as many slots, with its repacking
on and off, and the better one counts. ``--cap`` runs need root, on Linux. The last line is JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import signal
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

sys.path.insert(0, str(Path(__file__).parents[1]))  # scripts/: its folders are packages
from bench.capped import MOESTREAM, budget_under
from bench.cgroups import cgroup
from bench.http_load import Answer, ask, chat, wait_ready

QUESTIONS = (
    "Write a long story about a lighthouse keeper.",
    "Explain in detail how a bicycle stays upright.",
    "Schreibe eine lange Geschichte über einen Bäcker.",
    "Racconta una lunga storia di un pescatore.",
    "Escribe una larga historia sobre un jardín.",
    "Raconte une longue histoire de montagne.",
    "Write a Python program that plays chess, with comments.",
    "List the rivers of Europe and say something of each.",
)
WORDS = "river stone lamp winter bread window garden silver letter morning bridge".split()  # noqa: SIM905


@contextmanager
def server(command: list[str], port: int, group: Any = None) -> Iterator[psutil.Process]:
    """A server that is ready, and that is ended afterwards."""
    command = command if group is None else group.enter(command)
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        asyncio.run(wait_ready(port))
        yield psutil.Process(process.pid)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


def ours(model: Path, port: int, *flags: str) -> list[str]:
    """The command that starts our server."""
    named = ["--alias", "any", "--prompt-cache", "off"]
    return [*MOESTREAM, "serve", str(model), "--port", str(port), "-q", *named, *flags]


def theirs(program: Path, model: Path, port: int, slots: int, *flags: str) -> list[str]:
    """The command that starts llama-server, with a context for each slot as long as ours."""
    threads = str(psutil.cpu_count(logical=False))
    common = ["-m", str(model), "--port", str(port), "-np", str(slots), "-c", str(8192 * slots)]
    return [str(program), *common, "-t", threads, "--no-webui", *flags]


def free_port() -> int:
    """A port that nobody listens at."""
    with socket.socket() as any_port:
        any_port.bind(("127.0.0.1", 0))
        return int(any_port.getsockname()[1])


def body(question: str, tokens: int, **more: Any) -> dict[str, Any]:
    """A request that is answered with exactly so many tokens."""
    messages = [{"role": "user", "content": question}]
    fixed = {"temperature": 0, "seed": 1, "ignore_eos": True, "max_tokens": tokens}
    return {"model": "any", "messages": messages, **fixed, **more}


def text_of(words: int, seed: int) -> str:
    """Words by chance: about as many tokens, and nothing that another seed begins with."""
    drawn = random.Random(seed)
    return " ".join(drawn.choice(WORDS) for _ in range(words))


async def clients(port: int, count: int, tokens: int) -> float:
    """Total tokens a second of so many clients who ask at once, from the first token on."""
    asked = [body(QUESTIONS[i % len(QUESTIONS)], tokens) for i in range(count)]
    answers = await asyncio.gather(*(chat(port, each) for each in asked))
    begun = min(answer.first_s for answer in answers)
    return sum(answer.tokens for answer in answers) / (max(a.last_s for a in answers) - begun)


def median(measure: Callable[[], float], repeat: int) -> float:
    """The median of some measurements, after one that does not count."""
    measure()
    return statistics.median(measure() for _ in range(repeat))


def overhead(args: argparse.Namespace) -> dict[str, Any]:
    """tg128 of one client, beside ``generate`` in turn, each as its reader sees the text come.

    The speed that ``generate`` tells of itself is without what it does with the text.
    """

    def generated() -> float:
        command = [*MOESTREAM, "generate", str(args.model), "-p", QUESTIONS[0], "-n", "128"]
        times = []
        with subprocess.Popen([*command, "--temp", "0", "-q"], stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            while os.read(process.stdout.fileno(), 1 << 16):
                times.append(time.perf_counter())
        return 127 / (times[-1] - times[0])

    port = free_port()
    with server(ours(args.model, port), port):
        served = lambda: asyncio.run(chat(port, body(QUESTIONS[0], 128))).decode_tps  # noqa: E731
        pairs = [(generated(), served()) for _ in range(args.repeat + 1)][1:]
    alone, through = (statistics.median(column) for column in zip(*pairs, strict=True))
    return {"generate_tps": alone, "serve_tps": through, "overhead": 1 - through / alone}


def many_clients(args: argparse.Namespace) -> dict[str, Any]:
    """Total speed of 1, 2, 4 and 8 clients, beside llama-server."""
    found: dict[str, Any] = {"ours": {}, "llama_server": {}}
    port = free_port()
    with server(ours(args.model, port, "--parallel", "8"), port):
        for n in (1, 2, 4, 8):
            found["ours"][n] = median(lambda: asyncio.run(clients(port, n, 128)), args.repeat)  # noqa: B023
    for flags in ([], ["--no-repack"]) if args.llama_server else ():
        port = free_port()
        with server(theirs(args.llama_server, args.model, port, 8, *flags), port):
            for n in (1, 2, 4, 8):
                tps = median(lambda: asyncio.run(clients(port, n, 128)), args.repeat)  # noqa: B023
                found["llama_server"][n] = max(tps, found["llama_server"].get(n, 0.0))
    found["eight_to_one"] = found["ours"][8] / found["ours"][1]
    if found["llama_server"]:
        found["ratio"] = {n: tps / found["llama_server"][n] for n, tps in found["ours"].items()}
    return found


async def _beside_long(port: int, seed: int) -> float:
    long = asyncio.create_task(chat(port, body(text_of(7970, seed), 1)))
    await asyncio.sleep(1.0)
    short = await chat(port, body("What is the capital of Italy?", 4))
    reading = not long.done()
    await long
    if not reading:
        raise RuntimeError("the long prompt was read before the short one came")
    return short.first_s


def short_beside_long(args: argparse.Namespace) -> dict[str, Any]:
    """The first token of a short request while one of 8,000 tokens is read."""
    port = free_port()
    with server(ours(args.model, port), port):
        seeds = iter(range(100))
        found = [asyncio.run(_beside_long(port, next(seeds))) for _ in range(args.repeat)]
    return {"first_token_s": statistics.median(found), "worst_s": max(found)}


async def _turns(port: int, seed: int) -> tuple[Answer, Answer]:
    question = text_of(5970, seed) + "\nWhat is this?"
    first = await chat(port, body(question, 16))
    messages = [
        {"role": "user", "content": question},
        {"role": "assistant", "content": first.text},
        {"role": "user", "content": "And why?"},
    ]
    return first, await chat(port, body("", 16, messages=messages))


def second_turn(args: argparse.Namespace) -> dict[str, Any]:
    """The first token of a second turn, beside that of a first turn of 6,000 tokens."""
    port = free_port()
    with server(ours(args.model, port), port):
        runs = [asyncio.run(_turns(port, seed)) for seed in range(args.repeat)]
    first, second = runs[0]
    return {
        "first_s": statistics.median(one.first_s for one, _ in runs),
        "second_s": statistics.median(two.first_s for _, two in runs),
        "ratio": statistics.median(two.first_s / one.first_s for one, two in runs),
        "prompt_tokens": [first.usage.get("prompt_tokens"), second.usage.get("prompt_tokens")],
        "cached_tokens": second.usage.get("prompt_tokens_details", {}).get("cached_tokens"),
    }


async def _in_turn(port: int, count: int, tokens: int) -> float:
    """Tokens a second of what so many clients ask, one after another."""
    answers = [await chat(port, body(question, tokens)) for question in QUESTIONS[:count]]
    return sum(a.tokens for a in answers) / sum(a.last_s - a.first_s for a in answers)


def capped(args: argparse.Namespace) -> dict[str, Any]:
    """Four clients who ask in other languages each, at once and in turn, under a cap of memory.

    Besides, one who asks the same again and again, whose experts come to be in memory.
    """
    port, found = free_port(), {}
    with cgroup("memory") as group:
        group.limit_memory(args.cap << 20)
        flags = ("--budget", budget_under(args.cap), "-c", "2048")
        with server(ours(args.model, port, *flags), port, group) as process:
            for name, ask_all in (
                ("same", lambda: clients(port, 1, 128)),
                ("in_turn", lambda: _in_turn(port, 4, 128)),
                ("at_once", lambda: clients(port, 4, 128)),
            ):
                found[name] = median(lambda: asyncio.run(ask_all()), args.repeat)  # noqa: B023
            alive = process.is_running()
    ratios = {f"to_{name}": found["at_once"] / found[name] for name in ("in_turn", "same")}
    return {"cap_mib": args.cap, "tps": found, **ratios, "alive": alive}


async def _soak(port: int, requests: int, connections: int) -> tuple[list[float], int, int]:
    numbers, latencies, wrong, left = iter(range(requests)), [], 0, 0
    expected: dict[str, str] = {}

    async def one_after_another() -> None:
        nonlocal wrong, left
        for number in numbers:
            question = f"Count: {number % 97}"
            leaves = number % 10 == 9
            started = time.perf_counter()
            answer = await chat(port, body(question, 8), leave_after=2 if leaves else None)
            while answer.status == 503:
                await asyncio.sleep(0.2)
                answer = await chat(port, body(question, 8), leave_after=2 if leaves else None)
            if leaves:
                left += 1
                continue
            latencies.append(time.perf_counter() - started)
            if answer.status != 200 or answer.text != expected.setdefault(question, answer.text):
                wrong += 1

    await asyncio.gather(*(one_after_another() for _ in range(connections)))
    return latencies, wrong, left


def soak(args: argparse.Namespace) -> dict[str, Any]:
    """Thousands of requests, one in ten of which goes away midway."""
    port = free_port()
    with server(ours(args.model, port, "--parallel", "8", "--waiting", "128"), port) as process:
        asyncio.run(_soak(port, 200, 64))
        before = process.memory_info().rss, process.num_fds()
        started = time.perf_counter()
        latencies, wrong, left = asyncio.run(_soak(port, args.requests, 64))
        took = time.perf_counter() - started
        time.sleep(1)
        after = process.memory_info().rss, process.num_fds()
        asyncio.run(ask(port, "/v1/chat/completions", body("Still there?", 4)))
    ordered = sorted(latencies)
    return {
        "requests": args.requests,
        "per_s": args.requests / took,
        "went_away": left,
        "wrong": wrong,
        "p50_s": ordered[len(ordered) // 2],
        "p99_s": ordered[len(ordered) * 99 // 100],
        "rss_mib": [n / 2**20 for n in (before[0], after[0])],
        "descriptors": [before[1], after[1]],
    }


PARTS = {
    "overhead": overhead,
    "clients": many_clients,
    "short": short_beside_long,
    "turns": second_turn,
    "capped": capped,
    "soak": soak,
}


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--llama-server", type=Path)
    parser.add_argument("--only", default=",".join(PARTS), help="parts, with commas between")
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--cap", type=int, default=700, metavar="MIB")
    parser.add_argument("--requests", type=int, default=10_000)
    args = parser.parse_args()
    found: dict[str, Any] = {"model": args.model.name, "cpus": os.cpu_count()}
    for name in args.only.split(","):
        found[name] = PARTS[name](args)
        print(f"{name}: {json.dumps(found[name])}", flush=True)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
