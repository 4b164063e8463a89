"""The exceptions that moestream raises on purpose.

::

    MoestreamError
    ├── ModelFormatError        the file is not what its header, or a GGUF file, should be
    ├── UnsupportedModelError   a sound file of an architecture, tokenizer or option we lack
    ├── UnsupportedQuantError   a tensor in a quantisation type that nothing here can read
    ├── ModelNotFoundError      a model name or path that leads nowhere
    ├── CatalogError            models.toml is missing or not what it should be
    ├── ConfigError             the user's config.toml is not what it should be
    ├── DownloadError           a source file could not be had, or is not the one expected
    ├── DemoBuildError          the demo model cannot be built here: no room on the disk
    ├── TemplateError           a chat template that is missing or does not render
    ├── ConversationError       a saved conversation that is damaged or is not one
    ├── TraceError              a routing trace that is damaged or does not make sense
    ├── ProfileError            a profile that is missing, damaged, or of another model
    ├── BudgetError             a memory budget that cannot be read or kept
    ├── PlotError               a figure that cannot be drawn with what is installed
    ├── ResourceError           threads or memory that the system does not give
    ├── StorageError            a disk or file system that fails, or lacks what was asked of it
    ├── NumericError            what a model computes is no number any more
    ├── RankError               a machine of several that share a model fails, or does not fit
    ├── BusyError               a server with no place for one more request
    ├── RequestError            a request that cannot be honoured: a field, a schema, a grammar
    └── ContextLengthError      more tokens than the session's KV cache holds
        └── MessageLengthError  one message is too long, whatever is forgotten for it

Every message says what was found, what was expected and what to do. The library raises them;
only ``moestream.cli`` and ``moestream.server`` catch them.
"""


class MoestreamError(Exception):
    """Base of all errors that are the input's, the machine's or the user's doing, not a bug."""


class MoestreamWarning(RuntimeWarning):
    """Of what a person should know and nothing is wrong with; others' warnings are for the log."""


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


class ConfigError(MoestreamError):
    """The user's config file is not TOML, or sets something that no command has."""


class DownloadError(MoestreamError):
    """A source file could not be fetched, or its hash is wrong."""


class DemoBuildError(MoestreamError):
    """The demo model cannot be written here: no room, or the disk refuses."""


class TemplateError(MoestreamError):
    """The chat template is missing or fails to render."""


class ChatUsageError(MoestreamError):
    """A command of the chat that does not exist, or not so."""


class ConversationError(MoestreamError):
    """A saved conversation is damaged, or is not one."""


class TraceError(MoestreamError):
    """A routing trace is damaged, or is not one."""


class ProfileError(MoestreamError):
    """A profile of expert use is missing, damaged, of another model, or cannot be written."""


class BudgetError(MoestreamError):
    """A memory budget is not an amount of memory, or is not one that can be kept."""


class PlotError(MoestreamError):
    """A figure was asked for that cannot be drawn with what is installed."""


class ContextLengthError(MoestreamError):
    """A session was given more tokens than its context holds."""

    @classmethod
    def of(cls, new: int, before: int, capacity: int) -> "ContextLengthError":
        """Say what does not fit, and in which context it would."""
        needed = 1 << (new + before).bit_length()
        if not before:
            return cls(
                f"The prompt has {new:,} tokens and the context holds {capacity:,}. Use -c "
                f"{needed} or more, or shorten the prompt."
            )
        return cls(
            f"The conversation has {before:,} tokens, the new text {new:,}, and the context holds "
            f"{capacity:,}. Use -c {needed} or more, or shorten it."
        )


class MessageLengthError(ContextLengthError):
    """One message alone has more tokens than the context holds."""


class ResourceError(MoestreamError):
    """The system gives no more threads, or no more memory."""


class StorageError(MoestreamError):
    """A disk or file system fails to read, or cannot read in the way that was asked."""


class NumericError(MoestreamError):
    """A model's logits are NaN or infinite: nothing can be chosen by them."""


class RankError(MoestreamError):
    """One of several machines that share a model fails, has gone, or has another model."""


class BusyError(MoestreamError):
    """A server has as many requests waiting as it takes."""


class RequestError(MoestreamError):
    """A request asks for what cannot be honoured; ``param`` names the field, if it is one."""

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param
