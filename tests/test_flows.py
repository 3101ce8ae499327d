"""The flows' own parts, without a server: what a failure tells, what a form offers, which day and sites a run means."""

from __future__ import annotations

import datetime as dt
import logging
import pickle
import traceback
from collections import Counter
from datetime import UTC, date, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pandas as pd
import pandera.pandas as pa
import pytest
from prefect.states import Completed
from prefect.types._datetime import create_datetime_instance
from prefect.utilities.schema_tools.validation import validate

from desk.serve import Registered, describe, narrow_schema, set_environment
from flows import runs
from flows.approvals import follow_approvals_now
from flows.chasing import chase_now
from flows.datasets import freeze_dataset
from flows.returns import receive_returns_now
from flows.runs import conclude, find_as_of, find_sites, format_day, leave_artifact
from flows.study_day import study_day
from flows.waves import release_wave_now
from study.datasets import ReleaseFault
from study.instruments import DefinitionFaults
from tasks.definitions import list_sites, list_studies, list_waves, load_study
from tasks.files import AreaUnavailable, KeyRefused
from tasks.ledger import LedgerRefused
from tasks.orchestration import StepFailed, describe_fault, guarded
from tasks.settings import PROJECT, Settings
from tasks.workspace import Workspace

SECRET = "01-701-1015"
FLOWS = (study_day, receive_returns_now, release_wave_now, chase_now, follow_approvals_now, freeze_dataset)


def validate_with_pandera() -> None:
    pa.DataFrameSchema({"mmse01": pa.Column(float, pa.Check.le(5))}).validate(pd.DataFrame({"mmse01": [987654.0]}))


def fail_with(fault: Exception) -> None:
    raise fault


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        (ValueError(f"cannot read {SECRET}"), "ValueError (tests/test_flows.py:"),
        (KeyError(SECRET), "KeyError (tests/test_flows.py:"),
        (LedgerRefused(f"Row 7 (return:{SECRET}:self) does not concern"), "LedgerRefused ("),
        (KeyRefused(f'"{SECRET}.xlsx": has a line break.'), "KeyRefused ("),
        (
            AreaUnavailable(f"sites/701/inbox/a: {SECRET}: permission denied. Give the account the right."),
            "AreaUnavailable: permission denied. Give the account the right (tests/test_flows.py:",
        ),
        (PermissionError(13, "Permission denied", f"inbox/{SECRET}.xlsx"), "PermissionError: Permission denied ("),
        (ExceptionGroup(SECRET, [ValueError(SECRET)]), "ExceptionGroup ("),
        # Their own texts tell of protocol files and of counts, and are what a person needs.
        (DefinitionFaults(["study.toml: a", "sites/701.toml: b"]), "study.toml: a\nsites/701.toml: b"),
        (ReleaseFault(["participants: 2 rows share their key."]), "participants: 2 rows share their key."),
        (StepFailed("ipc has no site 999."), "ipc has no site 999."),
    ],
)
def test_a_failed_step_tells_type_and_place_and_no_value(fault: Exception, told: str) -> None:
    with pytest.raises(StepFailed) as caught:
        guarded(fail_with)(fault)
    assert str(caught.value).startswith(told)
    assert SECRET not in str(caught.value)


def test_the_first_exception_is_nowhere_in_the_clean_one() -> None:
    with pytest.raises(pa.errors.SchemaError, match="987654"):
        validate_with_pandera()
    with pytest.raises(StepFailed) as caught:
        guarded(validate_with_pandera)()
    fault = caught.value
    assert fault.__cause__ is None
    assert fault.__context__ is None
    shown = "".join(traceback.format_exception(fault))
    assert "987654" not in shown
    assert b"987654" not in pickle.dumps(fault)
    assert "in validate_with_pandera" in str(fault)


def test_even_inside_a_handler_the_first_exception_stays_out() -> None:
    try:
        raise ValueError("outer")
    except ValueError:
        with pytest.raises(StepFailed) as caught:
            guarded(fail_with)(KeyError(SECRET))
    assert SECRET not in "".join(traceback.format_exception(caught.value))


def test_a_guard_lets_results_and_interruptions_through() -> None:
    assert guarded(len)([1, 2]) == 2
    with pytest.raises(KeyboardInterrupt):
        guarded(lambda: fail_with(cast(Exception, KeyboardInterrupt())))()


def test_the_place_is_in_this_project_and_is_no_path_of_a_machine() -> None:
    try:
        date.fromisoformat(SECRET)
    except ValueError as fault:
        told = describe_fault(fault)
    assert str(PROJECT) not in told
    assert told.startswith("ValueError (tests/test_flows.py:")


@pytest.mark.parametrize("flow", FLOWS, ids=lambda flow: str(flow.name))
def test_nothing_of_a_flow_is_kept_and_no_print_is_caught(flow: Any) -> None:
    assert flow.persist_result is False
    assert flow.log_prints is False
    assert flow.description


