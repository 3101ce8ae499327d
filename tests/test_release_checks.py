"""What a release must pass before and after it is frozen: refusals and waivers, consent, masked arms, verification."""

from __future__ import annotations

import io
import json
from datetime import date
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from cryptography.fernet import Fernet
from pydantic import SecretStr
from typer.testing import CliRunner

import tasks.release_checks
import tasks.releases
from desk.command_line import app
from study.consent import derive_consents
from study.datasets import RESPONSES, SCORES, ReleaseFault, TableRows
from study.events import (
    ApprovalGranted,
    ApprovalSubmitted,
    ConsentRecorded,
    DispositionRecorded,
    Event,
    QueryClosed,
    QueryRaised,
    ReleaseFrozen,
    ReleaseWaived,
    Voided,
)
from study.identifier_scan import NameLists, Scanner
from study.masking import assign_letters, find_telling_codes, find_telling_sites, mask_arms, mask_study
from study.protocol import Study
from study.release_rules import (
    apply_waivers,
    count_left_out,
    describe_hindrances,
    find_covered,
    find_hard_queries,
    find_identifier_columns,
    find_lapsed_approvals,
    judge_consent,
)
from tasks.definitions import load_study
from tasks.masking import draw_letters
from tasks.release_checks import verify_release, waive_hindrances
from tasks.release_files import compute_table_hash
from tasks.releases import (
    assemble_release,
    find_release_hindrances,
    freeze_release,
    read_manifest,
)
from tasks.settings import PROJECT
from tasks.workspace import Workspace
from tests.releases import BY, MMSE, fill_study, move_clock, open_study, send

DAY = date(2013, 3, 4)


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    workspace = open_study(tmp_path)
    fill_study(workspace)
    return workspace


def ask(workspace: Workspace, number: int, site: str = "701", severity: str = "hard") -> None:
    """An open query of a site."""
    query: Any = {"rule": "out_of_range", "severity": severity, "subject": f"file-{number}", "item": "mmse01"}
    event = QueryRaised(
        occurred_on=DAY, requested_by=BY, site_id=site, query_id=f"{site}-{number:04d}", sheet="MMSE", row=3, **query
    )
    workspace.ledger.append([event])


# Refusals and waivers ------------------------------------------------------------------------------------------------


def test_open_hard_queries_refuse_until_somebody_waives_them(workspace: Workspace) -> None:
    ask(workspace, 1)
    ask(workspace, 2, "702")
    ask(workspace, 3, severity="soft")
    with pytest.raises(ReleaseFault) as refused:
        freeze_release(workspace, DAY, BY)
    assert len(refused.value.faults) == 1
    assert refused.value.faults[0].startswith("Hard queries are open: 2 (701 1, 702 1).")
    assert "summative release waive cdisc_pilot hard_queries all --until 2013-03-04 --reason interim" in str(
        refused.value
    )
    assert not workspace.area.list("releases/")
    told: Any = {"until": DAY, "reason": "interim", "role": "data_manager", "requested_by": BY, "today": DAY}
    assert waive_hindrances(workspace, "hard_queries", "701", **told) == 1
    events = workspace.read_events()
    left, _ = apply_waivers(find_hard_queries(events, DAY), events, DAY)
    assert [hindrance.subject for hindrance in left] == ["702-0002"]
    assert waive_hindrances(workspace, "hard_queries", "all", **told) == 2
    frozen = freeze_release(workspace, DAY, BY)
    waivers = frozen.manifest["waived"]
    assert [(waiver["subject"], waiver["n"], waiver["role"]) for waiver in waivers] == [
        ("701", 1, "data_manager"),
        ("all", 1, "data_manager"),
    ]
    report = workspace.area.get("releases/2013-03-04/report.html").decode()
    assert "Released in spite of hard queries that are open (701: 1), since this is an interim dataset." in report
    # A waiver covers what was open when it was recorded, and no dataset of a later day.
    ask(workspace, 4)
    events = workspace.read_events()
    left, _ = apply_waivers(find_hard_queries(events, DAY), events, DAY)
    assert [hindrance.subject for hindrance in left] == ["701-0004"]
    later = find_hard_queries(events, date(2013, 3, 5))
    assert len(apply_waivers(later, events, date(2013, 3, 5))[0]) == 3


