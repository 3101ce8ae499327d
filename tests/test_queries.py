"""A query asks about one value, once: when it is asked, kept, opened again, closed by itself, or never asked again."""

from __future__ import annotations

import csv
import io
import itertools
from collections import defaultdict
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import openpyxl
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from study.chasing import derive_owed
from study.events import QueryAnswered, QueryClosed, QueryRaised, Voided, encode_canonical, upcast_payload
from study.queries import (
    AGE_BANDS,
    CLOSED,
    WITH_SITE,
    WITH_STUDY,
    AskedQuery,
    compute_fingerprint,
    derive_ages,
    derive_seal,
    describe_state,
    find_unanswered_queries,
    make_comparison,
    settle_fault,
)
from study.state import derive_queries
from tasks.queries import QueryRefused, close_query, derive_query_list, reopen_query, write_query_list
from tests.approval_histories import tell as chasing_tell
from tests.approval_histories import tell_more
from tests.chasing_studies import BY, joined, make_study, raised
from tests.release_studies import grant
from tests.test_bad_input import ANN as ANN_THERE
from tests.test_bad_input import BEN as BEN_THERE
from tests.test_bad_input import Post, open_post, set_cell
from tests.test_bad_input import mmse as mmse_there
from tests.test_returns import ANN, NEW, Received, Site, mmse, screened, start
from tests.test_state import tell

DAY = date(2013, 3, 1)
WHO_LUTON = {"requested_by": BY, "site_id": "luton"}
chasing_open = grant("luton", "devon")


class Asked(Site):
    """A site, and the office that decides on its queries."""

    def tell(self, number: int, correction: int = 0, **cells: Any) -> Received:
        return self.send({"mmse": [mmse(ANN, **cells)]}, number=number, correction=correction)

    def answer(self, number: int, query_id: str, answer: str = "confirmed") -> Received:
        return self.send({"queries": [{"query_id": query_id, "answer": answer}]}, number=number)

    def close(self, query_id: str, reason: Any = "confirmed") -> None:
        common = {"occurred_on": DAY, "requested_by": "Anna Price", "site_id": "702"}
        self.events.append(QueryClosed(**common, query_id=query_id, reason=reason))
        self._check_keys()

    def reopen(self, query_id: str) -> None:
        common = {"occurred_on": DAY, "requested_by": "Anna Price", "site_id": "702"}
        for kind in (QueryClosed, QueryAnswered):
            rows = self.view.frame(kind)
            for row in rows.loc[rows["query_id"] == query_id, "hash"]:
                self.events.append(Voided(**common, voids=row, reason="reopened"))

    @property
    def queries(self) -> dict[str, str]:
        """Where each query is, in words."""
        found = derive_queries(self.view)
        return {row["query_id"]: describe_state(row) for row in found.to_dict("records")}


def begin() -> Asked:
    site = Asked()
    site.events = start(ANN).events
    return site


# One value, one query -------------------------------------------------------------------------------------------------


def test_what_was_confirmed_is_never_asked_again_whichever_sending_tells_it():
    site = begin()
    assert site.tell(1, mmse01=7).query_ids == ["702-0001"]
    site.answer(2, "702-0001")
    assert site.queries == {"702-0001": "answered: right as it is"}
    site.close("702-0001")
    for number, correction in ((1, 1), (3, 0), (4, 0)):
        again = site.tell(number, correction, mmse01=7)
        assert again.find(QueryRaised) == again.find(QueryClosed) == again.find(Voided) == []
        assert again.query_ids == ["702-0001"]
        assert again.counts == (0, 0, 1, 0), "it is settled, and still no answer that the measure has"
    assert site.queries == {"702-0001": "closed: confirmed as is"}


def test_another_value_asks_anew_and_the_old_question_is_closed():
    site = begin()
    site.tell(1, mmse01=7)
    changed = site.tell(1, 1, mmse01=9)
    assert changed.query_ids == ["702-0002"]
    assert [event.episode for event in changed.find(QueryRaised)] == [2]
    assert site.queries == {"702-0001": "closed: asked anew about another value", "702-0002": "with the site"}
    site.close("702-0002")
    back = site.tell(2, mmse01=7)
    assert back.query_ids == ["702-0001"], "the first value was never confirmed"
    assert site.queries == {"702-0001": "with the site", "702-0002": "closed: confirmed as is"}