# The form


@pytest.mark.parametrize("flow", FLOWS, ids=lambda flow: str(flow.name))
@pytest.mark.parametrize("study_id", ["cdisc_pilot", "ipc"])
def test_a_form_offers_its_own_study_and_its_sites(flow: Any, study_id: str) -> None:
    own = list_sites(None, study_id)
    waves = list_waves(None, study_id)
    schema = narrow_schema(flow.parameters.model_dump(), study_id, own, waves)
    fields = schema["properties"]
    assert fields["study"]["enum"] == [study_id]
    assert schema["required"] == ["study", "requested_by"]
    assert "default" not in fields["as_of"]
    if "sites" in fields:
        assert fields["sites"]["items"]["enum"] == own
        assert len(own) == 17
    if "waves" in fields:
        assert fields["waves"]["items"]["enum"] == waves
        assert len(waves) == {"ipc": 3, "cdisc_pilot": 15}[study_id]
    # The flow's own is left as it was.
    assert flow.parameters.properties["study"]["enum"] == list_studies()


@pytest.mark.parametrize(
    ("parameters", "is_right"),
    [
        ({}, True),
        ({"as_of": "2013-02-28"}, True),
        ({"as_of": None}, True),
        ({"as_of": ""}, False),
        ({"as_of": "2013-2-28"}, False),
        ({"as_of": "2013-00-10"}, False),
        ({"as_of": "2013-01-32"}, False),
        ({"as_of": "2013-01-31T00:00:00"}, False),
        ({"sites": []}, True),
        ({"sites": ["701", "702"]}, True),
        ({"sites": [701]}, False),
        ({"requested_by": "A"}, False),
        ({"requested_by": "\t \n"}, False),
        ({"requested_by": "x" * 81}, False),
        ({"requested_by": "Jo"}, True),
    ],
)
def test_what_the_form_accepts(parameters: dict[str, Any], is_right: bool) -> None:
    sites = list_sites(None, "cdisc_pilot")
    schema = narrow_schema(receive_returns_now.parameters.model_dump(), "cdisc_pilot", sites, [])
    given = {"study": "cdisc_pilot", "requested_by": "Ann", **parameters}
    assert (not validate(given, cast(Any, schema))) is is_right


def test_a_name_is_trimmed_and_a_date_parsed_before_the_flow_sees_them() -> None:
    given = {"study": "ipc", "requested_by": "  Ann Smith ", "sites": ["luton"], "as_of": "2018-02-01"}
    parsed = receive_returns_now.validate_parameters(given)
    assert parsed == {
        "study": "ipc", "requested_by": "Ann Smith", "sites": ["luton"], "as_of": date(2018, 2, 1),
    }  # fmt: skip


def test_what_prefect_yaml_runs_exists() -> None:
    """Each study has its six deployments, by the names that the documents use."""
    text = (PROJECT / "prefect.yaml").read_text()
    for study_id in list_studies():
        for name in ("daily round", "receive returns", "release wave", "chase", "follow approvals", "freeze release"):
            assert f"  - name: {study_id} {name}\n" in text
    entrypoints = {line.split(": ")[1] for line in text.splitlines() if line.strip().startswith("entrypoint:")}
    assert entrypoints == {f"flows.{flow.fn.__module__.split('.')[1]}.{flow.fn.__name__}" for flow in FLOWS}


# Day and sites


def make_workspace(now: datetime) -> Workspace:
    return cast(Workspace, SimpleNamespace(clock=lambda: now, study=load_study("cdisc_pilot")))


@pytest.mark.parametrize(
    ("due", "expected"),
    [
        # 06:30 in London is 05:30 UTC in summer; half past midnight in London is still the day before in UTC.
        (datetime(2024, 6, 3, 5, 30, tzinfo=UTC), date(2024, 6, 3)),
        (datetime(2024, 6, 2, 23, 30, tzinfo=UTC), date(2024, 6, 3)),
        (datetime(2024, 1, 2, 23, 59, tzinfo=UTC), date(2024, 1, 2)),
        (datetime(2024, 3, 31, 0, 59, tzinfo=UTC), date(2024, 3, 31)),
        (datetime(2024, 10, 27, 1, 0, tzinfo=UTC), date(2024, 10, 27)),
    ],
)
def test_a_run_belongs_to_the_london_day_on_which_it_was_due(
    monkeypatch: pytest.MonkeyPatch, due: datetime, expected: date
) -> None:
    monkeypatch.setattr(runs.runtime, "flow_run", SimpleNamespace(scheduled_start_time=create_datetime_instance(due)))
    day = find_as_of(None, make_workspace(started_late := due + dt.timedelta(days=2)))
    assert day == expected < started_late.date()
    assert type(day) is date, "Prefect's own kind of day cannot be written to the ledger."


