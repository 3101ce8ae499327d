"""How long the expected returns of a large study take, from decoded events to the finished table.

Run it with `python -m benchmarks.waves [--participants 100000]`. The IPC evaluation with all its planned instruments
defined and every site open: each person and their carer at three waves, most baselines in, half of the six-month
follow-ups sent out, and people who have left. Every figure is the first fold of a ledger whose rows are decoded
already: consent, leaving, the gate and the holds are folded in it too. Memory is the peak of the process.
"""

from __future__ import annotations

import argparse
import resource
import statistics
from datetime import date
from time import perf_counter, process_time
from typing import Any

import numpy as np
import pyarrow as pa
from rich.console import Console

from study.approval_steps import list_items
from study.events import (
    ApprovalGranted,
    ApprovalSubmitted,
    ConsentRecorded,
    DispositionRecorded,
    Event,
    ParticipantAllocated,
    ParticipantScreened,
    ReturnAccepted,
    ReturnReleased,
)
from study.protocol import Study
from study.state import Events, derive_schema
from study.waves import derive_expected_returns
from tasks.definitions import load_study

AS_OF = date(2018, 6, 1)
FIRST = np.datetime64("2017-07-03")
N_DAYS_OF_JOINING = 300
MOST_SECONDS = 2.0
MOST_MEGABYTES = 2_000

Column = Any


def make_table(kind: type[Event], n: int, told: dict[str, Column]) -> pa.Table:
    """`n` rows of a kind. A column that is not told is blank; one value stands for all rows."""
    columns = {}
    for field in derive_schema(kind):
        values = told.get(field.name)
        if field.name in ("seq", "source_row", "n_items", "n_answered", "version", "copy_number") and values is None:
            values = np.arange(1, n + 1) if field.name == "seq" else np.ones(n, np.int64)
        elif field.name in ("hash", "key") and values is None:
            values = [f"{kind.kind}-{place:058d}" for place in range(n)]
        elif field.name == "recorded_at":
            values = np.full(n, np.datetime64("2018-01-01", "us"))
        elif values is None:
            values = ""
        if isinstance(values, str):
            values = pa.array([values], pa.string()).take(pa.array(np.zeros(n, np.int64)))
        elif isinstance(values, tuple):
            values = pa.array([list(values)], pa.list_(pa.string())).take(pa.array(np.zeros(n, np.int64)))
        columns[field.name] = values if isinstance(values, pa.Array) else pa.array(values).cast(field.type)
    return pa.table(columns, schema=derive_schema(kind))


def make_events(study: Study, n: int) -> Events:
    rng = np.random.default_rng(20170703)
    sites = [study.sites[place % len(study.sites)] for place in range(n)]
    ids = np.array([f"{site.code}-P{place:06d}" for place, site in enumerate(sites)])
    site_ids = np.array([site.site_id for site in sites])
    cohorts = np.array([cohort.id for cohort in study.cohorts])[rng.integers(0, len(study.cohorts), n)]
    joined = FIRST + rng.integers(0, N_DAYS_OF_JOINING, n)
    who = {"participant_id": ids, "site_id": site_ids, "occurred_on": joined}
    scopes = tuple(scope.id for scope in study.consent_scopes)
    consent = {"form_version": "1.0", "basis": "signed", "route": "self", "scopes": scopes}
    left = np.flatnonzero(rng.random(n) < 0.1)
    tables = {
        ParticipantScreened: make_table(ParticipantScreened, n, {**who, "cohort": cohorts}),
        ConsentRecorded: make_table(ConsentRecorded, n, {**who, **consent}),
        ParticipantAllocated: make_table(ParticipantAllocated, n, {**who, "arm": "intervention"}),
        DispositionRecorded: make_table(
            DispositionRecorded,
            len(left),
            {
                **{name: values[left] for name, values in who.items()},
                "occurred_on": joined[left] + 120,
                "scope": "questionnaires",
                "reason": "withdrew",
            },
        ),
        ReturnAccepted: make_returns(study, ids, site_ids, joined + rng.integers(0, 40, n), rng.random(n) < 0.9),
        ReturnReleased: make_sendings(ids, site_ids, joined, rng.random(n) < 0.5),
        **make_approvals(study),
    }
    return Events({kind.kind: table for kind, table in tables.items()})


