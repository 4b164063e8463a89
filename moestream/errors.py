"""The exceptions that moestream raises on purpose.

::

    MoestreamError
    ├── ModelFormatError        the file is not what its header, or a GGUF file, should be
    ├── UnsupportedModelError   a sound file of an architecture, tokenizer or option we lack
    ├── UnsupportedQuantError   a tensor in a quantisation type that nothing here can read
    ├── ModelNotFoundError      a model name or path that leads nowhere
    ├── CatalogError            models.toml is missing or not what it should be
    ├── DownloadError           a source file could not be had, or is not the one expected
    ├── TemplateError           a chat template that is missing or does not render
    └── ContextLengthError      more tokens than the session's KV cache holds

Every message says what was found, what was expected and what to do. The library raises them;
only ``moestream.cli`` catches them.
"""


class MoestreamError(Exception):
    """Base of all errors that are the input's, the machine's or the user's doing, not a bug."""


class ModelFormatError(MoestreamError):
    """The file is damaged, truncated, or not a GGUF file that makes sense."""


class UnsupportedModelError(MoestreamError):
    """The file is sound, but it asks for an architecture, tokenizer or option that we lack."""


class UnsupportedQuantError(MoestreamError):
    """A tensor is stored in a type that no code here can read."""


class ModelNotFoundError(MoestreamError):
    """A MODEL argument is neither a known name nor a file."""


class CatalogError(MoestreamError):
    """The catalogue of named models is missing, or a table in it is wrong."""


class DownloadError(MoestreamError):
    """A source file could not be fetched, or its hash is wrong."""


class TemplateError(MoestreamError):
    """The chat template is missing or fails to render."""


class ContextLengthError(MoestreamError):
    """A session was given more tokens than its context holds."""