def test_a_day_to_come_is_refused() -> None:
    workspace = make_workspace(datetime(2024, 6, 3, 12, tzinfo=UTC))
    assert find_as_of(date(2024, 6, 3), workspace) == date(2024, 6, 3)
    with pytest.raises(StepFailed, match="2024-06-04 has not come yet: today is 2024-06-03"):
        find_as_of(date(2024, 6, 4), workspace)


def test_sites_come_in_the_studys_order_and_strangers_are_named() -> None:
    study = load_study("cdisc_pilot")
    own = [site.site_id for site in study.sites]
    assert find_sites(study, ["710", "702"]) == ["702", "710"]
    assert find_sites(study, []) == own
    with pytest.raises(StepFailed, match=r"cdisc_pilot has no site 999, luton\. Its sites: 701, 702"):
        find_sites(study, ["luton", "702", "999"])


# What a run leaves


def test_a_flow_ends_as_its_parts_did() -> None:
    states = [Completed()]
    assert conclude(states, []) is states
    failed = cast(Any, conclude(states, ["Site 701: no.", "Site 702: neither."]))
    assert failed.is_failed()
    assert failed.message == "Site 701: no.\nSite 702: neither."
    with pytest.raises(StepFailed, match=r"Site 701: no\.\nSite 702: neither\."):
        failed.result()


@pytest.mark.parametrize(
    ("counts", "failures", "note", "expected"),
    [
        (
            {"701": Counter(files=2, queries=0), "702": Counter(files=1200)},
            [],
            "",
            ["| Site | files |", "|---|---:|", "| 701 | 2 |", "| 702 | 1,200 |", "| **All** | **1,202** |"],
        ),
        ({}, [], "", ["No site had sent anything."]),
        ({}, ["Site 701 was not served."], "", ["**Site 701 was not served.**", "", "Nothing was received."]),
        ({}, [], "No round: a bank holiday.", ["No round: a bank holiday."]),
    ],
)
def test_the_page_of_a_run(
    monkeypatch: pytest.MonkeyPatch,
    counts: dict[str, Counter[str]],
    failures: list[str],
    note: str,
    expected: list[str],
) -> None:
    left: list[tuple[str, dict[str, str]]] = []
    monkeypatch.setattr(runs, "create_markdown_artifact", lambda text, **about: left.append((text, about)))
    monkeypatch.setattr(runs, "get_run_logger", lambda: logging.getLogger("a run"))
    study = load_study("cdisc_pilot")
    leave_artifact("returns", "Returns received", study, date(2013, 6, 3), counts, failures=failures, note=note)
    ((text, about),) = left
    head = [f"## Returns received: {study.title}", "", "Study day Monday 3 June 2013.", ""]
    assert text.splitlines() == head + expected
    assert about["key"] == "returns-cdisc-pilot"
    assert about["description"].startswith("Returns received 2013-06-03: ")


def test_days_for_people() -> None:
    assert format_day(date(2024, 2, 29)) == "Thursday 29 February 2024"


# Serving


def test_serving_reads_nothing_of_a_persons_own_prefect(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import os

    environment = {
        "PATH": os.environ["PATH"], "PREFECT_API_URL": "https://elsewhere.example/api", "PREFECT_API_KEY": "secret",
        "PREFECT_SERVER_API_HOST": "0.0.0.0", "PREFECT_HOME": "elsewhere",
    }  # fmt: skip
    monkeypatch.setattr(os, "environ", environment)
    set_environment(Settings(data_folder=tmp_path), tmp_path / "prefect", 4321)
    assert environment["PREFECT_API_URL"] == "http://127.0.0.1:4321/api"
    assert environment["PREFECT_SERVER_API_HOST"] == "127.0.0.1"
    assert environment["PREFECT_HOME"] == str(tmp_path / "prefect")
    assert environment["PREFECT_SERVER_ANALYTICS_ENABLED"] == "false"
    assert environment["DO_NOT_TRACK"] == "1"
    assert environment["PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_BATCH_SIZE"] == "100"
    assert environment["SUMMATIVE_DATA_FOLDER"] == str(tmp_path)
    assert "PREFECT_API_KEY" not in environment


def test_a_coordinator_is_told_of_every_study() -> None:
    registered = Registered(["ipc daily round"], {"cdisc_pilot": None, "ipc": datetime(2024, 6, 3, 6, 30, tzinfo=UTC)})
    told = "\n".join(describe(["bridge", "cdisc_pilot", "ipc"], 4200, registered))
    assert "http://127.0.0.1:4200/deployments" in told
    assert "  cdisc_pilot: switched off in prefect.yaml" in told
    assert "  ipc: next on Monday 3 June at 06:30, London time" in told
    assert "  bridge: none. Give it entries in prefect.yaml" in told