def test_a_soft_query_that_is_settled_is_told_no_more():
    site = begin()
    first = site.send({"mmse": [mmse(ANN)]}, correction=0)
    left_out = site.send({"mmse": [mmse(NEW)], "screening": [screened(NEW)]}, correction=1)
    assert (first.faults, [rule for rule, *_ in left_out.faults]) == ([], ["left_out_of_correction"])
    site.close(left_out.query_ids[0], "withdrawn")
    again = site.send({"mmse": [mmse(NEW)]}, correction=2)
    assert (again.faults, again.find(QueryRaised)) == ([], [])


def test_a_reopened_query_waits_for_its_site_again_and_takes_a_new_answer():
    site = begin()
    site.tell(1, mmse01=7)
    site.answer(2, "702-0001", "corrected")
    site.close("702-0001")
    site.reopen("702-0001")
    assert site.queries == {"702-0001": "with the site"}
    assert len(find_unanswered_queries(derive_queries(site.view))) == 1
    site.answer(3, "702-0001", "corrected")
    assert site.queries == {"702-0001": "answered: corrected"}
    assert find_unanswered_queries(derive_queries(site.view)).empty


def test_what_was_said_to_be_mended_and_was_not_is_the_same_query_again():
    site = begin()
    site.tell(1, mmse01=7)
    site.answer(2, "702-0001", "corrected")
    site.tell(3)
    assert site.queries == {"702-0001": "closed: mended"}
    site.tell(4, mmse01=7)
    assert site.queries == {"702-0001": "with the site"}, "and the old answer counts no more"


def test_an_overtaken_correction_changes_nothing_that_was_asked():
    site = begin()
    site.tell(1, mmse01=7)
    site.tell(1, 2)
    late = site.tell(1, 1, mmse01=9)
    assert (late.find(QueryRaised), late.find(Voided), late.query_ids) == ([], [], ["702-0001"])
    assert site.queries == {"702-0001": "closed: mended"}


def test_a_cell_of_nobody_is_asked_about_once_though_the_log_comes_whole_each_time():
    site = begin()
    rows = [screened(ANN), screened("Ann Jones")]
    first = site.send({"screening": rows}, number=5)
    assert first.query_ids == ["702-0001"]
    moved = site.send({"screening": [screened(ANN), screened(NEW), rows[1]]}, number=6)
    assert (moved.query_ids, moved.find(QueryRaised), moved.find(QueryClosed)) == (["702-0001"], [], [])
    other = site.send({"screening": [screened(ANN), screened("Bob Jones")]}, number=7)
    assert [event.query_id for event in other.find(QueryRaised)] == ["702-0002"]


def test_without_the_file_nobody_can_tell_and_an_open_query_stays():
    is_same = make_comparison({}, ["7"])
    still_open = AskedQuery("1", "r", "mmse", 3, "mmse01", "a" * 32, "f" * 64)
    assert settle_fault([still_open], is_same).step == "keep"
    assert settle_fault([still_open._replace(reason="confirmed")], is_same).step == "ask"


# Whatever the history -------------------------------------------------------------------------------------------------

VALUES = [{}, {"mmse01": 4}, {"mmse01": 7}, {"mmse01": 9}, {"mmse02": 8}, {"mmse01": 7, "mmse02": 8},
          {"collected_on": None}]  # fmt: skip
STEPS = st.one_of(
    st.tuples(st.just("tell"), st.sampled_from(VALUES)),
    st.tuples(st.just("correct"), st.sampled_from(VALUES)),
    st.tuples(st.just("answer"), st.sampled_from(["corrected", "confirmed", "cannot_say"])),
    st.tuples(st.just("close"), st.sampled_from(["confirmed", "withdrawn"])),
    st.tuples(st.just("reopen"), st.just("")),
)


@settings(max_examples=15, deadline=None)
@given(st.lists(st.tuples(STEPS, st.integers(0, 5)), min_size=4, max_size=14))
def test_a_value_is_asked_about_once_and_no_query_is_closed_while_its_fault_stands_unsettled(history):
    site, numbers, last, corrections = begin(), itertools.count(2), 1, 0
    raised: dict[Any, set[str]] = defaultdict(set)
    settled: dict[str, bool] = {}  # whether a person settled it last
    for (step, what), pick in history:
        queries = site.queries
        still_open = sorted(name for name, state in queries.items() if not state.startswith("closed"))
        by_hand = sorted(name for name, is_settled in settled.items() if is_settled)
        if step in ("tell", "correct"):
            if step == "tell":
                last, corrections = next(numbers), 0
            else:
                corrections += 1
            told = site.tell(last, corrections, **what)
            _check(site, told, raised, settled)
        elif step == "answer" and still_open:
            site.answer(next(numbers) + 500, still_open[pick % len(still_open)], what)
        elif step == "close" and still_open:
            name = still_open[pick % len(still_open)]
            site.close(name, what)
            settled[name] = True
        elif step == "reopen" and by_hand:
            name = by_hand[pick % len(by_hand)]
            site.reopen(name)
            settled[name] = False


