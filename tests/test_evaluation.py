"""The IPC rehearsal: what sites post and when, the marks that tell it from the real study, and a slice played whole."""

import io
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import date
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import python_calamine
from prefect.server.api.server import SubprocessASGIServer

from rehearsal.approvals_story import NAME, derive_story, read_story
from rehearsal.evaluation import PlayedEvaluation, count_flow, play_evaluation
from rehearsal.ipc_definitions import MARK, write_definitions
from rehearsal.ipc_people import Assumptions, People, derive_openings, draw_people, load_ipc_assumptions
from rehearsal.ipc_postings import AtSites, Posting, Sites
from rehearsal.ipc_sites import (
    MISTAKES_OF_RECORDS,
    NAME_AS_ROLE,
    compute_days,
    compute_shares,
    derive_figures,
    find_answers,
    find_mistakes,
    list_posting_days,
    write_records,
)
from rehearsal.replay import ReplayRefused
from study.approval_entries import foresee
from study.events import (
    ApproachAnswered,
    ConsentRecorded,
    DispositionRecorded,
    Event,
    ParticipantApproached,
    ParticipantScreened,
    ReturnAccepted,
    ReturnReleased,
)
from study.flow import derive_disposition_rows, derive_flow_boxes, find_flow_faults
from study.identifiers import compute_identifier, has_sound_check
from study.instruments import Instrument
from study.modifications import derive_document_versions
from study.pack_layout import ABOUT_TITLE, ALLOCATION, CONSENT, DISPOSITION, QUERIES, SCREENING
from study.protocol import Study
from study.state import Events
from study.validation import check_records
from tasks.definitions import load_instrument, load_instruments, load_study
from tasks.settings import Settings
from tasks.workspace import create_workspace

PAIR = {"islington": 9, "luton": 12}


@cache
def study() -> Study:
    return load_study("ipc")


@cache
def instruments() -> dict[str, Instrument]:
    return load_instruments(study())


@cache
def story() -> Events:
    told = derive_story(study(), read_story() | {"ends_on": study().ends_on})
    return foresee(Events({}), [entry.event for entry in told])


# What sites do ------------------------------------------------------------------------------------------------------


def test_shares_are_even_and_hang_on_name_subject_and_seed() -> None:
    names = [str(n) for n in range(5000)]
    shares = compute_shares(names, "posts", 1)
    assert np.histogram(shares, bins=10, range=(0, 1))[0].min() > 400
    assert compute_shares(names[7:8], "posts", 1)[0] == shares[7]
    for other in (compute_shares(names, "posts", 2), compute_shares(names, "answers", 1)):
        assert abs(np.corrcoef(shares, other)[0, 1]) < 0.05


def test_days_have_their_median_and_keep_their_bounds() -> None:
    value = {"median": 12, "spread": 0.7, "least": 2, "most": 60}
    days = compute_days([str(n) for n in range(4000)], "query", value, 1).dt.days
    assert abs(days.median() - 12) <= 1
    assert (days.min(), days.max()) == (2, 60)


def test_sites_post_on_fridays_and_leave_some_out() -> None:
    assumptions = load_ipc_assumptions()
    days = list_posting_days("tower_hamlets", date(2017, 7, 1), date(2018, 6, 29), assumptions)
    assert {day.weekday() for day in days} == {4}
    assert date(2017, 7, 7) <= days[0] <= days[-1] <= date(2018, 6, 29)
    assert 20 <= len(days) <= 45  # of 52; three in five
    assert list_posting_days("luton", date(2017, 7, 8), date(2017, 7, 13), assumptions) == []


def records(*mistakes: str) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "participant_id": [f"LUT-X{n:04d}0" for n in range(len(mistakes))],
            "respondent": "self",
            "form": "standard",
            "wave": "baseline",
            "collected_on": pd.Timestamp(2017, 9, 28),
            "is_partly": False,
            "mistake": list(mistakes),
        }
    )


def test_each_mistake_is_of_the_kind_that_it_is_called() -> None:
    instrument = instruments()["eq5d5l"]
    rows = records("", *MISTAKES_OF_RECORDS)
    written = write_records(instrument, rows, load_ipc_assumptions(), with_mistakes=True)
    right = write_records(instrument, rows, load_ipc_assumptions(), with_mistakes=False)
    assert len(right) == 6
    assert right.iloc[0].equals(written.iloc[0])
    assert written.loc[1, "eq5d5l_mo"] == 9
    assert written.loc[2, "collected_on"] == "09/28/2017"
    assert written.loc[3, "participant_id"] == "LUT-X00031"
    pd.testing.assert_series_equal(written.iloc[6], written.iloc[4], check_names=False)
    assert study().find_wave(str(written["wave"].iloc[5])) is None
    changed = [str(column) for column in right if right[column].tolist() != written[column].tolist()[:6]]
    assert changed == ["participant_id", "wave", "collected_on", "eq5d5l_mo"]


