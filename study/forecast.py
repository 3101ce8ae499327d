"""When each site will open: a forecast from how long this study's own approvals have taken.

An item that still needs something goes through steps: "submission" (from the day on which it could be sent in until it
is), "validation" (where the route's clock starts at "valid") and "decision" (until it is in force; clock stops and open
conditions are inside it). How long a step takes is learned for each route and step, over all sites: from completed
steps, from those that still run (they took longer than so far) and from a prior that counts as `weight` cases. The log
of a duration has a location and a scale, and one of three shapes (normal, logistic, smallest extreme value: so the
duration is log-normal, log-logistic or Weibull), and all three are weighed by how well they fit. The location's own
uncertainty is part of the prior's spread, so that without own cases the prior's quartiles come back.

Each draw takes one set of such parameters per route and step for all sites, then a duration for every step that is not
over, given that it was not over by now, and passes them through the pathway: an item is sent in after its
`submitted_after` are in force, and not in force before its `granted_after` are. The study's own approvals fall on the
same day at all sites of a draw. `benchmarks/forecast.py` shows how well the dates are calibrated.

Judgement calls. What is in force is taken to stay so; what has expired is sought again, and takes as long as the first
time. What was refused or withdrawn has no date until somebody sends it in again: that is a decision, not a duration
(`hindrance`). A refusal took as long as a decision takes. A grant on the day on which what it waited for came into
force says only that the work took no longer than that; while that is not in force, waiting says nothing. Approvals of
single persons do not open a site. Modifications do not either, and their durations are not looked at.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
from scipy.special import expit, logit, ndtr, ndtri

from study.approval_steps import DAY, ITEM, Item, derive_attempts, derive_spells, derive_steps, find_clock, list_items
from study.approvals import STATES
from study.calendar import find_holidays, is_working_day
from study.events import KINDS, ApprovalEvent, ForecastRecorded
from study.gate import derive_open_days, open_gate
from study.pathway import Approval, Pathway, Prior
from study.protocol import Site, Study
from study.state import Events

Step = Literal["submission", "validation", "decision"]
Unit = Literal["calendar", "working"]
Numbers = np.ndarray[Any, np.dtype[np.float64]]
Days = np.ndarray[Any, np.dtype[np.int32]]

MODEL = "log_scale_three_shapes_1"
"""What made a recorded forecast. Raise the number with any change that moves its dates."""

HORIZON_DAYS = 1096
"""Three years: a date that lies further off than that is not told."""

_DEFAULT_SOURCE = "No figure is known: a wide guess that one own case outweighs."
DEFAULT_PRIORS: Mapping[Step, tuple[int, int, int]] = {
    "submission": (7, 21, 60),
    "validation": (2, 5, 14),
    "decision": (25, 60, 140),
}
"""Lower quartile, median and upper quartile in calendar days, for a route that has no prior of its own; weight 1."""
