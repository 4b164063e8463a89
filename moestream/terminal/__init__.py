"""The chat on a terminal: a line editor below, Markdown as it is written above.

Owns keys, the screen and the status line; ``prompt_toolkit`` is used here alone. Knows nothing of
models: it is handed words and numbers.
"""