@pytest.mark.parametrize("name", ["eq5d5l", "ascot_sct4", "ascot_carer", "ons4", "service_use"])
def test_answers_are_answers(name: str) -> None:
    """Every level and number is allowed, routing is kept, and blanks are said to be blanks only where a record has
    some."""
    instrument = instruments()[name]
    rows = records(*[""] * 300).assign(is_partly=[n % 2 == 0 for n in range(300)])
    written = write_records(instrument, rows, load_ipc_assumptions(), with_mistakes=False)
    for item in instrument.items:
        values = written[item.id]
        answered = values[values.notna() & (values != -9)]
        assert answered.between(item.lowest, item.highest).all()
        assert len(answered) > 20
        assert answered.nunique() > 1
        assert not (values[1::2] == -9).any()
        if item.asked_if:
            assert (values.notna() == written[item.asked_if.item].isin(item.asked_if.equals)).all()
    assert (written[list(instrument.item_ids)] == -9).any(axis=None)


def test_what_a_person_says_of_themselves_agrees() -> None:
    """Ages as the route of consent has them, "none of these" alone, and no rule of the definition broken."""
    instrument = load_instrument("sociodemographics")
    cohorts, routes = ["children_complex_needs"] * 2 + ["mental_health"], ["parent", "self", "self"]
    rows = records(*[""] * 600).assign(cohort=cohorts * 200, route=routes * 200, form=["standard", "easy_read"] * 300)
    written = write_records(instrument, rows, load_ipc_assumptions(), with_mistakes=False)
    assert check_records(instrument, written).faults.empty
    ages = written["socio_age"]
    assert [ages[n::3].between(low, high).all() for n, (low, high) in enumerate([(5, 15), (16, 17), (18, 95)])] == [
        True
    ] * 3
    assert written["socio_left_school"][rows["form"] == "easy_read"].isna().all()
    assert set(written["socio_cond_none"]) == {0, 1}


def test_a_month_comes_first_only_where_that_shows() -> None:
    assumptions = load_ipc_assumptions().change(
        mistakes=dict.fromkeys(MISTAKES_OF_RECORDS, 0.0) | {"month_first": 1.0, "name_as_role": 0.0}
    )
    rows = records("", "").assign(instrument="ons4", collected_on=pd.to_datetime(["2017-09-12", "2017-09-13"]))
    assert find_mistakes(rows, assumptions).tolist() == ["", "month_first"]


def test_queries_are_answered_in_the_shares_that_are_assumed() -> None:
    names = [f"LUT-{n:04d}" for n in range(3000)]
    days, answers = find_answers(names, load_ipc_assumptions())
    assert days.isna().mean() == pytest.approx(0.08, abs=0.02)
    assert (answers == "corrected").mean() == pytest.approx(0.8, abs=0.03)
    assert set(answers) == {"corrected", "confirmed", "cannot_say"}


def test_figures_grow_and_differ() -> None:
    """Two areas with over 1,000 plans, the others with up to 58; some months differ, some are never told."""
    figures = derive_figures(study(), load_ipc_assumptions())
    assert set(figures["figure"]) == {"care_plans", "budgets"}
    plans = figures[figures["figure"] == "care_plans"].groupby("site_id")["evaluation"].max()
    assert list(plans[plans > 1000].index) == ["hampshire", "stockton_on_tees"]
    assert plans.drop(["hampshire", "stockton_on_tees"]).between(8, 58).all()
    differ = figures["evaluation"] != figures["nhs_england"]
    assert 0.3 < differ.mean() < 0.7
    assert len(figures) < 2 * 17 * 17
    month_ends = pd.PeriodIndex(figures["month"], freq="M").end_time.normalize()
    assert (figures["reported_on"].to_numpy() > month_ends.to_numpy()).all()


# What they post -----------------------------------------------------------------------------------------------------


def identifiers(site_id: str, n: int, had_on: str) -> pd.DataFrame:
    site, rule = study().find_site(site_id), study().fieldwork.identifier_rule
    assert site is not None
    assert rule is not None
    names = [compute_identifier(rule, site.code, number) for number in range(1, n + 1)]
    return pd.DataFrame({"site_id": site_id, "participant_id": names, "had_on": pd.Timestamp(had_on)})