def make_returns(study: Study, ids: Column, site_ids: Column, days: Column, is_in: Column) -> pa.Table:
    """The baselines of most people and their carers, an event for each instrument."""
    asked = [(entry.respondent, entry.instrument) for entry in study.find_scheduled("baseline", "long_term_conditions")]
    asked = [pair for pair in asked if pair[0] != "proxy"]
    own = np.repeat(np.flatnonzero(is_in), len(asked))
    told = {
        "participant_id": ids[own],
        "site_id": site_ids[own],
        "occurred_on": days[own],
        "wave": "baseline",
        "respondent": np.resize([pair[0] for pair in asked], len(own)),
        "instrument": np.resize([pair[1] for pair in asked], len(own)),
    }
    return make_table(ReturnAccepted, len(own), told)


def make_sendings(ids: Column, site_ids: Column, joined: Column, is_sent: Column) -> pa.Table:
    """Every baseline, and half of the six-month follow-ups, to the person and the carer."""
    parts = [(np.arange(len(ids)), "baseline", 0), (np.flatnonzero(is_sent), "follow_up_6m", 170)]
    own = np.concatenate([np.repeat(people, 2) for people, _, _ in parts])
    after = np.concatenate([np.full(2 * len(people), n_days) for people, _, n_days in parts])
    day = joined[own] + after
    told: dict[str, Column] = {
        **{"participant_id": ids[own], "site_id": site_ids[own], "occurred_on": day},
        **{"opens_on": day, "due_on": day + 28, "late_until": day + 84},
        "wave": np.concatenate([np.full(2 * len(people), wave) for people, wave, _ in parts]),
        "respondent": np.resize(["self", "carer"], len(own)),
        "form": "standard",
        "pack_id": "pack-1",
    }
    packed = pa.array([["ascot_sct4", "eq5d5l", "ons4", "service_use"], ["ascot_carer"]], pa.list_(pa.string()))
    told["instruments"] = packed.take(pa.array(np.arange(len(own)) % 2))
    return make_table(ReturnReleased, len(own), told)


def make_approvals(study: Study) -> dict[type[Event], pa.Table]:
    """Everything is granted everywhere before the first person joins."""
    items = [
        (item, study.pathway.find_routes(approval.id, study.starts_on))
        for approval in study.pathway.approvals
        for item, _ in list_items(study, approval, study.sites)
    ]
    place = {
        name: [getattr(item, name) for item, routes in items if routes] for name in ("approval", "site_id", "body_id")
    }
    routes = [routes[0].id for _, routes in items if routes]
    n, told = len(routes), {**place, "attempt": np.ones(len(routes), np.int64)}
    no_day = {name: np.full(n, np.datetime64("NaT"), "datetime64[us]") for name in ("in_force_from", "expires_on")}
    sent = {**told, "route": routes, "occurred_on": np.full(n, np.datetime64("2016-12-01"))}
    granted = {**told, **no_day, "occurred_on": np.full(n, np.datetime64("2017-05-01"))}
    return {
        ApprovalSubmitted: make_table(ApprovalSubmitted, n, sent),
        ApprovalGranted: make_table(ApprovalGranted, n, granted),
    }


def load_defined_study() -> Study:
    """The IPC evaluation as if all that it plans were defined."""
    study = load_study("ipc")
    names = (*study.instruments, *(planned.id for planned in study.planned_instruments))
    return study.model_copy(update={"instruments": names, "planned_instruments": ()})


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--participants", type=int, default=100_000)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    study = load_defined_study()
    made = make_events(study, options.participants)
    seconds, worked = [], []
    for _ in range(options.repeats):
        fresh = Events(made.tables)  # nothing is remembered from the time before
        started, worked_before = perf_counter(), process_time()
        expected = derive_expected_returns(study, fresh, AS_OF)
        seconds.append(perf_counter() - started)
        worked.append(process_time() - worked_before)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    console = Console(width=110)
    console.print(
        f"{options.participants:,} participants, {made.count_rows():,} events, {len(expected):,} expected returns: "
        f"{statistics.median(seconds):.2f} s (at most {MOST_SECONDS:.0f} for 100,000), of which "
        f"{statistics.median(worked):.2f} s of processor time; peak {peak:,.0f} MB (at most {MOST_MEGABYTES:,}). "
        f"As of {AS_OF}."
    )
    counts = expected["status"].value_counts()
    console.print(", ".join(f"{status} {n:,}" for status, n in counts.items()))
    is_well = statistics.median(seconds) <= MOST_SECONDS and peak <= MOST_MEGABYTES
    return 0 if is_well or options.participants != 100_000 else 1


if __name__ == "__main__":
    raise SystemExit(main())
