"""Everything that a person sees: messages, progress, generated text and tables.

What was asked for goes to standard output, everything else to standard error. Colours and bars
appear on a terminal alone (and ``NO_COLOR`` is respected); elsewhere the output is plain text that
is never cut or wrapped. Knows nothing of models: it is handed words and numbers. rich is imported
when something is to be drawn, because it takes 0.1 s.
"""

from moestream.ui.bars import on_terminal, progress, working
from moestream.ui.messages import (
    be_quiet,
    error,
    hear_library,
    hear_warnings,
    log_crash,
    log_end,
    log_to,
    note,
    note_fields,
    warning,
    write_note,
    write_text,
)
from moestream.ui.streams import (
    abandon_output,
    flush,
    hide_lines,
    prepare,
    printable,
    printable_lines,
)
from moestream.ui.tables import print_fields, print_heat, print_json, print_line, print_table
from moestream.ui.units import format_bytes, format_count, format_memory, rate_told

__all__ = [
    "abandon_output",
    "be_quiet",
    "error",
    "flush",
    "format_bytes",
    "format_count",
    "format_memory",
    "hear_library",
    "hear_warnings",
    "hide_lines",
    "log_crash",
    "log_end",
    "log_to",
    "note",
    "note_fields",
    "on_terminal",
    "prepare",
    "print_fields",
    "print_heat",
    "print_json",
    "print_line",
    "print_table",
    "printable",
    "printable_lines",
    "progress",
    "rate_told",
    "warning",
    "working",
    "write_note",
    "write_text",
]