@dataclass
class Area:
    """Luton, with its people, before anything has reached it."""

    sites: Sites
    people: People
    there: AtSites

    def post(self, after: date, until: date) -> list[Posting]:
        return list(self.sites.derive_postings(self.there, after, until))

    def gather(self, code: str) -> pd.DataFrame:
        postings = [p for p in self.post(date(2017, 1, 1), date(2019, 5, 31)) if code in p.sheets]
        return pd.concat([p.sheets[code].assign(posted_on=pd.Timestamp(p.posted_on)) for p in postings])


@pytest.fixture
def luton() -> Area:
    assumptions = load_ipc_assumptions().change(approached={"luton": 84})
    openings = derive_openings(study(), story(), study().ends_on)
    people = draw_people(study(), openings, assumptions)
    versions = derive_document_versions(study(), story(), study().ends_on)
    packs = pd.DataFrame(
        {"pack_id": ["luton-2017-07-04-1"], "site_id": ["luton"], "had_on": [pd.Timestamp(2017, 7, 4)]}
    )
    nothing: dict[str, Any] = {"participant_id": [], "wave": [], "respondent": []}
    asked = pd.DataFrame({**nothing, "form": [], "instrument": []}, dtype="str")
    queries = pd.DataFrame({**nothing, "query_id": [], "site_id": [], "instrument": []}, dtype="str")
    no_days = pd.Series(dtype="datetime64[s]")
    there = AtSites(
        identifiers=identifiers("luton", 84, "2017-07-04"),
        asked=asked.assign(opens_on=no_days, had_on=no_days),
        chased=pd.DataFrame(nothing, dtype="str").assign(chased_on=no_days),
        queries=queries.assign(raised_on=no_days),
        packs=packs,
    )
    return Area(Sites(study(), instruments(), people, assumptions, versions), people, there)


def test_nobody_is_told_of_without_an_identifier(luton: Area) -> None:
    luton.there = replace(luton.there, identifiers=identifiers("luton", 10, "2017-07-04"))
    assert set(luton.gather(SCREENING)["participant_id"]) == set(luton.there.identifiers["participant_id"])
    luton.there = replace(luton.there, identifiers=luton.there.identifiers.iloc[:0])
    assert luton.post(date(2017, 1, 1), date(2019, 5, 31)) == []


def test_what_came_before_the_identifiers_is_told_after(luton: Area) -> None:
    luton.there = replace(luton.there, identifiers=identifiers("luton", 84, "2018-01-02"))
    told = luton.gather(SCREENING)
    assert told["posted_on"].min() >= pd.Timestamp(2018, 1, 5)
    assert told["approached_on"].min() < pd.Timestamp(2017, 8, 1)


def test_screening_is_told_when_it_is_known(luton: Area) -> None:
    """First without an answer, if there is none yet; later with it. Nothing is told before it happened."""
    told = luton.gather(SCREENING)
    assert (told["approached_on"] <= told["posted_on"]).all()
    last = told.drop_duplicates("participant_id", keep="last").set_index("participant_id")
    assert len(last) == 84
    assert (last["outcome"] != "").all()
    first = told.drop_duplicates("participant_id").set_index("participant_id")
    assert (first["outcome"] == "").any()
    answered = luton.people.persons["answered_on"].to_numpy()
    numbers = [int(name[5:9]) - 1 for name in first.index[first["outcome"] != ""]]
    silent = np.isnat(answered[numbers])
    assert (answered[numbers][~silent] <= first.loc[first["outcome"] != "", "posted_on"].to_numpy()[~silent]).all()


def test_the_name_that_stood_for_a_role_gives_way_to_the_role(luton: Area) -> None:
    always = luton.sites.assumptions.change(mistakes=luton.sites.assumptions["mistakes"] | {"name_as_role": 1.0})
    luton.sites.assumptions = always
    told = luton.gather(CONSENT)
    first = told.drop_duplicates("participant_id")
    assert (first["taken_by"] == NAME_AS_ROLE).all()
    later = told[~told.index.isin(first.index) | told.duplicated("participant_id")]
    assert len(later) > 20
    assert NAME_AS_ROLE not in set(later["taken_by"])


def test_a_form_is_filed_once_and_stays_filed(luton: Area) -> None:
    for _, own in luton.gather(CONSENT).groupby("participant_id"):
        assert list(own["copy_filed"]) in (["yes"], ["no"], ["no", "yes"], ["no", "no", "yes"], ["yes", "yes"])
        assert own["consent_form_version"].nunique() == 1