def test_a_settled_query_and_one_of_a_later_day_are_in_nobodys_way(workspace: Workspace) -> None:
    ask(workspace, 1)
    ask(workspace, 2)
    workspace.ledger.append(
        [QueryClosed(occurred_on=DAY, requested_by=BY, site_id="701", query_id="701-0001", reason="mended")]
    )
    events = workspace.read_events()
    assert [one.subject for one in find_hard_queries(events, DAY)] == ["701-0002"]
    assert find_hard_queries(events, date(2013, 3, 3)) == []


def test_only_what_stands_in_the_way_can_be_waived(workspace: Workspace) -> None:
    ask(workspace, 1)
    told: Any = {"until": DAY, "reason": "interim", "role": "data_manager", "requested_by": BY, "today": DAY}
    with pytest.raises(ReleaseFault, match=r'Nothing called "702" stands in the way as hard_queries\. What does: 701'):
        waive_hindrances(workspace, "hard_queries", "702", **told)
    with pytest.raises(ReleaseFault, match=r'Nothing called "rec" stands in the way as lapsed_approval\.$'):
        waive_hindrances(workspace, "lapsed_approval", "rec", **told)
    assert workspace.read_events().frame(ReleaseWaived).empty
    hindrances = find_hard_queries(workspace.read_events(), DAY)
    assert find_covered(hindrances, "identifiers", "701-0001") == []


def test_an_identifier_in_a_column_refuses_and_is_not_repeated() -> None:
    scanner = Scanner(NameLists(), DAY, lambda text: text.startswith("01-"))
    nhs_number = "943 476 5919"
    responses = pd.DataFrame({"participant_id": ["01-701-1015"], "wave": [nhs_number], "response": [1.0]})
    scores = pd.DataFrame({"wave": ["RETRIEVAL", None], "score": [1.0, 2.0]})
    tables = {
        table.name: TableRows.of(table, frame.reindex(columns=table.column_names))
        for table, frame in ((RESPONSES, responses), (SCORES, scores))
    }
    found = find_identifier_columns(tables, scanner)
    assert [(one.what, one.subject, one.n) for one in found] == [("identifiers", "responses.wave", 1)]
    told = describe_hindrances(found, "pilot", DAY)
    assert told[0].startswith("responses.wave: 1 different texts look like an NHS number.")
    assert "943" not in str(told)


def test_the_pilots_own_codes_look_like_nobody(workspace: Workspace) -> None:
    assert find_release_hindrances(workspace, assemble_release(workspace, DAY))[0] == []


# Approvals -----------------------------------------------------------------------------------------------------------


def test_an_approval_that_lapsed_refuses_while_something_is_still_collected(tmp_path: Path) -> None:
    workspace = open_study(tmp_path, study_id="ipc")
    move_clock(workspace, date(2018, 3, 1))
    on = {"occurred_on": date(2017, 1, 10), "requested_by": BY}
    workspace.ledger.append(
        [
            ApprovalSubmitted(**on, approval="rec", route="nhs_rec_full"),
            ApprovalGranted(**on, approval="rec", in_force_from=date(2017, 1, 10), expires_on=date(2018, 1, 31)),
        ]
    )
    study, events, day = workspace.study, workspace.read_events(), date(2018, 3, 1)
    assert find_lapsed_approvals(study, events, day) == []  # nothing is collected, and nothing expected
    send(workspace, "luton-1", "baseline", date(2018, 2, 5), {"eq5d5l_mo": 1}, instrument="eq5d5l")
    events = workspace.read_events()
    found = find_lapsed_approvals(study, events, day)
    assert [(one.what, one.subject) for one in found] == [("lapsed_approval", "rec")]
    assert "2018-01-31 was its last day in force" in describe_hindrances(found, "ipc", day)[0]
    assert find_lapsed_approvals(study, events, date(2018, 1, 31)) == []


# Consent -------------------------------------------------------------------------------------------------------------


