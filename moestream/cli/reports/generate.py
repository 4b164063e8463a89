"""What ``moestream generate`` tells: the text as it comes, what it took, or all of it as JSON.

Owns what is known of a run so far, and its words.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from moestream import ui
from moestream.cli.reports.streaming import StreamingReport, saved_fields

if TYPE_CHECKING:
    from moestream.chat.output import Output, OutputStream
    from moestream.chat.reasoning import Piece
    from moestream.engine.stats import Stats
    from moestream.terminal.plain import PlainView
    from moestream.traces.recording import ProfileRecorder


@dataclass(slots=True)
class Run:
    """What is known of a run so far: whenever it is interrupted, this can be reported."""

    model: str
    seed: int | None
    as_json: bool
    quiet: bool
    verbose: bool = False
    view: "PlainView | None" = None
    """What writes the text, unless JSON is wanted."""
    parts: "list[Piece]" = field(default_factory=list)
    backend: str | None = None
    draft: str | None = None
    cache_types: tuple[str | None, str | None] = (None, None)
    budget_bytes: int | None = None
    advised: Mapping[str, Any] = field(default_factory=dict)
    """What of the sampling the model's maker chose."""
    outcome: StreamingReport | None = None
    rows_per_token: dict[str, float] | None = None
    """What a token read of a table that stays in the file."""
    profile: "ProfileRecorder | None" = None
    load_s: float = 0.0
    stats: "Stats | None" = None
    stream: "OutputStream | None" = None
    stop_reason: str | None = None

    def emit(self, pieces: "Iterable[Output]") -> None:
        """Keep pieces of text, and write them unless JSON is wanted."""
        from moestream.chat.reasoning import Piece

        for piece in pieces:
            assert isinstance(piece, Piece)  # no tools were offered
            self.parts.append(piece)
            if self.view is not None:
                self.view.add(piece.kind, piece.text)

    def end_text(self) -> None:
        """Write what was held back, and end the line."""
        if self.stream is not None:
            self.emit(self.stream.finish(cut=False))
        if self.view is not None:
            self.view.end()

    def text(self, kind: str) -> str:
        """All that was said, of the ``reasoning`` or of the ``answer``."""
        return "".join(piece.text for piece in self.parts if piece.kind == kind)


def report(run: Run) -> None:
    """Tell what a run took, or everything as JSON."""
    if run.as_json:
        ui.print_json(_as_json(run))
    stats = run.stats
    if run.quiet:
        return
    if stats is None:
        ui.note(f"{run.stop_reason} before the model was loaded")
    else:
        began = f"first token after {stats.ttft_s:.2f} s, " if stats.generated_tokens else ""
        ui.note(
            f"prompt {stats.prompt_tokens} tokens{ui.rate_told(stats.prompt_tps)}; "
            f"generated {stats.generated_tokens} tokens{ui.rate_told(stats.generation_tps)}; "
            f"{began}load {run.load_s:.2f} s; {_end_told(run, stats)}"
        )
    if run.verbose and stats is not None and (told := _work_told(stats)):
        ui.note(told)
    if run.verbose and run.rows_per_token is not None:
        rows, size = run.rows_per_token["rows"], int(run.rows_per_token["bytes"])
        ui.note(f"a token read {rows:.1f} rows of the table, {ui.format_memory(size)}")
    if run.verbose and stats is not None and (told := drafts_told(stats)):
        ui.note(told)
    if run.verbose and run.outcome is not None:
        ui.note_fields("experts", run.outcome.fields())
    if run.profile is not None and run.profile.saved is not None:
        ui.note(f"{run.profile.saved.tokens} tokens profiled in {run.profile.path}")


def _end_told(run: Run, stats: "Stats") -> str:
    """Why it ended, in words."""
    ends = {
        "end": "the model ended here",
        "length": f"stopped at {stats.generated_tokens} tokens (-n {stats.generated_tokens})",
        "context": "stopped because the context is full; -c makes it larger",
        "stop": "stopped before the text given with --stop",
        "interrupted": "interrupted",
    }
    return ends.get(run.stop_reason or "", "ended by an error")


def drafts_told(stats: "Stats") -> str | None:
    """How many guesses were right, in one line; None where none were made."""
    if not stats.drafted_tokens:
        return None
    return (
        f"{stats.accepted_tokens} of {stats.drafted_tokens} guessed tokens were right; "
        f"{stats.generation_steps - stats.accepted_tokens} passes gave {stats.generation_steps} "
        "tokens"
    )


def _work_told(stats: "Stats") -> str | None:
    """What the backend did for a token, beside the arithmetic, in one line."""
    work = stats.work_per_token
    if work is None:
        return None
    return (
        f"a token took {work['synchronisations']:.1f} synchronisations, "
        f"{work['operations']:.0f} kernels, {ui.format_memory(int(work['copied_bytes']))} copied"
    )


def _as_json(run: Run) -> dict[str, Any]:
    from moestream.engine.stats import Stats

    stats = run.stats or Stats()
    return {
        "text": run.text("answer"),
        "reasoning": run.text("reasoning"),
        "prompt_tokens": stats.prompt_tokens,
        "generated_tokens": stats.generated_tokens,
        "stop_reason": run.stop_reason,
        "timings": {
            "load_s": run.load_s,
            "ttft_s": stats.ttft_s,
            "prompt_tps": stats.prompt_tps,
            "generation_tps": stats.generation_tps,
        },
        "draft": {
            "kind": run.draft,
            "drafted_tokens": stats.drafted_tokens,
            "accepted_tokens": stats.accepted_tokens,
        },
        "work_per_token": stats.work_per_token,
        "rows_per_token": run.rows_per_token,
        "model": run.model,
        "backend": run.backend,
        "seed": run.seed,
        "advised_sampling": dict(run.advised),
        "cache_type_k": run.cache_types[0],
        "cache_type_v": run.cache_types[1],
        "budget_bytes": run.budget_bytes,
        "saved_profile": None if run.profile is None else saved_fields(run.profile),
        "residency": None if run.outcome is None else run.outcome.to_dict(),
    }