def test_consent_is_signed_on_the_version_of_the_day(luton: Area) -> None:
    """The story's modification brings a version that the study's own protocol does not list: there, all sign 1.0."""
    assert set(luton.gather(CONSENT)["consent_form_version"]) == {"1.0"}


def test_who_left_is_told_of_and_no_other(luton: Area) -> None:
    told, allocated = luton.gather(DISPOSITION), luton.gather(ALLOCATION)
    known = luton.people.leavings["told_on"] <= luton.sites.fridays["luton"][-1]
    assert len(told) == known.sum() > 10
    assert set(told["participant_id"]) <= set(allocated["participant_id"])
    assert (told["left_on"] <= told["posted_on"]).all()


def ask_baselines(area: Area) -> pd.DataFrame:
    """Everybody's own baseline, at hand a week after signing."""
    persons = area.people.persons
    signed = persons[persons["consented_on"].notna()]
    asked = pd.DataFrame(
        {
            "participant_id": area.there.identifiers["participant_id"].iloc[signed["number"] - 1].to_numpy(),
            "wave": "baseline",
            "respondent": np.where(signed["route"] == "self", "self", "proxy"),
            "form": "standard",
            "opens_on": signed["consented_on"].to_numpy(),
            "had_on": (signed["consented_on"] + pd.Timedelta(days=7)).to_numpy(),
        }
    )
    return pd.concat([asked.assign(instrument=code) for code in ("eq5d5l", "service_use")], ignore_index=True)


def test_questionnaires_are_filled_in_once_they_are_there(luton: Area) -> None:
    luton.there = replace(luton.there, asked=(asked := ask_baselines(luton)))
    told = luton.gather("eq5d5l").merge(asked[["participant_id", "had_on"]].drop_duplicates(), on="participant_id")
    plain = told[told["collected_on"].map(lambda day: isinstance(day, pd.Timestamp))]
    assert len(told) > 30
    assert (plain["collected_on"] > plain["had_on"]).all()
    assert (plain["collected_on"] <= plain["posted_on"]).all()
    assert set(luton.gather("service_use")["participant_id"]) >= set(plain["participant_id"])


def test_some_fill_in_sooner_when_the_site_was_chased(luton: Area) -> None:
    asked = ask_baselines(luton)
    luton.there = replace(luton.there, asked=asked)
    before = luton.gather("service_use").drop_duplicates("participant_id").set_index("participant_id")["posted_on"]
    chased = asked[["participant_id", "wave", "respondent"]].assign(chased_on=asked["had_on"]).drop_duplicates()
    luton.there = replace(luton.there, chased=chased)
    after = luton.gather("service_use").drop_duplicates("participant_id").set_index("participant_id")["posted_on"]
    assert set(after.index) == set(before.index)
    assert (after <= before.reindex(after.index)).all()
    assert 3 <= (after < before.reindex(after.index)).sum() < len(after) / 2


def test_a_mistake_is_mended_later_and_its_query_answered_with_it(luton: Area) -> None:
    assumptions = luton.sites.assumptions
    wrong = dict.fromkeys(assumptions["mistakes"], 0.0) | {"wrong_level": 1.0}
    mends = assumptions["answers_query_after"] | {"never": 0.0}
    luton.sites.assumptions = assumptions.change(mistakes=wrong, answers_query_after=mends)
    luton.there = replace(luton.there, asked=ask_baselines(luton))
    told = luton.gather("eq5d5l").sort_values("posted_on", kind="stable")
    name = told["participant_id"].iloc[0]
    own = told[told["participant_id"] == name]
    assert list(own["eq5d5l_mo"] > 5) == [True, False]
    first, second = own["posted_on"]
    query = {
        "query_id": "LUT-0001", "site_id": "luton", "participant_id": name, "wave": "baseline",
        "respondent": own["respondent"].iloc[0], "instrument": "eq5d5l", "raised_on": first + pd.Timedelta(days=4),
    }  # fmt: skip
    luton.there = replace(luton.there, queries=pd.DataFrame([query]))
    answers = luton.gather(QUERIES)
    assert answers[["query_id", "answer", "posted_on"]].to_numpy().tolist() == [["LUT-0001", "corrected", second]]


