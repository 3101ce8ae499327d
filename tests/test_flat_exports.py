"""Exports of REDCap, ODK, Kobo and Qualtrics as returns: taken whole, by site and wave, and received like workbooks."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import openpyxl
import pandas as pd
import pyreadstat
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from desk.command_line import app
from study.approval_entries import EntryFault
from study.configuration import GIVEN_UP
from study.events import QueryRaised, ReturnAccepted
from study.exchange import Draft, Question, derive_drafts
from study.flat_exports import Export, SiteSheets, derive_site_sheets, parse_source
from study.instruments import DefinitionFaults
from study.state import derive_queries
from tasks.definitions import find_faults
from tasks.exchange import read_csv, read_dictionary, write_dictionary, write_drafts
from tasks.flat_exports import load_source, post_export, read_export
from tasks.identifier_search import find_identifiers, make_scanner
from tasks.queries import derive_query_list, write_query_list
from tasks.returns import read_answers, receive_site_returns
from tasks.settings import PROJECT, Settings, read_settings
from tasks.workbooks import read_return_workbook
from tasks.workspace import Workspace, adopt_configuration, create_workspace

PUBLIC = PROJECT.parent / "shared" / "data" / "redcap_longitudinal"
TODAY = date(2026, 3, 2)
BY = "A. Tester"

STUDY = """
[study]
study_id = "demo"
title = "A study whose sites use another tool"
protocol_version = "1.0"
allocation = "randomised"
blinding = "open"
starts_on = 2015-01-01
data_collection_starts_on = 2015-01-01
data_collection_ends_on = 2026-12-31
ends_on = 2027-01-31
bank_holidays = "none"
participant_id_pattern = '[A-Z0-9]{3}'
participant_id_example = "A01"
respondents = ["self"]
forms = ["standard"]
instruments = [INSTRUMENTS]
consent_basis = "assumed"
accepts_unscheduled = false

[[arms]]
id = "drug_a"
label = "Drug A"
role = "intervention"

[[arms]]
id = "drug_b"
label = "Drug B"
role = "comparison"

[[cohorts]]
id = "adults"
label = "Adults"

[[windows]]
id = "any_day"
opens = "-2 weeks"
due = "2 weeks"
closes = "4 weeks"
late_until = "8 weeks"
weekends = "none"

[[consent_scopes]]
id = "questionnaires"
label = "Answering questionnaires"

[[consent_forms]]
version = "1"
label = "Consent form, version 1"
in_force_from = 2015-01-01
scopes = ["questionnaires"]

[[disposition_reasons]]
id = "withdrawal"
label = "Withdrawal"
kind = "loss"
scopes = ["study"]
"""
WAVE = """
[[waves]]
id = "{0}"
label = "{0}"
role = "{1}"
anchor = "allocated"
offset = "{2} weeks"
window = "any_day"
"""
SCHEDULE = """
[[schedule]]
instrument = "{0}"
respondent = "self"
forms = ["standard"]
waves = [{1}]
"""
ACTIVITIES = "".join(
    f'[[activities]]\nid = "{name}"\nneeds = []\n\n'
    for name in ("approach", "recruit", "collect_baseline", "collect_follow_up")
)
SITE = """
site_id = "{0}"
name = "{0}"
role = "both"

[[bodies]]
id = "clinic_{0}"
name = "Clinic {0}"
kind = "clinic"
confirmed = false
"""
MOOD = (
    Question("mood", "glad", "Glad", "level", (("0", "no"), ("1", "yes"), ("9", "very"))),
    Question(
        "mood", "why", "Why", "choices", (("1", "Sun"), ("2", "Friends"), ("3", "Food")), condition="[glad] = '1'"
    ),
    Question("mood", "hurt", "Hurt", "choices", (("1", "Back"), ("2", "Hand"), ("0", "None")), exclusive=("0",)),
    Question("mood", "weight", "Weight", "number", (), 0, 300),
)


def make_workspace(folder: Path, instruments: Sequence[str], waves: Sequence[str], source: str) -> Workspace:
    """A study with two sites and no approvals; the instruments' folders are there."""
    study = STUDY.replace("INSTRUMENTS", ", ".join(f'"{name}"' for name in instruments))
    listed = ", ".join(f'"{wave}"' for wave in waves)
    study += "".join(WAVE.format(w, "follow_up" if n else "baseline", 4 * n) for n, w in enumerate(waves))
    study += "".join(SCHEDULE.format(name, listed) for name in instruments)
    own = folder / "sites_config" / "demo"
    for name, text in {
        "study.toml": study, "approvals.toml": ACTIVITIES, "sites/north.toml": SITE.format("north"),
        "sites/south.toml": SITE.format("south"), "sources/redcap.toml": source,
    }.items():  # fmt: skip
        (own / name).parent.mkdir(parents=True, exist_ok=True)
        (own / name).write_text(text, encoding="utf-8")
    found = Settings(
        data_folder=folder / "out", sites_config=folder / "sites_config", instruments=folder / "instruments"
    )
    return create_workspace(
        "demo", settings=found, clock=lambda: datetime(TODAY.year, TODAY.month, TODAY.day, 12, tzinfo=UTC)
    )