def _check(site: Asked, told: Received, raised: dict[Any, set[str]], settled: dict[str, bool]) -> None:
    """After a file: each fault's query, of its value alone, is open or was settled by a person; and of what the file
    told soundly nothing is open."""
    decision, queries = told.decision, derive_queries(site.view).set_index("query_id")
    keys = [decision.find_query_key(fault) for fault in decision.faults]
    for key, value, query_id in zip(keys, decision.values, told.query_ids, strict=True):
        raised[key, value].add(query_id)
        assert len(raised[key, value]) == 1, "one query a value"
        state = queries.loc[query_id]
        assert (state["status"] == "open") != settled.get(query_id, False)
        asks = (queries["subject"] == key[0]) & (queries["rule"] == key[1]) & (queries["item"] == key[2])
        assert set(queries.index[asks & (queries["status"] == "open")]) <= {query_id}
    assert sum(len(names) for names in raised.values()) == len(set().union(*raised.values())), "one value a query"
    sound = queries["subject"].isin(decision.told_soundly)
    asked_now = [(subject, rule, item) in keys for subject, rule, item in zip(
        queries["subject"], queries["rule"], queries["item"], strict=True)]  # fmt: skip
    assert not (sound & ~pd.Series(asked_now, queries.index, dtype=bool) & (queries["status"] == "open")).any()


# Beside files ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def post(tmp_path: Path) -> Post:
    post = open_post(tmp_path)
    post.begin()
    return post


def list_states(post: Post) -> dict[str, str]:
    found = derive_queries(post.workspace.read_events())
    return {row["query_id"]: describe_state(row) for row in found.to_dict("records")}


def test_from_the_file_to_the_pack_and_back_and_never_again(post):
    spoil = set_cell("MMSE", "F3", 7)
    post.receive(post.make(change=spoil))
    assert list_states(post) == {"702-0001": "with the site"}
    answer = pd.DataFrame({"query_id": ["702-0001"], "answer": ["confirmed"]})
    post.receive(post.make({"queries": answer}, sending_number=2))
    assert list_states(post) == {"702-0001": "answered: right as it is"}
    assert find_unanswered_queries(derive_queries(post.workspace.read_events())).empty, "neither pack nor letter asks"
    assert close_query(post.workspace, "702-0001", "confirmed", "Anna Price").is_new
    counts = post.receive(post.make(sending_number=3, change=spoil), post.make(correction=1, change=spoil))
    assert (counts["files"], counts["records refused"]) == (2, 2)
    assert list_states(post) == {"702-0001": "closed: confirmed as is"}
    post.receive(post.make(sending_number=4, change=set_cell("MMSE", "F3", 9)))
    assert list_states(post)["702-0002"] == "with the site"


def test_a_person_s_decision_is_refused_where_it_is_about_what_stands_there_no_more(post):
    post.receive(post.make(change=set_cell("MMSE", "F3", 7)))
    post.receive(post.make(correction=1, change=set_cell("MMSE", "F3", 9)))
    with pytest.raises(QueryRefused, match="what stands there now is 702-0002"):
        close_query(post.workspace, "702-0001", "confirmed", "Anna Price")
    with pytest.raises(QueryRefused, match=r"changed since\. The question about that is 702-0002"):
        reopen_query(post.workspace, "702-0001", "Anna Price")
    assert close_query(post.workspace, "702-0002", "withdrawn", "Anna Price").is_new
    assert not close_query(post.workspace, "702-0002", "withdrawn", "Anna Price").is_new
    with pytest.raises(QueryRefused, match=r"closed before \(withdrawn\)"):
        close_query(post.workspace, "702-0002", "confirmed", "Anna Price")
    with pytest.raises(QueryRefused, match='has no query "702-0009"'):
        reopen_query(post.workspace, "702-0009", "Anna Price")
    assert reopen_query(post.workspace, "702-0002", "Anna Price")
    assert not reopen_query(post.workspace, "702-0002", "Anna Price")
    assert list_states(post)["702-0002"] == "with the site"