def test_postings_do_not_depend_on_how_often_one_looks(luton: Area) -> None:
    luton.there = replace(luton.there, asked=ask_baselines(luton))
    whole = luton.post(date(2017, 7, 1), date(2017, 12, 31))
    bounds = [date(2017, 7, 1), date(2017, 8, 3), date(2017, 8, 4), date(2017, 10, 10), date(2017, 12, 31)]
    parts = [p for after, until in pairwise(bounds) for p in luton.post(after, until)]
    assert [(p.posted_on, p.site_id, list(p.sheets)) for p in parts] == [
        (p.posted_on, p.site_id, list(p.sheets)) for p in whole
    ]
    for one, other in zip(parts, whole, strict=True):
        for code in one.sheets:
            pd.testing.assert_frame_equal(one.sheets[code], other.sheets[code])


# The flow, counted from the ledger ----------------------------------------------------------------------------------


def tell(kind: type[Event], participant_id: str, day: str, **fields: Any) -> Event:
    about: dict[str, Any] = {"requested_by": "Anna Price", "site_id": "luton", "participant_id": participant_id}
    return kind.model_validate({**about, "occurred_on": day, **fields})


def answer(participant_id: str, wave: str, day: str, respondent: str = "self") -> Event:
    fields = {"instrument": "eq5d5l", "form": "standard", "version": 1, "n_items": 6, "n_answered": 6}
    more = {"return_id": "r1", "responses_sha256": "a" * 64, "respondent": respondent, "wave": wave}
    return tell(ReturnAccepted, participant_id, day, **fields, **more)


def test_the_flow_is_counted_from_the_ledger() -> None:
    told: list[Event] = []
    for n in range(1, 9):
        told.append(tell(ParticipantApproached, f"P{n}", "2017-07-03", cohort="mental_health"))
        outcome = "agreed" if n < 8 else "no_answer"
        told.append(tell(ApproachAnswered, f"P{n}", "2017-07-03", outcome=outcome))
    consent = {"form_version": "1.0", "scopes": ("questionnaires",), "basis": "signed"}
    told += [tell(ConsentRecorded, f"P{n}", "2017-07-04", **consent) for n in range(1, 8)]
    told += [
        answer("P1", "baseline", "2017-07-31"), answer("P1", "follow_up_6m", "2018-02-01"),
        answer("P2", "baseline", "2017-09-26"), answer("P2", "follow_up_6m", "2018-06-18"),  # the last day of each
        answer("P3", "baseline", "2017-09-27"), answer("P3", "follow_up_6m", "2018-04-01"),  # too late
        answer("P4", "baseline", "2017-08-01"), answer("P4", "follow_up_6m", "2018-04-27"),  # too late the second time
        answer("P5", "baseline", "2017-08-01"), answer("P5", "follow_up_6m", "2018-02-01"),  # withdrew it all
        answer("P6", "baseline", "2017-08-01", "carer"),  # the carer's own
        answer("P7", "baseline", "2017-08-01", "proxy"),
    ]  # fmt: skip
    told.append(tell(DispositionRecorded, "P5", "2018-03-01", scope="data", reason="data_withdrawn"))
    events = foresee(Events({}), told)
    assert count_flow(study(), events, date(2019, 5, 31)) == (8, 7, 5, 2)
    assert count_flow(study(), events, date(2018, 2, 1)) == (8, 7, 5, 2)
    assert count_flow(study(), events, date(2017, 8, 1)) == (8, 7, 4, 0)


# The marks ----------------------------------------------------------------------------------------------------------


def test_a_rehearsal_is_marked_and_takes_no_real_identifier(tmp_path: Path) -> None:
    settings = Settings(data_folder=tmp_path, _env_file=None)
    write_definitions(settings, "ipc", NAME)
    marked = create_workspace("ipc", settings=settings, name=NAME).study
    assert marked.title == f"{MARK}: {study().title}"
    rule = marked.fieldwork.identifier_rule
    assert rule is not None
    invented = compute_identifier(rule, "LUT", 17)
    assert marked.is_participant_id(invented)
    assert has_sound_check(marked, invented)
    assert not study().is_participant_id(invented)
    assert not marked.is_participant_id(study().participant_id_example)
    assert [form.version for form in marked.consent_forms] == ["1.0", "1.1"]
    assert create_workspace("ipc", settings=settings).study.title == study().title


def test_definitions_of_what_has_begun_stay_as_they_are(tmp_path: Path) -> None:
    settings = Settings(data_folder=tmp_path, _env_file=None)
    write_definitions(settings, "ipc", NAME)
    file = tmp_path / NAME / "definitions" / "ipc" / "study.toml"
    file.write_text(file.read_text(encoding="utf-8").replace('"0.1"', '"0.2"'), encoding="utf-8")
    write_definitions(settings, "ipc", NAME)
    assert create_workspace("ipc", settings=settings, name=NAME).study.protocol_version == "0.2"


