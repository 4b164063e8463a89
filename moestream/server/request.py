"""What the bodies of requests for an answer have in common, of whatever API they are.

Owns that fields of other servers are known which are not to be had here: one that asks for nothing
is let pass.
"""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, BeforeValidator, ConfigDict
from pydantic_core import PydanticCustomError

from moestream.server.errors import APIError


def _no_truth(value: Any) -> Any:
    if isinstance(value, bool):
        raise PydanticCustomError("int_type", "Input should be a valid integer")
    return value


Whole = Annotated[int, BeforeValidator(_no_truth)]
"""A whole number, and not true or false, which Python takes for 1 and 0."""


class AnswerRequest(BaseModel):
    """A body that asks for an answer."""

    model_config = ConfigDict(extra="allow", allow_inf_nan=False)

    neutral: ClassVar[Mapping[str, tuple[Any, ...]]]
    """Fields that are known and not to be had, with the values that ask for nothing."""

    model: str | None = None

    def check(self) -> None:
        """See that nothing is asked for that is not to be had.

        Raises:
            APIError: something is; it is named.
        """
        for name, value in (self.model_extra or {}).items():
            neutral = self.neutral.get(name)
            if neutral is not None and value is not None and value not in neutral:
                raise APIError(400, f"{name} is not supported here; leave it out", param=name)
