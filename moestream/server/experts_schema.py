"""What the page's endpoints are asked and tell; /openapi.json is written from it.

An expert is told by its *place*: the row of its layer among those that have experts, times experts
a layer, and its number in the layer.
"""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from moestream.forecast.verdict import Verdict

MOST_COUNT = 2**53
"""What a number of JSON holds exactly."""

Counts = Annotated[
    str,
    Field(
        description="Places and counts, one after the other: base64 of whole numbers of 32 bits, "
        "the lowest byte first",
        json_schema_extra={"contentEncoding": "base64"},
    ),
]
Bits = Annotated[
    str,
    Field(
        description="A bit a place: base64, of each byte the lowest bit first",
        json_schema_extra={"contentEncoding": "base64"},
    ),
]


class Told(BaseModel):
    """An answer, or a part of one: nothing else is in it."""

    model_config = ConfigDict(extra="forbid")


class ResidencyState(Told):
    """Which experts are in memory, and which are to stay there."""

    here: Bits
    kept: Bits


class ResidencyModel(Told):
    """The event `model`: what does not change."""

    layers: list[int] = Field(description="The layers that have experts")
    num_experts: int = Field(description="How many each of them has")
    num_experts_per_tok: int
    expert_bytes: list[int] = Field(description="Bytes of an expert, a number a layer")
    streamed: bool = Field(description="False where all are in memory")
    budget_bytes: int | None
    experts_budget_bytes: int | None
    state: ResidencyState | None


class ResidencyTotals(Told):
    """Counts since the start, and bytes now; empty where nothing is streamed."""

    hits: int = 0
    misses: int = 0
    foreseen: int = 0
    stall_s: float = 0
    read_bytes: int = 0
    resident_bytes: int = 0
    kept_bytes: int = 0


class ResidencyFrame(Told):
    """The event `frame`: what is new since the last one."""

    tokens: int = Field(description="That have gone through the first layer")
    used: Counts
    read: Counts
    guessed: Counts
    vain: Counts
    state: ResidencyState | None = Field(None, description="Left out where it is as before")
    totals: ResidencyTotals


class Profiles(Told):
    """Names of the profiles that fit this model."""

    profiles: list[str]


class ProfileRequest(BaseModel):
    """A profile to be kept."""

    name: str
    tokens: int = Field(ge=1, lt=MOST_COUNT)
    uses: list[list[int]] = Field(description="Counts of each expert, by layer")
    replace: bool = False


class ProfileSaved(Told):
    """What was kept."""

    name: str
    saved: str = Field(description="When")
    tokens: int


class ProfileCounts(ProfileSaved):
    """What a profile counted."""

    uses: list[list[int]] = Field(description="Counts of each expert, by layer")


class ForecastPoint(Told):
    """What is foreseen within a budget."""

    budget_bytes: int
    experts_share: float = Field(description="Of the experts, in memory")
    case: Verdict
    tps: float
    low_tps: float
    high_tps: float
    hit_rate: float | None
    read_bytes: float = Field(description="A token")


class Forecast(Told):
    """What is foreseen within other budgets."""

    points: list[ForecastPoint]
    now_bytes: int | None = Field(description="The budget that the server has")
