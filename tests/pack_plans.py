"""Plans of packs made by hand, for tests and benchmarks."""

from __future__ import annotations

from datetime import date
from typing import Any

import pandas as pd

from study.identifiers import compute_identifier
from study.packs import PackPlan, Purpose, derive_pack_id
from study.protocol import Study

AS_OF = date(2018, 1, 8)
CONSENT_COLUMNS = [
    *("participant_id", "site_id", "consented_on", "signed_on", "form_version", "scopes", "route", "form", "taken_by"),
    *("capacity", "sixteen_in", "copy", "copy_due_on", "reconsent_due_on", "faults"),
]


def make_identifier(study: Study, number: int, code: str = "LUT") -> str:
    rule = study.fieldwork.identifier_rule
    assert rule is not None
    return compute_identifier(rule, code, number)


def make_rows(study: Study, n: int, **columns: Any) -> pd.DataFrame:
    """What is due from n people: the 6-month follow-up, every fourth on the easy-read form, due day after day."""
    days = pd.Series(pd.to_datetime("2018-01-22") + pd.to_timedelta([i % 20 for i in range(n)], unit="D"))
    return pd.DataFrame(
        {
            "participant_id": [make_identifier(study, number) for number in range(1, n + 1)],
            "site_id": "luton",
            "wave": "follow_up_6m",
            "respondent": "self",
            "form": ["easy_read" if i % 4 == 3 else "standard" for i in range(n)],
            "instruments": [
                "ascot_sct4;ons4;service_use" if i % 4 == 3 else "eq5d5l;ascot_sct4;ons4" for i in range(n)
            ],
            "opens_on": days - pd.Timedelta("14D"),
            "due_on": days,
            "closes_on": days + pd.Timedelta("28D"),
            "late_until": days + pd.Timedelta("56D"),
            "copy_number": 1,
        }
    ).assign(**columns)


def make_consents(study: Study, *rows: dict[str, Any]) -> pd.DataFrame:
    """Consents as `derive_consents` gives them; each row states what is unusual, and the number of the person."""
    usual = {
        "site_id": "luton", "consented_on": pd.Timestamp("2017-12-20"), "signed_on": pd.Timestamp("2017-12-20"),
        "form_version": "1.0", "scopes": "linkage;questionnaires", "route": "self", "form": "standard",
        "taken_by": "", "capacity": "", "sixteen_in": "", "copy": "held", "copy_due_on": pd.Timestamp("2018-01-05"),
        "reconsent_due_on": pd.NaT, "faults": "",
    }  # fmt: skip
    told = [usual | {"participant_id": make_identifier(study, row["number"])} | row for row in rows]
    frame = pd.DataFrame(told, columns=CONSENT_COLUMNS)
    return frame.assign(reconsent_due_on=pd.to_datetime(frame["reconsent_due_on"]))


def make_stops(study: Study, *told: tuple[int, str, str]) -> pd.DataFrame:
    """What has stopped: number of the person, what, and since when."""
    rows = [(make_identifier(study, number), "luton", stops, pd.Timestamp(day)) for number, stops, day in told]
    return pd.DataFrame(rows, columns=["participant_id", "site_id", "stops", "from_on"])


def make_queries(*told: tuple[str, str, dict[str, str]]) -> pd.DataFrame:
    """Open queries: number, rule, and what they are about."""
    blank = dict.fromkeys(
        ("participant_id", "wave", "respondent", "instrument", "item", "sheet", "column_name", "return_id"), ""
    )
    rows = [blank | {"query_id": number, "rule": rule, "row": 0, "site_id": "luton"} | of for number, rule, of in told]
    return pd.DataFrame(rows)


def make_plan(study: Study, n: int = 8, purpose: Purpose = "wave", **fields: Any) -> PackPlan:
    """A pack for Luton of 8 January 2018, with n people due."""
    fields = {"rows": make_rows(study, n)} | fields
    return PackPlan(derive_pack_id("luton", AS_OF, 1), "luton", AS_OF, purpose, **fields)


def make_full_plan(study: Study, n: int = 8) -> PackPlan:
    """A pack with something on every sheet."""
    rows = make_rows(study, n)
    if n > 2:
        rows.loc[1, "copy_number"] = 2
    return make_plan(
        study,
        rows=rows,
        consents=make_consents(
            study,
            {"number": 3, "copy": ""},
            {"number": 4},
            {"number": 5, "copy": "missing", "route": "consultee", "capacity": "not_assessed",
             "faults": "capacity_not_assessed"},
            {"number": 6, "route": "parent", "faults": "sixteen_unknown"},
        ),
        queries=make_queries(
            ("LUT-0007", "level_unknown", {
                "participant_id": make_identifier(study, 1), "wave": "baseline", "respondent": "self",
                "instrument": "eq5d5l", "item": "eq5d5l_ua", "sheet": "eq5d5l", "column_name": "eq5d5l_ua",
                "return_id": "luton-2017-10-02-1",
            }),
            ("LUT-0009", "date_missing", {
                "sheet": "disposition", "column_name": "left_on", "return_id": "luton-2017-12-04-1", "row": 7,
            }),
        ),
        first_number=201,
        n_numbers=50,
        stop_list=make_stops(
            study, (30, "linkage", "2017-11-02"), (31, "questionnaires", "2017-12-02"), (31, "post", "2017-12-02"),
            (31, "linkage", "2017-12-02"), (32, "post", "2017-12-24"),
        ),
        figures=pd.DataFrame(
            {
                "month": ["2017-11", "2017-12", "2017-12"],
                "figure": ["care_plans", "care_plans", "budgets"],
                "due_on": pd.to_datetime(["2017-12-11", "2018-01-11", "2018-01-11"]),
                "evaluation": pd.array([41, None, None], "Int64"),
                "nhs_england": pd.array([None, None, None], "Int64"),
            }
        ),
        approaches=pd.DataFrame(
            {
                "participant_id": [make_identifier(study, number) for number in (101, 102)],
                "cohort": "mental_health",
                "body": ["", "luton_ccg"],
                "screened_on": pd.to_datetime(["2017-12-01", "2017-12-05"]),
                "approached_on": pd.to_datetime(["2017-12-02", "2017-12-05"]),
            }
        ),
        unsigned=(make_identifier(study, 110),),
        unallocated=(make_identifier(study, 3), make_identifier(study, 5)),
    )  # fmt: skip