SOURCE = """
format = "redcap"
posted_on = 2026-03-01
sending_number = 901
record_id = "record_id"
participant_id = "ident"
site_column = "redcap_data_access_group"

[sites]
north_team = "north"
south_team = "south"

[waves]
start_arm_1 = "baseline"
start_arm_2 = "baseline"
"visit_arm_1" = "later"
"visit_arm_1#2" = ""

[missing]
"-99" = "refused"
UNK = "not_answered"

[[sheets]]
sheet = "screening"
events = ["start_arm_1", "start_arm_2"]
columns = { screened_on = "seen_on", consented_on = "seen_on" }
fixed = { cohort = "adults", consent_form_version = "1", consent_scopes = "questionnaires" }

[[sheets]]
sheet = "allocation"
events = ["start_arm_1", "start_arm_2"]
columns = { allocated_on = "seen_on", arm = "redcap_arm" }
values.arm = { "1" = "drug_a", "2" = "drug_b" }

[[sheets]]
sheet = "mood"
form = "mood_form"
columns = { collected_on = "mood_on" }
fixed = { respondent = "self", form = "standard" }
"""
HEADER = (
    "record_id,redcap_event_name,redcap_repeat_instrument,redcap_repeat_instance,redcap_data_access_group,ident,"
    "first_name,dob,remarks,seen_on,mood_on,glad,why___1,why___2,why___3,why____99,hurt___1,hurt___2,hurt___0,weight,"
    "mood_form_complete"
)
ROWS = (
    # Ticks, a bare decimal point, and people's names that must not get in.
    "1,start_arm_1,,,north_team,A01,Zharko,1983-09-23,said,2026-02-01,2026-02-01,1,1,0,1,0,0,1,0,.5,2",
    # The identifier stands in the first event only; a repeat that the map passes over.
    "1,visit_arm_1,mood_form,1,north_team,,,,,,2026-02-20,UNK,0,0,0,0,0,0,1,-99,2",
    "1,visit_arm_1,mood_form,2,north_team,,,,,,2026-02-21,1,0,1,0,0,0,0,1,70,2",
    # No tick in a question that was not to be asked, in one with "none", in one whose form was filled in.
    "2,start_arm_2,,,south_team,B02,Ana,1990-01-01,,2026-02-03,2026-02-03,9,0,0,0,0,0,0,0,81.5,2",
    "3,start_arm_1,,,south_team,C03,Bo,1990-01-01,,2026-02-04,2026-02-04,1,0,0,0,0,1,0,0,81,2",
    # A form that nobody opened; the code for a refused answer among the ticks.
    "3,visit_arm_1,,,south_team,,,,,,,,0,0,0,0,0,0,0,,0",
    "4,start_arm_1,,,south_team,D04,Cy,1990-01-01,,2026-02-05,2026-02-05,1,0,0,0,1,0,0,0,82,1",
)


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    (draft,) = derive_drafts(MOOD, "a test", {}, {}).drafts
    write_drafts([draft], tmp_path / "instruments")
    return make_workspace(tmp_path, ["mood"], ["baseline", "later"], SOURCE)


def encode(*rows: str, header: str = HEADER) -> bytes:
    return "\n".join([header, *rows]).encode()


def derive(workspace: Workspace, data: bytes, source: str = SOURCE) -> SiteSheets:
    mapped = parse_source(source.encode(), "redcap.toml", workspace.study, workspace.layout)
    header, *lines = read_csv(data)
    export = Export(header, lines, range(2, len(lines) + 2))
    return derive_site_sheets(mapped, export, workspace.study, workspace.layout, workspace.instruments)


def find_faults_of(workspace: Workspace, data: bytes, source: str = SOURCE) -> str:
    with pytest.raises(DefinitionFaults) as caught:
        derive(workspace, data, source)
    return "\n".join(caught.value.faults)


def take(workspace: Workspace, data: bytes, on: date = date(2026, 3, 1)) -> None:
    postings, _ = read_export(workspace, load_source(workspace, "redcap"), data, on)
    post_export(workspace, postings)


def receive(workspace: Workspace) -> dict[str, int]:
    counts: dict[str, int] = {}
    for site in ("north", "south"):
        for name, n in receive_site_returns(workspace, site, TODAY, BY).items():
            counts[name] = counts.get(name, 0) + n
    return counts


def read_all(workspace: Workspace) -> pd.DataFrame:
    """The accepted answers, newest versions: participant, wave, item, response, missing_reason."""
    accepted = workspace.read_events().frame(ReturnAccepted)
    newest = accepted.sort_values("version").drop_duplicates(["participant_id", "wave", "instrument"], keep="last")
    return read_answers(workspace, newest).set_index(["participant_id", "wave", "item"]).sort_index()


def find_answers(answers: pd.DataFrame, participant: str, wave: str) -> dict[str, Any]:
    own: Any = answers.loc[participant, wave]
    return {
        str(item): reason or value
        for item, value, reason in zip(own.index, own["response"], own["missing_reason"].fillna(""), strict=True)
    }


def test_an_export_goes_the_way_of_every_return(workspace: Workspace) -> None:
    take(workspace, encode(*ROWS))
    counts = receive(workspace)
    assert counts["records accepted"] == 5
    assert counts["log entries"] == 12  # four people screened, consented and allocated
    assert counts.get("queries", 0) == 0
    answers = read_all(workspace)
    assert find_answers(answers, "A01", "baseline") == {
        "glad": 1, "why_1": 1, "why_2": 0, "why_3": 1, "hurt_1": 0, "hurt_2": 1, "hurt_0": 0, "weight": 0.5,
    }  # fmt: skip
    assert find_answers(answers, "A01", "later") == {
        "glad": "not_answered", "why_1": "not_answered", "why_2": "not_answered", "why_3": "not_answered",
        "hurt_1": 0, "hurt_2": 0, "hurt_0": 1, "weight": "refused",
    }  # fmt: skip
    assert find_answers(answers, "B02", "baseline") == {
        "glad": 9, "why_1": "not_asked", "why_2": "not_asked", "why_3": "not_asked", "hurt_1": "not_answered",
        "hurt_2": "not_answered", "hurt_0": "not_answered", "weight": 81.5,
    }  # fmt: skip
    assert {find_answers(answers, "C03", "baseline")[item] for item in ("why_1", "why_2", "why_3")} == {0}
    assert {find_answers(answers, "D04", "baseline")[item] for item in ("why_1", "why_2", "why_3")} == {"refused"}
    accepted = workspace.read_events().frame(ReturnAccepted)
    assert dict(zip(accepted["participant_id"], accepted["site_id"], strict=True)) == {
        "A01": "north", "B02": "south", "C03": "south", "D04": "south",
    }  # fmt: skip


