"""The tables of docs/policies.md. Knows the figures; measures nothing."""

from __future__ import annotations

import statistics
from typing import Any

from docs.policies_clock import section as elsewhere
from docs.policies_live import live, speed_told, table
from docs.policies_live import shift as live_shift
from docs.policies_words import HEAD, PAPERS, TRIED

Data = dict[str, Any]

_OVER = 1.02
"""Part of a budget above which a row is marked: a prompt's last sets alone come to 1 or 2 %."""


def page(data: Data) -> str:
    """The page in Markdown."""
    parts = [HEAD, _hit_rates(data), _conclusions(data), _shift(data), live_shift(data)]
    parts += [
        _guesses(data),
        elsewhere(data["elsewhere"]),
        _splits(data),
        _overhead(data),
        TRIED,
        live(data),
        _papers(data),
    ]
    return "\n".join(parts)


def _hit_rates(data: Data) -> str:
    out = ["## Hit rates\n\nHits in %; the columns say how many of all experts fit in memory. The "]
    out += ["first rows have one cache for all\nlayers. `belady` knows the future: it is the most "]
    out += [
        "that any policy can reach. `*`: more than the budget was\nin memory, because a layer's "
    ]
    out += ["share was smaller than what one token needs.\n"]
    for label, trace in data["traces"].items():
        shape = f"{trace['layers']} layers of {trace['experts']} experts, {trace['k']} a token"
        out.append(
            f"\n### {label}\n\n{trace['tokens']} tokens; {shape}; {trace['mib']:.0f} MiB.\n\n"
        )
        columns = ["policy", *(f"{percent} %" for percent in data["budgets"])]
        rows = [[f"`{name}`" if " " not in name else name, *map(_rate, found)]
                for name, found in trace["rates"].items()]  # fmt: skip
        out.append(table(columns, rows))
    return "".join(out)


def _rate(found: list[float]) -> str:
    rate, used = found
    return f"{100 * rate:.1f}" + ("*" if used > _OVER else "")


def _pairs(data: Data, *names: str) -> list[list[float]]:
    """Hit rates of several policies in each trace at the budgets up to a half.

    Left out is where the first used more than the budget, and where one token needs more than
    there is: LRU with one cache then hits nothing, by its nature.
    """
    return [
        [trace["rates"][name][place][0] for name in names]
        for trace in data["traces"].values()
        for place, percent in enumerate(data["budgets"])
        if percent <= 50
        and trace["rates"][names[0]][place][1] <= _OVER
        and trace["rates"]["lru"][place][0] > 0
    ]


def _gains(data: Data, name: str, other: str) -> list[float]:
    """Points by which one is above another."""
    return [100 * (one - two) for one, two in _pairs(data, name, other)]


def _closed(data: Data, name: str) -> float:
    """Median share of the gap between LRU and belady that is closed."""
    pairs = _pairs(data, name, "lru", "belady")
    return statistics.median(
        (one - low) / (high - low) for one, low, high in pairs if high - low > 0.01
    )


def _conclusions(data: Data) -> str:
    names = [n for n in next(iter(data["traces"].values()))["rates"] if "belady" not in n]
    rows = []
    for name in names:
        gains = _gains(data, name, "decay")
        rows.append([
            name,
            f"{statistics.mean(_gains(data, name, 'lru')):+.1f}",
            f"{statistics.mean(gains):+.1f}",
            f"{min(gains):+.1f} to {max(gains):+.1f}",
            f"{100 * _closed(data, name):.0f} %",
        ])  # fmt: skip
    text = (
        "\n## All in one table\n\nPercentage points of hits, means over all traces at 5 to 50 %, "
        "where the budget was kept and is more\nthan one token's experts. The last column: how "
        "much of the gap between LRU and belady was closed\n(median).\n\n"
    )
    columns = ["policy", "over lru", "over decay", "from, to", "gap closed"]
    best = max(names, key=lambda name: statistics.mean(_gains(data, name, "decay")))
    moved = statistics.mean(_gains(data, best, "decay"))
    verdict = (
        f"\nThe default is `decay`, one cache for all layers: {_told(data, 'decay', 'lru')}.\nThe "
        f"most hits has {best}, {moved:+.1f} points to `decay`; see the live table for speeds.\n"
    )
    return text + table(columns, rows) + verdict


def _shift(data: Data) -> str:
    shift = data["shift"]
    starts = [str(i * shift["window"]) for i in range(len(shift["rates"]["lru"]))]
    rows = [[f"`{n}`", *(f"{100 * r:.0f}" for r in rs)] for n, rs in shift["rates"].items()]
    return (
        "\n## Italian, then code\n\nThe demo model continues an Italian text, and from token "
        f"{shift['turn']} on Python code; room for a quarter\nof the experts. Hit rate in % of "
        f"each {shift['window']} tokens, by the first of them.\n\n"
        + table(["policy", *starts], rows)
    )


