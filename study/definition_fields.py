"""The kinds of field that definitions are written in, and the words that a fault message expects them with."""

from __future__ import annotations

from datetime import date
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, StringConstraints
from pydantic.types import Strict

from study.calendar import Period, parse_period

CODE_WORDS = "small letters, digits and underscores, a letter first"
Code = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,39}$")]
Line = Annotated[
    str, StringConstraints(pattern=r"^[^\x00-\x1f\x7f]*[^\x00-\x20\x7f][^\x00-\x1f\x7f]*$", max_length=600)
]
Day = Annotated[date, Strict()]
BodyKind = Literal["council", "ccg", "icb", "nhs_trust", "clinic", "university", "other"]


def _read_period(value: object) -> Period:
    if isinstance(value, Period):
        return value
    if isinstance(value, str):
        return parse_period(value)
    raise ValueError("not a period")


PeriodText = Annotated[Period, BeforeValidator(_read_period)]
PERIOD_WORDS = 'a period in quotes, such as "14 days", "-2 weeks" or "6 months"'
DAY_WORDS = "a date without quotes, such as 2017-07-01"
LINE_WORDS = "one line of text in quotes, at most 600 characters"
CODE_IN_QUOTES = f"a short name in quotes ({CODE_WORDS})"


class DefinitionModel(BaseModel):
    """The description of each field is the expectation that a fault message states."""

    model_config = ConfigDict(frozen=True, extra="forbid")