def test_what_tells_who_a_person_is_gets_no_further(workspace: Workspace) -> None:
    postings, found = read_export(workspace, load_source(workspace, "redcap"), encode(*ROWS), TODAY)
    assert "Refused, and not read: first_name (a name)." in found.notes
    assert "Refused, and not read: dob (a date of birth)." in found.notes
    assert "Not in the map, and not taken: remarks." in found.notes
    assert 'mood: 1 rows of "visit_arm_1#2" were passed over, as [waves] says.' in found.notes
    for site in found.sheets.values():
        for frame in site.values():
            assert not {"Zharko", "1983-09-23", date(1983, 9, 23)} & set(frame.to_numpy().ravel().tolist())
    assert [posting.file_name for posting in postings] == [
        "demo_north_901_1.xlsx", "demo_south_901_1.xlsx",
    ]  # fmt: skip


def test_the_next_export_corrects_the_one_before(workspace: Workspace) -> None:
    take(workspace, encode(*ROWS))
    receive(workspace)
    take(workspace, encode(*ROWS))
    assert receive(workspace) == {"files": 2, "files repeated": 2}
    changed = [row.replace(",.5,2", ",64,2") for row in ROWS[:4]] + list(ROWS[5:])  # C03's visit has vanished
    take(workspace, encode(*changed, "5,start_arm_1,,,north_team,E05,,,,2026-03-01,2026-03-01,0,,,,,,,,77,2"), TODAY)
    counts = receive(workspace)
    assert (counts["records superseded"], counts["records accepted"], counts["records repeated"]) == (1, 2, 3)
    assert find_answers(read_all(workspace), "A01", "baseline")["weight"] == 64
    asked = workspace.read_events().frame(QueryRaised)
    assert list(zip(asked["rule"], asked["participant_id"], strict=True)) == [("left_out_of_correction", "C03")]


def test_faults_of_answers_are_queries_like_any_others(workspace: Workspace) -> None:
    row = "1,start_arm_1,,,north_team,A01,,,,2026-02-01,2026-02-01,4,0,0,0,0,0,0,1,heavy,2"
    take(workspace, encode(row))
    assert receive(workspace)["records refused"] == 1
    asked = workspace.read_events().frame(QueryRaised)
    assert sorted(zip(asked["rule"], asked["item"], strict=True)) == [
        ("level_unknown", "glad"), ("not_a_number", "weight"),
    ]  # fmt: skip
    assert set(asked["export_line"]) == {2}, "the line of the export, headings counted"
    listed = derive_query_list(derive_queries(workspace.read_events()), TODAY, workspace.layout)
    assert b",export_line," in write_query_list(listed)


CELL = st.sampled_from(["", "0", "1", "2", "-99", "UNK", ".5", "2026-02-01", "1 3", "a,b", "9", "1e3", "yes", "é"])


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.lists(CELL, min_size=16, max_size=16), max_size=5))
def test_whatever_an_export_holds_becomes_rows_that_are_read_back(workspace: Workspace, cells: list[list[str]]) -> None:
    sink = io.StringIO()
    csv.writer(sink).writerows([[str(n), "start_arm_1", "", "", "north_team", *row] for n, row in enumerate(cells)])
    postings, _ = read_export(workspace, load_source(workspace, "redcap"), encode(sink.getvalue()), TODAY)
    for posting in postings:
        reading = read_return_workbook(posting.workbook, workspace.layout, site_id=posting.site_id)
        assert {code: len(sheet.frame) for code, sheet in reading.sheets.items()} == dict(posting.n_rows)


def test_a_form_that_was_handed_out_comes_back_without_naming_columns(workspace: Workspace) -> None:
    rows = csv.DictReader(io.StringIO(write_dictionary([workspace.instruments["mood"]], {})[0].decode()))
    header: list[str] = []
    for row in rows:
        name, choices = row["Variable / Field Name"], row["Choices, Calculations, OR Slider Labels"].split(" | ")
        is_ticked = row["Field Type"] == "checkbox"
        header += [f"{name}___{choice.partition(',')[0]}" for choice in choices] if is_ticked else [name]
    assert header[:4] == ["participant_id", "mood_respondent", "mood_form", "mood_collected_on"]
    source = """
format = "redcap"
posted_on = 2026-03-01
sending_number = 902
participant_id = "participant_id"
site = "north"

[[sheets]]
sheet = "mood"
fixed = { wave = "baseline" }
"""
    cells = "A01,self,standard,2026-02-01,1,1,0,0,0,0,1,70,2"
    found = derive(workspace, encode(cells, header=",".join([*header, "mood_complete"])), source)
    assert found.notes == []
    (record,) = found.sheets["north"]["mood"].to_dict("records")
    assert list(record.values()) == ["A01", "self", "standard", "baseline", date(2026, 2, 1), 1, 1, 0, 0, 0, 0, 1, 70]


def test_an_item_that_was_never_asked_is_said_to_be_left_out(workspace: Workspace) -> None:
    header = HEADER.replace("weight", "heaviness").replace("hurt_", "pain_")
    faults = find_faults_of(workspace, encode(*ROWS, header=header))
    assert "these items of mood: hurt_1, hurt_2, hurt_0, weight." in faults
    source = SOURCE.replace('collected_on = "mood_on"', 'collected_on = "mood_on", weight = "", hurt = ""')
    frame = derive(workspace, encode(*ROWS, header=header), source).sheets["north"]["mood"]
    assert not {"weight", "hurt_1"} & set(frame.columns)


def test_of_a_log_only_what_the_map_names_is_taken(workspace: Workspace) -> None:
    rows = [f"{row},south_team" for row in ROWS[:1]]
    found = derive(workspace, encode(*rows, header=f"{HEADER},consent_scopes"))
    assert found.sheets["north"]["screening"]["consent_scopes"].tolist() == ["questionnaires"]
    source = SOURCE.replace(', consent_form_version = "1", consent_scopes = "questionnaires"', "")
    found = derive(workspace, encode(*rows, header=f"{HEADER},consent_scopes"), source)
    assert "consent_scopes" not in found.sheets["north"]["screening"]
    assert "Not in the map, and not taken: remarks, consent_scopes." in found.notes