def test_where_the_file_was_erased_a_settled_value_is_asked_about_again(post):
    """Nobody can tell any more that it is the same."""
    post.receive(post.make(change=set_cell("MMSE", "F3", 7)))
    close_query(post.workspace, "702-0001", "confirmed", "Anna Price")
    [row] = derive_queries(post.workspace.read_events()).to_dict("records")
    assert len(row["fingerprint"]) == 32
    post.workspace.content.erase(row["source_sha256"])
    post.workspace.snapshot = None
    post.receive(post.make(sending_number=2, change=set_cell("MMSE", "F3", 7)))
    assert list_states(post) == {"702-0001": "closed: confirmed as is", "702-0002": "with the site"}


def read_last_receipt(post: Post, return_id: str) -> openpyxl.Workbook:
    [key] = [own.key for own in post.area.list("receipts/") if f"/{return_id}-receipt" in own.key]
    return openpyxl.load_workbook(io.BytesIO(post.area.get(key)))


def list_texts(workbook: openpyxl.Workbook, sheet: str) -> list[str]:
    return [str(cell) for row in workbook[sheet].iter_rows(values_only=True) for cell in row if cell is not None]


def test_a_row_that_a_correction_leaves_out_keeps_its_query_and_the_receipt_says_so(post):
    post.receive(post.make(change=lambda book: [set_cell("MMSE", cell, 7)(book) for cell in ("F3", "F5")]))
    before = {own.key for own in post.area.list("receipts/")}
    post.receive(post.make({"mmse": mmse_there(ANN_THERE, BEN_THERE)}, correction=1))
    assert list_states(post) == {"702-0001": "closed: mended", "702-0002": "with the site"}
    [key] = {own.key for own in post.area.list("receipts/")} - before
    told = list_texts(openpyxl.load_workbook(io.BytesIO(post.area.get(key))), "Read me")
    [line] = [text for text in told if "702-0002" in text]
    assert line.startswith("2.  702-0002: MMSE, row 5 of what you sent first, Orientation to time (mmse01). ")
    assert "Still open: rows that you left out" in told
    assert any("To leave a row out of a correction answers nothing" in text for text in told)
    assert any("Answer what is still open" in text for text in told)
    assert not any("702-0001" in text for text in told)


def identify(identifier: str, *cells: tuple[str, Any]) -> Any:
    """The row of Ben, of another day than the others', under this identifier."""

    def change(workbook: openpyxl.Workbook) -> None:
        for cell, value in (("A4", identifier), ("E4", date(2013, 2, 20)), *cells):
            set_cell("MMSE", cell, value)(workbook)

    return change


@pytest.mark.parametrize("wrong", ["01-702-9999", "ben", ""])
def test_a_row_of_nobody_that_comes_again_under_a_sound_identifier_closes_its_query(post, wrong):
    post.receive(post.make(change=identify(wrong)))
    assert list_states(post) == {"702-0001": "with the site"}
    post.receive(post.make({"mmse": mmse_there(ANN_THERE)}, sending_number=2))
    assert list_states(post) == {"702-0001": "with the site"}, "another row says nothing of it"
    post.receive(post.make(sending_number=3, change=identify(BEN_THERE)))
    assert list_states(post) == {"702-0001": "closed: mended"}


@pytest.mark.parametrize(
    "again",
    [
        identify(BEN_THERE, ("F4", 4)),  # another answer: it may be another row
        identify(BEN_THERE, ("E5", date(2013, 2, 20))),  # two rows say the same
        identify("01-702-8888"),  # nobody again
    ],
)
def test_where_nobody_can_know_whose_row_it_was_the_query_stays(post, again):
    post.receive(post.make(change=identify("01-702-9999")))
    post.receive(post.make(sending_number=2, change=again))
    assert list_states(post)["702-0001"] == "with the site"


def test_where_the_file_is_gone_nobody_can_know_whose_row_it_was(post):
    post.receive(post.make(change=identify("01-702-9999")))
    [row] = derive_queries(post.workspace.read_events()).to_dict("records")
    post.workspace.content.erase(row["source_sha256"])
    post.workspace.snapshot = None
    post.receive(post.make(sending_number=2, change=identify(BEN_THERE)))
    assert list_states(post) == {"702-0001": "with the site"}


def test_receipts_and_lists_name_items_as_people_know_them(post):
    post.receive(post.make(change=lambda book: [set_cell("MMSE", *at)(book) for at in (("F3", 7), ("E4", "soon"))]))
    receipt = read_last_receipt(post, "702-2013-03-01-1")
    rows = [row[5:8] for row in receipt["To mend"].iter_rows(min_row=2, values_only=True)]
    assert rows[0] == ("Screening", "MMSE", "Orientation to time (mmse01)")
    assert rows[1][2] == "column Collected on"
    told = list_texts(receipt, "MMSE - marked")
    assert any(text.startswith("(not repeated): what you typed there might tell who a person is") for text in told)
    listed = derive_query_list(derive_queries(post.workspace.read_events()), DAY, post.workspace.layout)
    assert sorted(listed["about"]) == ["Orientation to time (mmse01)", "column Collected on"]