def sign(person: str, on: date, scopes: tuple[str, ...]) -> Event:
    return ConsentRecorded(
        occurred_on=on, requested_by=BY, site_id="luton", participant_id=person, form_version="1", scopes=scopes,
        basis="signed", route="self", taken_by="site_researcher",
    )  # fmt: skip


def test_answers_without_consent_stay_out_and_are_counted(tmp_path: Path) -> None:
    workspace = open_study(tmp_path, study_id="ipc")
    move_clock(workspace, date(2018, 3, 1))
    june = date(2017, 6, 1)
    left = {"requested_by": BY, "site_id": "luton"}
    workspace.ledger.append(
        [
            sign("LUT-P00013", june, ("questionnaires",)),
            sign("LUT-P00026", june, ("linkage",)),
            sign("LUT-P00039", date(2017, 8, 1), ("questionnaires",)),
            sign("LUT-P00041", june, ("questionnaires",)),
            DispositionRecorded(
                **left, occurred_on=date(2017, 9, 1), participant_id="LUT-P00041", scope="data", reason="withdrew"
            ),
        ]
    )
    people = ["LUT-P00013", "LUT-P00026", "LUT-P00039", "LUT-P00041", "LUT-P00052"]
    returns = pd.DataFrame(
        {
            "participant_id": people,
            "site_id": "luton",
            "respondent": "self",
            "occurred_on": pd.to_datetime(["2017-07-01"] * 5).astype("datetime64[us]"),
        },
        index=[7, 3, 5, 1, 9],
    )
    day = date(2017, 12, 1)
    happened = workspace.read_events().select(as_of=day)
    reasons = judge_consent(workspace.study, happened, returns, day)
    assert reasons.to_dict() == {
        7: "", 3: "scope_missing", 5: "before_consent", 1: "data_withdrawn", 9: "no_consent",
    }  # fmt: skip
    counted = count_left_out(returns, reasons)
    assert (counted["n_records"], counted["n_participants"]) == (4, 4)
    assert [entry["reason"] for entry in counted["reasons"]] == [
        "before_consent", "no_consent", "scope_missing", "data_withdrawn",
    ]  # fmt: skip
    # What this study's datasets need besides is its own to say.
    rule = workspace.study.fieldwork.consent_rule
    assert rule is not None
    stricter = rule.model_copy(update={"release_scopes": ("linkage",)})
    fieldwork = workspace.study.fieldwork.model_copy(update={"consent": (stricter,)})
    study = workspace.study.model_copy(update={"fieldwork": fieldwork})
    assert judge_consent(study, happened, returns, day)[7] == "release_scope_missing"
    assert set(derive_consents(study, happened, day)["participant_id"]) == set(people) - {"LUT-P00052"}


def test_a_study_without_a_rule_for_consent_leaves_nothing_out(workspace: Workspace) -> None:
    assert workspace.study.fieldwork.consent_rule is None
    assert assemble_release(workspace, DAY).left_out == {"n_records": 0, "n_participants": 0, "reasons": []}


# Masked arms ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pilot() -> Study:
    return load_study("cdisc_pilot", PROJECT / "sites_config", PROJECT / "instruments")


def test_a_masked_study_tells_nothing_of_its_arms(pilot: Study) -> None:
    letters = assign_letters(["low_dose", "placebo", "high_dose"])
    assert letters == {"low_dose": "A", "placebo": "B", "high_dose": "C"}
    masked = mask_study(pilot, letters)
    assert [(arm.id, arm.label, arm.role) for arm in masked.arms] == [
        ("A", "Arm A", "comparison"), ("B", "Arm B", "intervention"), ("C", "Arm C", "intervention"),
    ]  # fmt: skip
    assert not any("placebo" in entry.text.lower() for entry in masked.assumptions)
    frame = pd.DataFrame({"site": ["701", "701", "702"], "arm": ["placebo", "low_dose", None]})
    assert mask_arms(frame, letters)["arm"].fillna("").tolist() == ["B", "A", ""]
    assert find_telling_sites(frame) == 0
    assert find_telling_sites(frame.iloc[1:]) == 1
    assert list(assign_letters([str(n) for n in range(28)]).values())[24:] == ["Y", "Z", "AA", "AB"]