# What the map must say first


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        (["1,start_arm_1,,,east_team,A01,,,,2026-02-01,2026-02-01,1,,,,,,,,70,2"], 'the group "east_team" is no site'),
        (["1,start_arm_1,,,,A01,,,,2026-02-01,2026-02-01,1,,,,,,,,70,2"], "some records are in no group"),
        (["1,extra_arm_1,,,north_team,A01,,,,2026-02-01,2026-02-01,1,,,,,,,,70,2"], 'of mood are of "extra_arm_1"'),
        (["1,start_arm_1,,2,north_team,A01,,,,2026-02-01,2026-02-01,1,,,,,,,,70,2"], '"start_arm_1#2"'),
        (["1,start_arm_1,,,north_team,A01,,,,,,1,,,,,,,,70,2", "1,visit_arm_1,,,north_team,A02,,,,,,1,,,,,,,,70,2"],
         "a record has two participants"),
        (["1,start_arm_1,,,north_team,A01,,,,2026-02-01,2026-02-01,1,,,,,,,,70,2,more"], "1 rows have more cells"),
    ],
)  # fmt: skip
def test_what_nobody_named_stops_the_export(workspace: Workspace, rows: list[str], told: str) -> None:
    faults = find_faults_of(workspace, encode(*rows))
    assert told in faults
    assert "A01" not in faults


def test_a_row_that_lost_or_won_a_comma_is_named_by_its_line(workspace: Workspace) -> None:
    """Its answers would stand under the names of others."""
    rows = [ROWS[0], ROWS[1].replace(",UNK,", "UNK,"), *ROWS[2:4], ROWS[4] + ",2"]
    faults = find_faults_of(workspace, encode(*rows))
    assert "1 rows have fewer cells than the header has columns: lines 3." in faults
    assert "1 rows have more cells than the header has columns: lines 6." in faults


def test_columns_that_the_export_lacks_are_named(workspace: Workspace) -> None:
    header = HEADER.replace("mood_on", "mood_date").replace("why___3", "why___4")
    faults = find_faults_of(workspace, encode(ROWS[0], header=header))
    assert 'no column "mood_on", which the map names for mood.collected_on' in faults
    assert "no columns for these items of mood: why_3. Export them" in faults
    twice = find_faults_of(workspace, encode(ROWS[0], header=HEADER.replace("remarks", "weight")))
    assert 'the column "weight" more than once' in twice


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ('format = "redcap"', 'format = "epidata"', 'format must be "redcap", "odk", "qualtrics" or "spss"'),
        ("sending_number = 901", "", "sending_number is missing"),
        ('site_column = "redcap_data_access_group"', "", "say either site"),
        ('south_team = "south"', 'south_team = "souht"', 'Did you mean "south"?'),
        ('start_arm_2 = "baseline"', 'start_arm_2 = "basline"', 'Did you mean "baseline"?'),
        ('sheet = "mood"', 'sheet = "moot"', 'there is no sheet "moot"'),
        ('"-99" = "refused"', '"-99" = "unwilling"', '[missing] has "unwilling"'),
        ('collected_on = "mood_on"', 'colected_on = "mood_on"', 'sheet mood has no column "colected_on"'),
        ('collected_on = "mood_on"', 'glad = "first_name"', 'the column "first_name" holds a name'),
        ('"ident"', '"RecipientEmail"', 'the column "RecipientEmail" holds an e-mail address'),
        ('form = "mood_form"', 'fom = "mood_form"', "is no word of a map"),
        ("posted_on = 2026-03-01", 'posted_on = "2026-03-01"', "posted_on must be the day of the first export"),
        ("[waves]", "[waves", "this is no TOML"),
    ],
)
def test_every_fault_of_a_map_is_told(workspace: Workspace, old: str, new: str, told: str) -> None:
    assert old in SOURCE
    assert told in find_faults_of(workspace, encode(*ROWS), SOURCE.replace(old, new, 1))


def test_a_study_with_sources_is_in_order(workspace: Workspace) -> None:
    assert find_faults("demo", workspace.settings.sites_config, workspace.settings.instruments).faults == ()


# ODK, Kobo, Qualtrics


def test_an_odk_or_kobo_export(workspace: Workspace) -> None:
    source = """
format = "odk"
posted_on = 2026-03-01
sending_number = 902
participant_id = "participant_id"
site = "north"

[[sheets]]
sheet = "mood"
columns = { wave = "visit" }
values.wave = { first = "baseline", second = "later" }
fixed = { respondent = "self", form = "standard" }
"""
    data = encode(
        "2026-02-01T10:00:00.000Z,A01,first,2026-02-01,1,1 3,1,0,0,80,x@example.org",
        "2026-02-02T10:00:00.000Z,A01,second,2026-02-20,0,,False,False,True,80.5,",
        header="SubmissionDate,participant_id,visit,about/collected_on,main/glad,main/why,hurt/1,hurt/2,hurt/0,"
        "main/weight,email",
    )
    found = derive(workspace, data, source)
    frame = found.sheets["north"]["mood"]
    assert frame["wave"].tolist() == ["baseline", "later"]
    assert frame["collected_on"].tolist() == [date(2026, 2, 1), date(2026, 2, 20)]
    assert frame[["why_1", "why_2", "why_3"]].to_numpy().tolist() == [[1, 0, 1], ["", "", ""]]
    assert frame[["hurt_1", "hurt_2", "hurt_0"]].to_numpy().tolist() == [[1, 0, 0], [0, 0, 1]]
    assert frame["weight"].tolist() == [80, 80.5]
    assert found.notes == [
        "Refused, and not read: email (an e-mail address).", "Not in the map, and not taken: SubmissionDate.",
    ]  # fmt: skip