def test_the_list_is_exported_with_ages_and_no_value(post):
    post.receive(post.make(change=set_cell("MMSE", "F3", 7)))
    listed = derive_query_list(derive_queries(post.workspace.read_events()), date(2013, 3, 12), post.workspace.layout)
    [row] = csv.DictReader(write_query_list(listed).decode().splitlines())
    told = {name: row[name] for name in ("query", "site", "raised_on", "age_days", "age_band", "stage", "participant")}
    assert told == {"query": "702-0001", "site": "702", "raised_on": "2013-03-01", "age_days": "11",
                    "age_band": "8 to 14 days", "stage": "with_site", "participant": ANN_THERE}  # fmt: skip
    assert row["what_is_wrong"] == "This is not one of the answers to this question."


def test_a_query_that_is_put_again_is_owed_anew_from_then():
    asked = raised(1, "2017-09-04")
    closing = QueryClosed(**WHO_LUTON, occurred_on="2017-09-06", query_id="LUT-0001", reason="withdrawn")
    study, before = make_study(), chasing_tell(*chasing_open, *joined(1), asked, closing)
    [closed_row] = before.frame(QueryClosed)["hash"]
    again = Voided(**WHO_LUTON, occurred_on="2017-10-02", voids=closed_row, reason="reopened")
    events = tell_more(before, again)
    [row] = (owed := derive_owed(study, events, date(2017, 10, 3)))[owed["about"] == "query"].to_dict("records")
    assert (row["obligation"], f"{row['had_on']:%Y-%m-%d}") == ("query:LUT-0001:1", "2017-10-02")
    assert row["owed_on"] > pd.Timestamp("2017-10-02")


# Fingerprints ---------------------------------------------------------------------------------------------------------


def test_a_fingerprint_is_of_the_value_and_of_the_file():
    seal, other = derive_seal(b"a file"), derive_seal(b"another")
    assert compute_fingerprint(seal, ["7"]) == compute_fingerprint(derive_seal(b"a file"), ["7"])
    found = {compute_fingerprint(seal, ["7"]), compute_fingerprint(seal, ["9"]), compute_fingerprint(other, ["7"]),
             compute_fingerprint(seal, ["7", ""]), compute_fingerprint(seal, [])}  # fmt: skip
    assert len(found) == 5
    assert all(len(text) == 32 and text.isalpha() for text in found)


def test_a_query_of_an_older_ledger_is_about_no_value():
    old = encode_canonical({"query_id": "701-0001"})
    assert upcast_payload("query_raised", 1, old) == ('{"export_line":0,"fingerprint":"","query_id":"701-0001"}')


# Where a query is -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("days", "band"),
    [(0, 0), (7, 0), (8, 1), (14, 1), (15, 2), (28, 2), (29, 3), (56, 3), (57, 4), (900, 4)],
)
def test_age_counts_calendar_days_and_stops_when_a_query_is_closed(days, band):
    raised = QueryRaised(
        occurred_on=DAY, requested_by="M", site_id="702", query_id="702-0001", rule="date_missing", severity="hard",
        subject="x",
    )  # fmt: skip
    closed = QueryClosed(
        occurred_on=DAY + timedelta(days=days), requested_by="M", site_id="702", query_id="702-0001", reason="withdrawn"
    )
    for events, as_of in ((tell(raised), DAY + timedelta(days=days)), (tell(raised, closed), date(2020, 1, 1))):
        aged = derive_ages(derive_queries(events), as_of)
        assert (aged["age_days"].item(), aged["age_band"].item()) == (days, list(AGE_BANDS.values())[band])


def test_the_site_s_side_and_the_study_s_are_told_apart():
    site = begin()
    site.tell(1, mmse01=7, mmse02=8, mmse03=8)
    site.answer(2, "702-0002", "cannot_say")
    site.close("702-0003")
    found = derive_queries(site.view).set_index("query_id")
    assert found["stage"].tolist() == [WITH_SITE, WITH_STUDY, CLOSED]
    assert found["answer"].tolist() == ["", "cannot_say", ""]
    assert found["status"].tolist() == ["open", "open", "closed"]
    nothing = derive_queries(tell())
    assert nothing.empty
    assert set(nothing.columns) == {"query_id", *found.columns}