def test_labels_name_no_arm_when_masked(pilot: Study) -> None:
    main = pilot.main_analysis[0].model_copy(update={"label": "ADAS-Cog of high-dose against PLACEBO-treated people"})
    power = pilot.power[0].model_copy(update={"label": "Low doses"})
    wave = pilot.waves[0].model_copy(update={"label": "Screening for UC"})
    told = pilot.model_copy(
        update={
            "title": "Xanomeline High Dose versus usual care: succinct comparison", "main_analysis": (main,),
            "power": (power,), "waves": (wave, *pilot.waves[1:]),
            "arms": (*pilot.arms, pilot.arms[0].model_copy(update={"id": "usual", "label": "UC"}),
                     pilot.arms[0].model_copy(update={"id": "usual_care", "label": "Usual care"})),
        }
    )  # fmt: skip
    masked = mask_study(told, assign_letters([arm.id for arm in told.arms]))
    assert masked.title == told.title  # it is known to all, and tells nothing of letters
    assert masked.main_analysis[0].label == "ADAS-Cog of [arm] against [arm]-treated people"
    assert masked.power[0].label == "[arm]"
    assert masked.waves[0].label == "Screening for [arm]"
    assert [arm.label for arm in masked.arms] == [f"Arm {letter}" for letter in "ABCDE"]
    ipc = load_study("ipc", PROJECT / "sites_config", PROJECT / "instruments")
    masked = mask_study(ipc, assign_letters([arm.id for arm in ipc.arms]))
    shown = " ".join(value for value in _list_words(masked.model_dump(exclude={"title"})))
    assert "integrated personal" not in shown.casefold()


def _list_words(told: object) -> list[str]:
    if isinstance(told, dict):
        told = list(told.values())
    if isinstance(told, list | tuple):
        return [word for part in told for word in _list_words(part)]
    return [told] if isinstance(told, str) else []


def test_a_code_that_names_an_arm_refuses_a_blinded_edition(workspace: Workspace, pilot: Study) -> None:
    assert find_telling_codes(pilot) == []
    reason = pilot.disposition_reasons[0].model_copy(update={"id": "stopped_high_dose"})
    told = pilot.model_copy(update={"disposition_reasons": (reason, *pilot.disposition_reasons[1:])})
    with pytest.raises(ReleaseFault, match="Rename it: disposition_reasons: stopped_high_dose"):
        draw_letters(workspace, told)
    assert list(workspace.area.list("sealed/")) == []


def test_a_blinded_edition_holds_letters_and_its_key_is_sealed_elsewhere(workspace: Workspace) -> None:
    with pytest.raises(ReleaseFault, match="A blinded edition needs a key"):
        freeze_release(workspace, DAY, BY, is_blinded=True)
    key = SecretStr(Fernet.generate_key().decode())
    workspace.settings = workspace.settings.model_copy(update={"quarantine_key": key})
    frozen = freeze_release(workspace, DAY, BY, is_blinded=True)
    assert frozen.release == "2013-03-04-blinded"
    assert frozen.manifest["masked_arms"] == ["A", "B", "C"]
    assert not workspace.area.has("releases/latest/manifest.json")
    arms = pd.read_parquet(io.BytesIO(workspace.area.get(f"releases/{frozen.release}/data/participants.parquet")))[
        "arm"
    ]
    assert set(arms.dropna()) < {"A", "B", "C"}
    for stored in workspace.area.list(f"releases/{frozen.release}/"):
        content = workspace.area.get(stored.key)
        for word in (b"high_dose", b"low_dose", b"igh dose", b"ow dose"):
            assert word not in content, stored.key
    sealed = [stored.key for stored in workspace.area.list("sealed/")]
    assert len(sealed) == 1
    assert b"dose" not in workspace.area.get(sealed[0])
    # The letters are drawn once: the same edition again, and the key opens them.
    assert freeze_release(workspace, DAY, BY, is_blinded=True).answer == "same"
    assert verify_release(workspace, frozen.release, is_rebuilt=True).exit_code == 0
    other = SecretStr(Fernet.generate_key().decode())
    workspace.settings = workspace.settings.model_copy(update={"quarantine_key": other})
    with pytest.raises(ReleaseFault, match="no key of the settings opens what the letters stand for"):
        assemble_release(workspace, DAY, is_blinded=True)