def test_a_qualtrics_export(workspace: Workspace) -> None:
    source = """
format = "qualtrics"
posted_on = 2026-03-01
sending_number = 903
participant_id = "ExternalReference"
site = "north"

[[sheets]]
sheet = "mood"
columns = { collected_on = "EndDate", glad = "Q1", why = "Q2", hurt = "Q3", weight = "Q4" }
fixed = { respondent = "self", form = "standard", wave = "baseline" }
"""
    rows = [
        ["EndDate", "IPAddress", "RecipientEmail", "ExternalReference", "Q1", "Q2_1", "Q2_2", "Q2_3", "Q3", "Q4"],
        ["End Date", "IP Address", "Recipient Email", "Reference", "Glad?", "Why", "Why", "Why", "Hurt", "Weight"],
        ['{"ImportId":"endDate"}', *(f'{{"ImportId":"QID{n}"}}' for n in range(9))],
        ["2026-02-01 10:00:00", "1.2.3.4", "x@example.org", "A01", "1", "1", "", "", "1,2", "64"],
    ]
    sink = io.StringIO()
    csv.writer(sink).writerows(rows)
    found = derive(workspace, sink.getvalue().encode(), source)
    (record,) = found.sheets["north"]["mood"].to_dict("records")
    assert record == {
        "participant_id": "A01", "respondent": "self", "form": "standard", "wave": "baseline",
        "collected_on": date(2026, 2, 1), "glad": 1, "why_1": 1, "why_2": 0, "why_3": 0, "hurt_1": 1, "hurt_2": 1,
        "hurt_0": 0, "weight": 64,
    }  # fmt: skip
    assert [note for note in found.notes if note.startswith("Refused")] == [
        "Refused, and not read: IPAddress (where somebody is).",
        "Refused, and not read: RecipientEmail (an e-mail address).",
    ]


# SPSS

SPSS = """
format = "spss"
posted_on = 2026-03-01
sending_number = 904
participant_id = "ident"
site = "north"

[missing]
"-99" = "refused"
"9" = "not_answered"

[[sheets]]
sheet = "mood"
columns = { collected_on = "mood_on", wave = "visit", why = "", hurt = "" }
values.wave = { "1" = "baseline", "2" = "later" }
fixed = { respondent = "self", form = "standard" }
"""


def write_sav(folder: Path, changed: dict[str, list[Any]] | None = None, **about: Any) -> bytes:
    """Three visits: 9 is an answer of glad, and missing in weight, as the file itself declares."""
    columns = {
        "ident": ["A01", "B02", "C03"], "visit": [1.0, 2.0, 1.0],
        "mood_on": [date(2026, 2, 1), date(1999, 12, 31), date(2026, 2, 3)],
        "glad": [1.0, 9.0, None], "weight": [80.5, 9.0, -99.0], "gp": ["Dr Ann Smith", "", ""],
    }  # fmt: skip
    own: dict[str, Any] = {
        "variable_format": {"mood_on": "EDATE10"},
        "missing_ranges": {"weight": [9.0, {"lo": -99, "hi": -90}]},
        "variable_value_labels": {"glad": {0.0: "No", 1.0: "yes", 9.0: "very"}, "visit": {1.0: "first", 2.0: "second"}},
        "column_labels": {"gp": "Name of your GP", "glad": "Are you glad?"},
    }
    path = folder / "export.sav"
    pyreadstat.write_sav(pd.DataFrame(columns | (changed or {})), path, **(own | about))
    return path.read_bytes()


def derive_spss(workspace: Workspace, data: bytes, source: str = SPSS) -> SiteSheets:
    mapped = parse_source(source.encode(), "survey.toml", workspace.study, workspace.layout)
    return read_export(workspace, mapped, data, TODAY)[1]


def test_an_spss_file_goes_the_way_of_every_return(workspace: Workspace, tmp_path: Path) -> None:
    found = derive_spss(workspace, write_sav(tmp_path))
    frame = found.sheets["north"]["mood"]
    assert frame["wave"].tolist() == ["baseline", "later", "baseline"]
    assert frame["collected_on"].tolist() == [date(2026, 2, 1), date(1999, 12, 31), date(2026, 2, 3)]
    assert frame["glad"].tolist() == [1, 9, ""]
    assert frame["weight"].tolist() == [80.5, -9, -8]  # the item's own codes for not answered and refused
    assert found.lines == {"north": {"mood": [1, 2, 3]}}
    assert found.notes == ["Refused, and not read: gp (a name)."]


@pytest.mark.parametrize(
    ("unit", "kind", "clock"), [("ms", "DATE11", 0), ("us", "ADATE10", 0), ("ns", "DATETIME20", 86399)]
)  # of "s", the unit that pandas takes by itself, pyreadstat writes days in 1970
def test_days_of_an_spss_file_survive_whatever_unit_pandas_counts_in(
    workspace: Workspace, tmp_path: Path, unit: str, kind: str, clock: int
) -> None:
    days = [date(2026, 2, 1), date(1999, 12, 31), date(2024, 2, 29)]
    moments = (pd.to_datetime(days) + pd.Timedelta(seconds=clock)).astype(f"datetime64[{unit}]")
    data = write_sav(tmp_path, {"mood_on": moments}, variable_format={"mood_on": kind})
    assert derive_spss(workspace, data).sheets["north"]["mood"]["collected_on"].tolist() == days


def test_a_value_that_an_spss_file_calls_missing_is_never_an_answer(workspace: Workspace, tmp_path: Path) -> None:
    data = write_sav(tmp_path)
    with pytest.raises(DefinitionFaults) as caught:
        derive_spss(workspace, data, SPSS.replace('"9" = "not_answered"\n', ""))
    assert [fault for fault in caught.value.faults if '"weight"' in fault] == [
        'the variable "weight", for mood.weight, declares "9" as missing. Say under [missing] which reason that is.'
    ]


