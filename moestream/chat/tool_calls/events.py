"""What is told of a model's tool calls as they come."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class CallBegin:
    """A call has begun; ``id`` is what the model itself calls it, where its format has such."""

    index: int
    name: str
    id: str | None = None


@dataclass(frozen=True, slots=True)
class CallArguments:
    """More of the call's arguments: all of them joined are the text of a JSON object."""

    index: int
    text: str


@dataclass(frozen=True, slots=True)
class CallEnd:
    """A call has ended; its arguments are valid JSON whatever happened.

    ``whole`` is False where the model was cut off or wrote nonsense, and we closed what was open:
    such a call is not to be carried out. Of nonsense, all that the model wrote follows as text.
    """

    index: int
    whole: bool = True


CallEvent = CallBegin | CallArguments | CallEnd