# A slice, played whole ------------------------------------------------------------------------------------------------


def shrink() -> Assumptions:
    """Two areas with few people, all approached in the first three months."""
    period = load_ipc_assumptions()["approach_period"] | {"until": date(2017, 9, 29)}
    return load_ipc_assumptions().change(approached=PAIR, approach_period=period)


def play_slice(folder: Path, until: date) -> PlayedEvaluation:
    settings = Settings(data_folder=folder, _env_file=None)
    return play_evaluation(settings, until=until, every=28, assumptions=shrink())


HALFWAY, SLICE_END = date(2017, 9, 5), date(2017, 12, 26)  # both on the grid of every 28 days


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PlayedEvaluation]:
    """Played in two parts: the second goes on where the first ended."""
    folder = tmp_path_factory.mktemp("slice")
    first = play_slice(folder, HALFWAY)
    assert (first.n_resumed, first.frozen) == (0, {})
    yield play_slice(folder, SLICE_END)
    SubprocessASGIServer().stop()


def test_a_slice_is_played(played: PlayedEvaluation) -> None:
    """Everybody whom the areas approach is in the ledger, sites have posted, packs have gone out and come back."""
    events = played.workspace.read_events()
    assert played.n_resumed == 12
    assert played.flow.approached == sum(PAIR.values())
    assert events.frame(ParticipantApproached).groupby("site_id").size().to_dict() == PAIR
    assert 5 < played.flow.agreed < 21
    assert 1 <= played.flow.baseline_in_time <= played.flow.agreed
    released, returned = events.frame(ReturnReleased), events.frame(ReturnAccepted)
    assert set(returned["participant_id"]) <= set(released["participant_id"])
    assert set(returned["instrument"]) >= {"eq5d5l", "service_use"}


def test_the_flow_of_the_release_agrees_with_the_count(played: PlayedEvaluation) -> None:
    events = played.workspace.read_events()
    people = derive_disposition_rows(played.workspace.study, events, SLICE_END)
    boxes = derive_flow_boxes(people, played.workspace.study)
    assert find_flow_faults(people, boxes, played.workspace.study) == []
    n = boxes[boxes["group"] == "all"].set_index("box")["n"]
    assert n[["approached", "agreed", "baseline.in_time", "analysed"]].tolist() == list(played.flow)


def test_nobody_invented_has_an_identifier_that_the_study_would_take(played: PlayedEvaluation) -> None:
    people = played.workspace.read_events().frame(ParticipantScreened)["participant_id"]
    assert len(people) == sum(PAIR.values())
    assert all(re.fullmatch(r"(ISL|LUT)-X\d{5}", name) for name in people)
    assert not any(study().is_participant_id(name) for name in people)


def test_pages_packs_and_postings_say_that_it_is_a_rehearsal(played: PlayedEvaluation) -> None:
    folder = played.workspace.folder
    pages = list((folder / "pages").glob("*.html"))
    assert pages
    for page in pages:
        assert MARK in page.read_text(encoding="utf-8"), page.name
    packs = list((folder / "sites").glob("*/outbox/*.xlsx"))
    assert packs
    for pack in packs:
        book = python_calamine.CalamineWorkbook.from_filelike(io.BytesIO(pack.read_bytes()))
        assert MARK in str(book.get_sheet_by_name(ABOUT_TITLE).to_python())
    for letter in (folder / "outbox_mail").glob("**/*.eml"):
        assert ".invalid" in letter.read_text(encoding="utf-8")


def test_a_rehearsal_goes_on_only_under_the_same_assumptions(played: PlayedEvaluation) -> None:
    settings = played.workspace.settings.model_copy(update={"data_folder": played.workspace.folder.parent})
    other = shrink().change(comparison_share=0.1)
    with pytest.raises(ReplayRefused, match="Begin again with --fresh"):
        play_evaluation(settings, until=SLICE_END, every=28, assumptions=other)
    with pytest.raises(ReplayRefused, match="lies outside the study"):
        play_evaluation(settings, until=date(2019, 6, 1), assumptions=shrink())
    again = play_slice(settings.data_folder, SLICE_END)
    assert (again.n_resumed, again.n_posted) == (again.n_days, 0)
    assert again.flow == played.flow
