"""What a chat tells beside an answer: what goes on, how it ended, what a full context offers."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from moestream.cli.reports.generate import drafts_told

if TYPE_CHECKING:
    from moestream.chat.dialogue import Answer, Dialogue
    from moestream.chat.reasoning import Piece

OFFER = (
    "/drop forgets the oldest turns but not the system prompt, /clear all turns; "
    "/set context-shift on drops them whenever there is need, --ctx-size makes it larger"
)


def activity(answer: "Answer", pieces: "list[Piece]") -> str:
    """What the model does; ``pieces`` are the last that came."""
    stats = answer.stats
    if not stats.generated_tokens:
        return f"reading {stats.prompt_tokens}/{answer.prompt_tokens - answer.cached_tokens}"
    return "thinking" if pieces and pieces[-1].kind == "reasoning" else "answering"


def end_notes(dialogue: "Dialogue", answer: "Answer", *, verbose: bool) -> Iterator[str]:
    """What there is to say of an answer that has ended; ``verbose``: how much was kept for it."""
    from moestream.chat.reuse import reuse_told

    prompt, dropped = dialogue.session.tokens[: answer.prompt_tokens], answer.dropped_turns
    if verbose and len(prompt) == answer.prompt_tokens:
        yield reuse_told(dialogue.tokenizer, prompt, answer.cached_tokens)
    if verbose and (told := drafts_told(answer.stats)):
        yield told
    if dropped:
        yield f"dropped the {dropped} oldest turn{'' if dropped == 1 else 's'} to make room"
    if answer.stop_reason == "interrupted":
        yield (
            "stopped; what there is of the answer is kept"
            if answer.kept
            else "stopped before the answer began: the message was taken back"
        )
    elif answer.stop_reason == "context":
        length = dialogue.engine.context_length
        yield f"the context of {length} tokens is full, so the answer ends here; {OFFER}"
    elif answer.stop_reason == "length":
        yield f"stopped at {answer.stats.generated_tokens} tokens (/set predict changes that)"
