"""How far something is: bars and spinners, on a terminal alone."""

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from moestream.progress import Progress
from moestream.ui.messages import is_quiet, note
from moestream.ui.streams import console_of, printable


@contextmanager
def progress(
    *, quiet: bool = False, transfer: bool = False, unit: str | None = None
) -> Iterator[Progress]:
    """Draw a bar for every step that the yielded function reports, on a terminal alone.

    Elsewhere a line tells which step has begun; nothing does when ``quiet``. Bars of a
    ``transfer`` count bytes, and have its rate; those of a ``unit`` count that, with its rate.
    """
    quiet = quiet or is_quiet()
    if quiet or not on_terminal():
        begun: set[str] = set()

        def name_once(step: str, done: int, total: int) -> None:
            if not quiet and step not in begun:
                begun.add(step)
                note(step)

        yield name_once
        return
    from rich import progress as bars
    from rich.text import Text

    columns: list[bars.ProgressColumn] = [
        bars.TextColumn("{task.description}"),
        bars.BarColumn(),
        bars.TaskProgressColumn(),
        bars.TimeRemainingColumn(),
    ]
    if transfer:
        columns[3:3] = [bars.DownloadColumn(), bars.TransferSpeedColumn()]
    if unit is not None:
        columns[3:3] = [bars.MofNCompleteColumn(), bars.TextColumn("{task.fields[rate]}")]
    with bars.Progress(*columns, console=console_of(sys.stderr), transient=True) as drawing:
        tasks: dict[str, bars.TaskID] = {}

        def report(step: str, done: int, total: int) -> None:
            if step not in tasks:
                # What was there at the start is no part of the rate.
                name = Text(printable(step)).markup
                tasks[step] = drawing.add_task(name, total=total, completed=done, rate="")
            task = drawing.tasks[tasks[step]]
            drawing.update(task.id, completed=done, total=total)
            if unit is not None and task.speed:
                drawing.update(task.id, rate=f"{task.speed:.0f} {unit}/s")

        yield report


def on_terminal() -> bool:
    """Whether what is told about a run is read on a terminal."""
    return sys.stderr is not None and sys.stderr.isatty()


@contextmanager
def working(message: str, *, quiet: bool = False) -> Iterator[Progress]:
    """Show that something without a length is under way, on a terminal alone.

    If a part of it turns out to have one, the yielded function draws it as ``progress`` does.
    """
    quiet = quiet or is_quiet()
    with ExitStack() as stack:
        status = None
        if not quiet and on_terminal():
            from rich.text import Text

            status = stack.enter_context(console_of(sys.stderr).status(Text(printable(message))))
        bars: Progress | None = None

        def report(step: str, done: int, total: int) -> None:
            nonlocal bars
            if bars is None:
                if status is not None:
                    status.stop()  # one drawing at a time
                bars = stack.enter_context(progress(quiet=quiet))
            bars(step, done, total)

        yield report