def _guesses(data: Data) -> str:
    found = data["foreseen"]
    labels = list(found["recall"])
    out = [
        "\n## Guesses\n\nThe next layer's gate on this layer's input, on the demo model's three "
        "domains (means). `k` guesses as\nmany as a token uses; `mass P` widens a guess until its "
        "probabilities reach P, to twice k at most. This\nrouter's are small: its two likeliest "
        "of 32 seldom reach 0.4. The first layer cannot be guessed. The\npublic traces have no "
        "hidden states, so they are not used here.\n\nRecall by layer, in %:\n\n",
    ]
    layers = list(found["recall"][labels[0]])
    rows = [[str(n), *(f"{100 * found['recall'][m][n]:.0f}" for m in labels)] for n in layers]
    means = [statistics.mean(found["recall"][m].values()) for m in labels]
    out.append(table(["layer", *labels], [*rows, ["all", *(f"{100 * m:.1f}" for m in means)]]))
    out.append(
        "\nIn memory or foreseen, in % (in brackets: wrong guesses, in experts a token):\n\n"
    )
    columns = ["guess", "cache", *(f"{percent} %" for percent in data["budgets"])]
    rows = [
        [label, name, *(f"{100 * r:.1f} ({w:.1f})" for r, w in zip(v[::2], v[1::2], strict=True))]
        for label, caches in found["covered"].items()
        for name, v in caches.items()
    ]
    return "".join([*out, table(columns, rows)])


def _splits(data: Data) -> str:
    rows = [
        [label, name, *(f"{100 * r['hit_rate']:.1f} % / {r['token_mib']:.0f} / {r['wait_ms']:.1f}"
                        + (f" (at {r['split']:.3g})" if name == "auto" else "") for r in row)]
        for label, trace in data["traces"].items()
        for name, row in trace["splits"].items()
    ]  # fmt: skip
    columns, disk = ["trace", "share kept", "25 %: hits / MiB / ms a token", "50 %"], data["disk"]
    return (
        "\n## Parts of experts\n\n`lcp, adaptive`, with a share of each expert kept, at a quarter "
        f"and at half of all experts. Waiting\nassumes a disk of {disk['bytes_per_s'] / 1e6:.0f} "
        f"MB/s, and that {1e3 * disk['hidden_s']:g} ms a layer are hidden by computing. `auto` is "
        "chosen by\nthe configurator, layer by layer, from how often the trace uses each expert; "
        "the mean is given.\n\n" + table(columns, rows)
    )


def _overhead(data: Data) -> str:
    rows = [[name, f"{us:.0f}"] for name, us in data["overhead_us"].items()]
    return (
        "\n## What deciding costs\n\nProcessor time of the policy alone, in microseconds a token "
        "of the demo model; a token takes about\n10 ms. A quarter of the experts is in memory.\n\n"
        + table(["policy", "us"], rows)
    )


def _told(data: Data, name: str, other: str) -> str:
    gains = _gains(data, name, other)
    spread = f"{min(gains):+.1f} to {max(gains):+.1f}"
    return f"{statistics.mean(gains):+.1f} points to `{other}` ({spread})"


def _papers(data: Data) -> str:
    covered = {m: v["arc, shallow (Fate)"] for m, v in data["foreseen"]["covered"].items()}
    place = 2 * data["budgets"].index(25)
    recall = {m: statistics.mean(v.values()) for m, v in data["foreseen"]["recall"].items()}
    widest = list(covered)[-1]
    fate = (
        f"recall {100 * recall['k']:.0f} % with k guesses, {100 * recall[widest]:.0f} % with twice "
        f"as many; in memory or foreseen at 25 %: {100 * covered[widest][place]:.0f} %; the cache "
        f"itself {_told(data, 'arc, shallow (Fate)', 'decay')}{speed_told(data, 'fate')}"
    )
    ratios = [
        1 - row["auto"][0]["wait_ms"] / row["1"][0]["wait_ms"]
        for row in (trace["splits"] for trace in data["traces"].values())
    ]
    moepic = (
        f"{_told(data, 'lcp, adaptive (MoEpic)', 'decay')}; its shares under our counts: "
        f"{_told(data, 'decay, adaptive', 'decay')}; the best split waits "
        f"{100 * min(ratios):.0f} to {100 * max(ratios):.0f} % less at 25 %"
        f"{speed_told(data, 'moepic')}"
    )
    return "\n" + PAPERS.format(
        lfu=_told(data, "lfu", "lru") + speed_told(data, "lfu"),
        fate=fate,
        moepic=moepic,
        decay=_told(data, "decay", "lru") + speed_told(data, "profile"),
    )
