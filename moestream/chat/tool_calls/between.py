"""What formats have in common whose calls stand between an opening marker and a closing one."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Between:
    """``open``, a call or several, ``close`` where there is such a marker."""

    name: str
    open: str
    close: str = ""
    ends_reasoning: bool = False

    @property
    def openers(self) -> tuple[str, ...]:
        """What a call may begin with."""
        return (self.open,)

    @property
    def specials(self) -> tuple[str, ...]:
        """Which special tokens are part of the text."""
        return tuple(filter(None, (self.open, self.close)))
