"""What Python or the system says was wrong, in words for a person.

Owns the words: no message shows an exception's own form, an errno or a codec. Knows no file.
"""

import json
import re


def reason_of(error: BaseException) -> str:
    """Say in a clause what went wrong."""
    if isinstance(error, UnicodeDecodeError):
        return f"not UTF-8 text: byte {error.start} is 0x{error.object[error.start]:02x}"
    if isinstance(error, json.JSONDecodeError):
        if not error.doc.strip():
            return "it is empty"
        return f"it is not JSON in line {error.lineno}, column {error.colno}"
    if isinstance(error, RecursionError):
        return "nested too deeply"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if isinstance(error, ValueError) and "int_max_str_digits" in str(error):
        return "a number in it has thousands of digits"
    words = re.sub(r"\[Errno -?\d+\] ", "", " ".join(str(error).split()))
    return words or type(error).__name__