def test_codes_that_mean_something_else_in_the_spss_file_stop_it(workspace: Workspace, tmp_path: Path) -> None:
    turned = {"glad": {0.0: "yes", 1.0: "no"}}
    data = write_sav(tmp_path, {"glad": [1.0, 0.0, None]}, variable_value_labels=turned)
    with pytest.raises(DefinitionFaults) as caught:
        derive_spss(workspace, data)
    assert 'has "0" for what mood.glad has 1 for ("yes"). Write values.glad' in caught.value.faults[0]
    mapped = SPSS.replace("fixed = {", 'values.glad = { "0" = "1", "1" = "0" }\nfixed = {')
    assert derive_spss(workspace, data, mapped).sheets["north"]["mood"]["glad"].tolist() == [0, 1, ""]


@pytest.mark.parametrize(
    ("about", "told"),
    [
        ({"column_labels": {"mood_on": "Date of birth"}}, '"mood_on" holds a date of birth by its label'),
        ({"column_labels": {"glad": "Ask ann.smith@example.org"}}, '"glad" has an e-mail address in its label'),
        ({"variable_value_labels": {"visit": {1.0: "by Mr John Smith"}}}, '"visit" has a name in its label'),
    ],
)
def test_labels_that_tell_who_a_person_is_stop_an_spss_file(
    workspace: Workspace, tmp_path: Path, about: dict[str, Any], told: str
) -> None:
    with pytest.raises(DefinitionFaults) as caught:
        derive_spss(workspace, write_sav(tmp_path, **about))
    assert told in caught.value.faults[0]
    assert "Smith" not in caught.value.faults[0]
    assert "smith@" not in caught.value.faults[0]


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_an_spss_file_that_is_cut_off_is_refused(workspace: Workspace, tmp_path: Path, share: float) -> None:
    data = write_sav(tmp_path)
    with pytest.raises(EntryFault, match="cannot be read as an SPSS file"):
        derive_spss(workspace, data[: int(len(data) * share)])


def test_an_spss_file_in_an_inbox_is_searched_before_it_is_kept(workspace: Workspace, tmp_path: Path) -> None:
    told = {"phone": ["07700 900123", "", ""], "born": [date(1950, 3, 1), None, None]}
    data = write_sav(
        tmp_path, told, column_labels={"phone": "Q7", "born": "Date of birth"},
        variable_value_labels={"visit": {1.0: "with Mr John Smith"}}, compress=True,
    )  # fmt: skip
    scanner = make_scanner(workspace.study, TODAY)
    places = {
        (place.cell, place.spot, place.kind) for place in find_identifiers(data, None, "x", workspace.layout, scanner)
    }
    assert ("", "other", "name") in places
    assert ("G2", "cell", "telephone") in places
    assert ("H2", "cell", "birth_date") in places
    workspace.drop_box("north").post("export.sav", data)
    assert receive_site_returns(workspace, "north", TODAY, BY)["files held"] == 1


# What a CSV file may be like


@pytest.mark.parametrize(
    "save",
    [
        pytest.param(lambda text: text.encode("utf-16"), id="UTF-16"),
        pytest.param(lambda text: text.encode("utf-8-sig"), id="a byte order mark"),
        pytest.param(lambda text: text.replace("said", "caf\xe9").encode("cp1252"), id="Windows-1252"),
        pytest.param(lambda text: text.replace(",", ";").encode(), id="semicolons"),
        pytest.param(lambda text: ("sep=;\r\n" + text.replace(",", ";")).encode(), id="a line that says so"),
        pytest.param(lambda text: text.replace(",", "\t").encode(), id="tabs"),
        pytest.param(lambda text: text.replace("\n", "\r\n").encode(), id="lines of Windows"),
        pytest.param(lambda text: text.replace("\n", "\r").encode(), id="lines of an old Mac"),
        pytest.param(lambda text: (text + "\n," * 100_000).encode(), id="a hundred thousand empty rows"),
        pytest.param(lambda text: text.replace("\n", f"\n{HEADER}\n", 3).encode(), id="the header again and again"),
        pytest.param(lambda text: text.replace(",A01,", ",\u00a0A01\u200b ,").encode(), id="no-break spaces"),
        pytest.param(
            lambda text: re.sub("$", "," * 5_000, text, flags=re.MULTILINE).replace(
                HEADER + "," * 5_000, HEADER + "".join(f",x{n}" for n in range(5_000))
            ).encode(), id="5,000 columns more"
        ),
    ],
)  # fmt: skip
def test_the_same_rows_whatever_program_saved_the_file(workspace: Workspace, save: Any) -> None:
    plain = derive(workspace, encode(*ROWS))
    found, _ = read_export(workspace, load_source(workspace, "redcap"), save(encode(*ROWS).decode()), TODAY)
    expected, _ = read_export(workspace, load_source(workspace, "redcap"), encode(*ROWS), TODAY)
    assert {posting.site_id: posting.n_rows for posting in found} == {p.site_id: p.n_rows for p in expected}
    for posting, other in zip(found, expected, strict=True):
        own, same = (read_return_workbook(p.workbook, workspace.layout) for p in (posting, other))
        for code, sheet in same.sheets.items():
            pd.testing.assert_frame_equal(own.sheets[code].frame, sheet.frame)
    assert plain.sheets.keys() == {"north", "south"}


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(encode(*ROWS).decode().encode("utf-16-le"), id="UTF-16 that does not say so"),
        pytest.param(b'a,b\n"1,2\n', id="a quote that never ends"),
        pytest.param(b"\n,,,\n", id="nothing but commas"),
    ],
)
def test_a_file_that_is_no_table_is_refused(workspace: Workspace, data: bytes) -> None:
    with pytest.raises((EntryFault, DefinitionFaults)):
        read_export(workspace, load_source(workspace, "redcap"), data, TODAY)


def test_a_decimal_comma_is_one_only_where_the_map_says_so(workspace: Workspace) -> None:
    semicolons = [row.replace(",", ";").replace(";.5;", ";0,5;").replace("81.5", "81,5") for row in ROWS]
    data = encode(*semicolons, header=HEADER.replace(",", ";"))
    assert derive(workspace, data).sheets["north"]["mood"]["weight"].tolist()[0] == "0,5"  # text, and asked about
    source = SOURCE.replace("sending_number", 'decimal = ","\nsending_number')
    sheets = derive(workspace, data, source).sheets
    assert sheets["north"]["mood"]["weight"].tolist() == [0.5, -8]
    assert sheets["south"]["mood"]["weight"].tolist() == [81.5, 81, 82]
    told = find_faults_of(
        workspace, encode(*semicolons[:3], ROWS[3].replace(",", ";"), header=HEADER.replace(",", ";")), source
    )
    assert 'the column "weight" has numbers with a point' in told