# Verifying -----------------------------------------------------------------------------------------------------------


def test_a_damaged_table_is_told_and_one_that_is_not_the_manifests_too(workspace: Workspace) -> None:
    freeze_release(workspace, DAY, BY)
    area, key, manifest = workspace.area, "releases/2013-03-04/data/scores.parquet", "releases/2013-03-04/manifest.json"
    whole, told = area.get(key), json.loads(area.get(manifest))
    area.put(key, whole[:40] + bytes(200) + whole[240:])  # its footer can be read, and its pages cannot
    assert verify_release(workspace, "").faults == [
        "data/scores.parquet was changed: its hash is not the one in the manifest."
    ]
    area.put(key, whole)
    told["tables"]["scores"]["sha256_of_content"] = "0" * 64
    area.put(manifest, json.dumps(told).encode())
    assert verify_release(workspace, "").faults == [
        "data/scores.parquet does not hold what the manifest says of the table scores.",
        "manifest.json is not the one that was recorded when the release was frozen.",
    ]


def test_verifying_finds_whatever_is_not_as_it_was(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ReleaseFault, match=r'has no release "latest"\. Nothing was frozen yet'):
        verify_release(workspace, "")
    frozen = freeze_release(workspace, DAY, BY)
    move_clock(workspace, date(2013, 5, 1))
    send(workspace, "01-701-1015", "week_8", date(2013, 3, 1), MMSE, number=8, posted_on=date(2013, 5, 1))
    found = verify_release(workspace, "", is_rebuilt=True)
    assert (found.faults, found.notes, found.other_bytes, found.exit_code) == ([], [], [], 0)
    assert found.n_files == len(frozen.manifest["files"])
    assert found.head == (frozen.manifest["ledger"]["seq"], frozen.manifest["ledger"]["hash"])

    area = workspace.area
    scores, sources = area.get("releases/2013-03-04/data/scores.parquet"), frozen.manifest["returns"]
    changed_table = io.BytesIO()
    pq.write_table(pa.table({"score": [1.0]}), changed_table)
    area.put("releases/2013-03-04/data/scores.parquet", changed_table.getvalue())
    area.put("releases/2013-03-04/left.txt", b"?")
    area.delete("releases/2013-03-04/report.html")
    monkeypatch.setattr(workspace.content, "get", refuse_reading(workspace, sources[0]["answers_sha256"]))
    faults = "\n".join(verify_release(workspace, "2013-03-04").faults)
    assert "data/scores.parquet was changed" in faults
    assert "left.txt lies in the release's folder and is not of the release." in faults
    assert "report.html is missing." in faults
    assert f"The answers of the sending {sources[0]['return_id']} is missing from the store" in faults
    monkeypatch.undo()
    area.put("releases/2013-03-04/data/scores.parquet", scores)
    area.delete("releases/2013-03-04/left.txt")
    changed = (
        area.get("releases/2013-03-04/manifest.json").replace(b'"interim"', b'"final"').replace(b"CDISC", b"Cdisc")
    )
    area.put("releases/2013-03-04/manifest.json", changed)
    faults = "\n".join(verify_release(workspace, "2013-03-04").faults)
    assert "manifest.json is not the one that was recorded when the release was frozen." in faults
    area.put("releases/2013-03-04/manifest.json", b"{")
    assert verify_release(workspace, "2013-03-04").faults == [
        "manifest.json cannot be read. Restore the release from a backup."
    ]


def refuse_reading(workspace: Workspace, sha256: str) -> Any:
    read = workspace.content.get

    def get(wanted: str) -> bytes:
        return read("0" * 64 if wanted == sha256 else wanted)

    return get