@pytest.mark.parametrize("cell", ["1,2", "3 - very", "n/a", "-", "\u2713", "x", "1e0", "1/1", "1,0", "TRUE"])
def test_what_is_no_code_in_an_export_is_asked_about(workspace: Workspace, cell: str) -> None:
    """Of a map that does not say what such a word means: nothing is guessed."""
    row = f'1,start_arm_1,,,north_team,A01,,,,2026-02-01,2026-02-01,"{cell}",0,0,0,0,0,0,1,70,2'
    take(workspace, encode(row))
    assert receive(workspace)["records refused"] == 1
    [rule] = workspace.read_events().frame(QueryRaised)["rule"]
    assert rule in ("not_a_number", "level_unknown", "unexpected_type")


@pytest.mark.parametrize("cell", ["very", "9 - very", "Very", "\uff19"])
def test_words_of_the_definition_are_their_codes_in_an_export_too(workspace: Workspace, cell: str) -> None:
    take(workspace, encode(f"1,start_arm_1,,,north_team,A01,,,,2026-02-01,2026-02-01,{cell},,,,,0,0,1,70,2"))
    assert receive(workspace)["records accepted"] == 1
    assert find_answers(read_all(workspace), "A01", "baseline")["glad"] == 9
    asked = workspace.read_events().frame(QueryRaised)
    assert list(asked["rule"]) == ([] if cell == "\uff19" else ["read_from_label"])


def test_a_missing_code_that_is_an_answer_too_is_a_fault_of_the_map(workspace: Workspace) -> None:
    told = find_faults_of(workspace, encode(*ROWS), SOURCE.replace('"-99" = "refused"', '"9" = "refused"'))
    assert '[missing] has "9", which is an answer of mood.glad and 1 more.' in told


# Where a row came from


def test_a_query_leads_back_to_the_line_of_the_export(workspace: Workspace) -> None:
    bad = ROWS[4].replace(",81,2", ",heavy,2")
    rows = [
        *ROWS[:3],
        "",
        '5,start_arm_1,,,north_team,E05,,,"a note\nof two lines",2026-02-01,2026-02-01,1,,,,,,,,70,2',
        bad,
    ]
    take(workspace, encode(*rows))
    receive(workspace)
    queries = workspace.read_events().frame(QueryRaised)
    [asked] = queries[queries["severity"] == "hard"].to_dict("records")
    assert (asked["rule"], asked["sheet"], asked["row"]) == ("not_a_number", "mood", 3)
    reading = read_return_workbook(workspace.content.get(asked["source_sha256"]), workspace.layout)
    assert reading.export_lines["mood"][asked["row"]] == 8
    receipts = workspace.area.below("sites").below("south")
    [name] = [stored.key for stored in receipts.list("receipts/")]
    book = openpyxl.load_workbook(io.BytesIO(receipts.get(name)))
    cells = [str(cell) for row in book["To mend"].iter_rows(values_only=True) for cell in row]
    assert any("In the export it is line 8." in cell for cell in cells)


def test_an_instrument_with_the_longest_name_is_taken_in(tmp_path: Path) -> None:
    """32 letters, more than a spreadsheet program takes as the title of a sheet."""
    name = "a_questionnaire_with_a_long_name"
    asked = Question("mood", "glad", "Glad", "level", (("0", "no"), ("1", "yes")))
    (draft,) = derive_drafts([asked], "a test", {}, {}).drafts
    definition = draft.definition.replace('id = "mood"', f'id = "{name}"', 1)
    write_drafts([replace(draft, id=name, definition=definition)], tmp_path / "instruments")
    assert len(name) == 32
    workspace = make_workspace(tmp_path, [name], ["baseline", "later"], SOURCE.replace('"mood"', f'"{name}"'))
    header, row = HEADER.split(",")[:12], ROWS[0].split(",")[:12]
    other = [*ROWS[3].split(",")[:11], "7"]
    take(workspace, encode(",".join(row), ",".join(other), header=",".join(header)))
    counts = receive(workspace)
    assert (counts["records accepted"], counts["records refused"]) == (1, 1)
    [asked] = workspace.read_events().frame(QueryRaised).to_dict("records")
    assert (asked["rule"], asked["sheet"]) == ("level_unknown", name)


def test_maps_are_checked_and_adopted_with_the_study(workspace: Workspace, tmp_path: Path) -> None:
    assert [(event.part, event.name) for event in adopt_configuration(workspace, TODAY, BY)] == [
        ("protocol", "demo"), ("pathway", "demo"), ("site", "north"), ("site", "south"), ("source", "redcap"),
        ("instrument", "mood"),
    ]  # fmt: skip
    path = tmp_path / "sites_config" / "demo" / "sources" / "redcap.toml"
    path.write_text(SOURCE.replace("901", "905"), encoding="utf-8")
    [event] = adopt_configuration(workspace, TODAY, BY)
    assert workspace.content.get(event.sha256).decode() == SOURCE.replace("901", "905")
    path.write_text(SOURCE.replace('south_team = "south"', 'south_team = "souht"'), encoding="utf-8")
    path.rename(path.with_name("Red Cap.toml"))
    faults = find_faults("demo", workspace.settings.sites_config, workspace.settings.instruments).faults
    place = "sites_config/demo/sources/Red Cap.toml"
    assert faults == (
        f"{place}: a source is called by small letters, digits and underscores. Rename the file.",
        f'{place}: "souht" is no site of demo. Did you mean "south"?',
    )
    path.with_name("Red Cap.toml").unlink()
    [given_up] = adopt_configuration(workspace, TODAY, BY)
    assert (given_up.part, given_up.name, given_up.sha256) == ("source", "redcap", GIVEN_UP)


# Commands


@dataclass
class Desk:
    folder: Path

    def call(self, *words: object) -> Any:
        return CliRunner().invoke(app, ["returns", *map(str, words)])


@pytest.fixture
def desk(workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    for name in ("data_folder", "sites_config", "instruments"):
        monkeypatch.setenv(f"SUMMATIVE_{name.upper()}", str(getattr(workspace.settings, name)))
    read_settings.cache_clear()
    (tmp_path / "export.csv").write_bytes(encode(*ROWS))
    yield Desk(tmp_path)
    read_settings.cache_clear()


def test_the_command_says_what_goes_where_and_puts_it_there(desk: Desk, workspace: Workspace) -> None:
    assert "✓ redcap: redcap, from 2026-03-01; screening, allocation, mood" in desk.call("sources", "demo").stdout
    export = desk.folder / "export.csv"
    planned = desk.call("from-export", "demo", "redcap", export, "--on", "2026-03-01", "--dry-run")
    assert planned.exit_code == 0
    assert "Nothing was put anywhere." in planned.stdout
    inbox = workspace.drop_box("north")
    assert not inbox.waiting(workspace.clock())
    done = desk.call("from-export", "demo", "redcap", export, "--on", "2026-03-01")
    assert "2 workbooks put into inboxes" in done.stdout
    assert [file.name for file in inbox.waiting(workspace.clock())] == ["demo_north_901_0.xlsx"]
    assert "Zharko" not in done.stdout + planned.stdout


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("redcp", "export.csv"), 'Did you mean "redcap"?'),
        (("redcap", "none.csv"), "cannot be read"),
        (("redcap", "export.csv", "--on", "2026-02-01"), "correct posted_on"),
    ],
)
def test_the_command_says_what_is_wrong(desk: Desk, words: tuple[str, ...], told: str) -> None:
    source, file, *rest = words
    result = desk.call("from-export", "demo", source, desk.folder / file, *rest)
    assert result.exit_code == 1
    assert told in (result.stderr or str(result.exception))


# The public project


@pytest.mark.skipif(not PUBLIC.is_dir(), reason="the REDCap project of the shared data is not on this machine")
def test_the_public_project_goes_in_whole(tmp_path: Path) -> None:
    drafts = read_dictionary((PUBLIC / "dictionary.csv").read_bytes()).drafts
    write_drafts(drafts, tmp_path / "instruments")
    instruments = [draft.id for draft in drafts]
    rows = list(csv.DictReader(io.StringIO((PUBLIC / "data.csv").read_text(encoding="utf-8"))))
    events = list(dict.fromkeys(row["redcap_event_name"] for row in rows))
    waves = [event.replace("_arm_1", "_a").replace("_arm_2", "_b") for event in events]
    named = "\n".join(f'{event} = "{wave}"' for event, wave in zip(events, waves, strict=True))
    enrolled = "events = [" + ", ".join(f'"{event}"' for event in events if event.startswith("enrollment")) + "]"
    source = f"""
format = "redcap"
posted_on = 2026-03-01
sending_number = 901
participant_id = "study_id"
site = "north"

[waves]
{named}

[[sheets]]
sheet = "screening"
{enrolled}
columns = {{ screened_on = "date_enrolled", consented_on = "date_enrolled" }}
fixed = {{ cohort = "adults", consent_form_version = "1", consent_scopes = "questionnaires" }}

[[sheets]]
sheet = "allocation"
{enrolled}
columns = {{ allocated_on = "date_enrolled", arm = "redcap_arm" }}
values.arm = {{ "1" = "drug_a", "2" = "drug_b" }}
"""
    forms = {draft.id: draft.form for draft in drafts}
    for name in instruments:
        more = ', sex_answer = "sex"' if name == "demographics" else ""
        source += f"""
[[sheets]]
sheet = "{name}"
form = "{forms[name]}"
columns = {{ collected_on = "date_enrolled"{more} }}
fixed = {{ respondent = "self", form = "standard" }}
of_record = ["collected_on"]
"""
    workspace = make_workspace(tmp_path, instruments, waves, source)
    postings, found = read_export(
        workspace, load_source(workspace, "redcap"), (PUBLIC / "data.csv").read_bytes(), TODAY
    )
    post_export(workspace, postings)
    counts = receive(workspace)
    n_forms = sum(bool(row[f"{draft.form}_complete"]) and holds_answers(row, draft) for row in rows for draft in drafts)
    assert sum(n for code, n in postings[0].n_rows.items() if code in instruments) == n_forms
    assert counts["log entries"] == 9  # three people screened, consented and allocated
    assert (counts["records accepted"], counts.get("records refused", 0), counts["files held"]) == (n_forms, 0, 0)
    # Each form has the day of enrolment here, for want of another.
    asked = workspace.read_events().frame(QueryRaised)
    assert set(asked["rule"]) <= {"outside_window", "follow_up_without_baseline"}
    assert set(asked["severity"]) <= {"soft"}
    assert n_forms == 40
    refused = {note.split()[4] for note in found.notes if note.startswith("Refused")}
    assert refused == {
        "first_name", "last_name", "telephone_1", "email", "dob", "ec_phone", "next_of_kin_contact_name",
        "next_of_kin_contact_phone", "next_of_kin_contact_address",
    }  # fmt: skip
    told = " ".join(str(value) for frame in found.sheets["north"].values() for value in frame.to_numpy().ravel())
    for row in rows:
        for column in refused:
            assert not row[column] or row[column] not in told


def holds_answers(row: dict[str, str], draft: Draft) -> bool:
    """Whether a form was marked as filled in, or any of its fields that the definition has is filled."""
    names = re.findall('^id = "(.*)"$', draft.definition, re.MULTILINE)
    return row[f"{draft.form}_complete"] != "0" or any(row.get(name.removesuffix("_answer")) for name in names)