def test_rebuilding_by_other_versions_proves_the_content_and_names_other_bytes(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    frozen = freeze_release(workspace, DAY, BY)
    versions = {**frozen.manifest["code"], "pyarrow": "99.0"}
    with monkeypatch.context() as patch:
        patch.setattr(tasks.release_files, "_COMPRESSION", "gzip")
        found = verify_release(workspace, "", is_rebuilt=True)
        assert found.exit_code == 1  # by the same versions, other bytes are a fault
        assert "Built again by the same versions, data/scores.parquet has other bytes." in found.faults
        patch.setattr(tasks.release_checks, "derive_code_version", lambda: versions)
        patch.setattr(tasks.releases, "derive_code_version", lambda: versions)
        found = verify_release(workspace, "", is_rebuilt=True)
    assert (found.exit_code, found.faults) == (3, [])
    assert "data/scores.parquet" in found.other_bytes
    assert "data/scores.csv" not in found.other_bytes
    assert found.notes == [f"Other versions wrote it: pyarrow {frozen.manifest['code']['pyarrow']} then, 99.0 now."]


def test_the_ledger_is_held_against_the_head_of_the_release(workspace: Workspace) -> None:
    freeze_release(workspace, DAY, BY)
    manifest = read_manifest(workspace, "2013-03-04") or {}
    manifest["ledger"]["hash"] = "0" * 64
    workspace.area.put("releases/2013-03-04/manifest.json", json.dumps(manifest).encode())
    faults = "\n".join(verify_release(workspace, "").faults)
    assert f"Ledger: Row {manifest['ledger']['seq']} is not the one that was published" in faults


def test_a_release_that_the_ledger_does_not_know(workspace: Workspace) -> None:
    freeze_release(workspace, DAY, BY)
    frozen = workspace.read_events().frame(ReleaseFrozen).iloc[0]
    workspace.ledger.append([Voided(occurred_on=DAY, requested_by=BY, voids=frozen["hash"], reason="entered_in_error")])
    assert verify_release(workspace, "").faults == [
        "The ledger does not know 2013-03-04: freeze it again, which records it."
    ]


def test_the_hash_of_a_table_follows_from_its_content_alone() -> None:
    days = pa.array([date(2013, 1, 1), None], pa.date32())
    table = pa.table({"id": ["Ynys Môn", None], "score": [0.5, None], "on": days})
    known = compute_table_hash(table)
    assert (
        known == "4af24c62efa7c822a15cd09b63390d879c4f9f3b2a6f7357a19782f3f1dd17ed"
    )  # written down once: other machines and versions must find the same
    chunks = pa.concat_tables([table.slice(0, 1), table.slice(1, 1)])
    assert compute_table_hash(chunks) == known
    assert compute_table_hash(pa.concat_tables([table, table]).slice(1, 2)) != known
    assert compute_table_hash(pa.concat_tables([table, table]).slice(2, 2)) == known
    zero = pa.table({"id": ["Ynys Môn", ""], "score": [0.5, None], "on": days})
    assert compute_table_hash(zero) != known  # an empty text is a value
    assert compute_table_hash(pa.table({"x": [-0.0]})) == compute_table_hash(pa.table({"x": [0.0]}))
    empty = pa.table({"id": pa.array([], pa.string())})
    assert compute_table_hash(empty) != compute_table_hash(pa.table({"other": pa.array([], pa.string())}))
    many = pa.table({"x": [float(n) for n in range(70_000)]})
    assert compute_table_hash(many) == compute_table_hash(pa.concat_tables([many.slice(0, 65_537), many.slice(65_537)]))


# The commands --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["waive", "cdisc_pilot", "nothing", "all", "--reason", "interim", "--role", "x", "--by", BY], "cannot be"),
        (["waive", "cdisc_pilot", "hard_queries", "all", "--reason", "so", "--role", "x", "--by", BY], "no reason"),
    ],
)
def test_a_waiver_of_what_cannot_be_waived_is_refused(words: list[str], says: str) -> None:
    answer = CliRunner().invoke(app, ["release", *words])
    assert answer.exit_code == 2
    assert says in answer.output
