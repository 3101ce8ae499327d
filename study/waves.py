"""Waves: which returns should exist, when each is wanted, and where each stands on a day.

Dates are computed afresh each day from the event that a wave counts from; none is kept. A baseline that turns out to
have been answered on another day moves the follow-up, and `derive_moves` says so. What was sent stays sent: which pack
it was in and what that told are facts of the ledger, and never change a date here.

Judgement calls:

- A wave that counts from an earlier one counts from the first day on which anything of that wave was answered, by
  whichever respondent, as accepted now. A later sheet of the same wave moves nothing.
- Something is expected of a person once they agreed, consented, were allocated, answered or were sent anything; at a
  wave that counts from screening, of everybody screened who has not said no.
- Who is expected to answer follows the consent in force. Where that changes hands (a consultee takes over), a wave that
  the one has answered is not owed by the other. A blank route is the person's own.
- A return holds what is defined. Instruments that are only planned are named, and never waited for: what asks for
  nothing else never counts as returned.
- What went out asks for what was in the pack, whatever the schedule has become; and it stays a row when by consent or
  protocol it would not be expected any more (it is then stopped, unless it is in).
- A wave that an amendment added is expected of people whose date for it nobody knows yet.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from datetime import date, timedelta
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute

from study.calendar import Period, add_months, add_period, find_day_bounds, format_day
from study.consent import derive_consents
from study.events import (
    ApproachAnswered,
    ParticipantAllocated,
    ParticipantApproached,
    ParticipantScreened,
    ReturnAccepted,
    ReturnReleased,
)
from study.holds import Numbers, encode_texts, find_holds, find_places
from study.participation import QUESTIONNAIRES, TREATMENT, derive_stops
from study.protocol import ANCHORS, Study, Wave, WindowDates
from study.state import Events, remembered

pc: Any = pyarrow.compute  # its stubs do not know chunked arrays in every place

PLANNED, HELD, RELEASED, RETURNED, PARTIAL, MISSED, STOPPED = STATUSES = (
    *("planned", "held", "released", "returned", "partial", "missed", "stopped"),
)
TIMINGS = ("early", "in_window", "late", "out_of_window")
NOT_EXPECTED = "not_expected"
"""In the place of a reason for leaving: sent, and by consent or protocol expected no longer."""

_DATES = tuple(field.name for field in fields(WindowDates) if field.name != "is_truncated")
_COLUMNS = [
    *("participant_id", "site_id", "body_id", "cohort", "arm", "wave", "respondent", "form", "instruments"),
    *("anchor_on", *_DATES, "is_truncated", "release_from", "status", "timing", "holds"),
    *("pack_id", "released_on", "due_told_on", "n_copies", "returned_on", "n_instruments", "n_returned"),
    *("stopped_on", "stopped_by", "is_expected"),
]
_OF_CONSENT = ["participant_id", "site_id", "consented_on", "signed_on", "scopes", "route", "form"]
_NO_DAY = np.iinfo(np.int64).min  # the number of NaT
_US = "datetime64[us]"

Flags = np.ndarray[Any, np.dtype[np.bool_]]
Days = np.ndarray[Any, np.dtype[np.datetime64]]


class Slot(NamedTuple):
    """One respondent at one wave."""

    wave: Wave
    respondent: str


@remembered
def derive_expected_returns(study: Study, events: Events, as_of: date) -> pd.DataFrame:
    """The returns that should exist, and where each stands at the end of a day: one row per participant, wave and
    respondent, in the order of identifiers, of the protocol's waves and of its respondents.

    Columns: participant_id, site_id, body_id ('' unknown), cohort ('' unknown), arm ('' not allocated), wave,
    respondent, form (the one that the person wants, where the questionnaires have it), instruments (joined with ";":
    what is scheduled, or what the last pack asked for); anchor_on (the day that the wave counts from), opens_on,
    optimum_from, optimum_to, due_on, closes_on, late_until, is_truncated, as `Study.compute_window_dates` gives them
    (NaT without an anchor); release_from (`opens_on` less the time that a pack may be early; NaT where the product does
    not send the wave out); status, timing, holds (codes of `study.holds.HOLDS`, ""  where it may go out on this day);
    pack_id (of the last pack that it was in), released_on (of the first), due_told_on (what the last one told),
    n_copies; returned_on (the last day on which what is in was answered), n_instruments (that a return can hold),
    n_returned; stopped_on, stopped_by (a reason for leaving, or NOT_EXPECTED), is_expected.

    Status, the first that holds: `returned` (all that a return can hold is in), `stopped` (the person left the
    questionnaires before the window was over, or it went out and is expected no longer), `partial` (some of it is in),
    `missed` (`late_until`, or data collection, is over), `released`, `held` (its day has come, or it waits for the
    consent that it counts from, and something forbids to send it), `planned`. So what may be sent is planned, without
    a hold. `timing` judges returned_on by the window: early, in_window, late (after `closes_on`), out_of_window (after
    `late_until`); '' where nothing is in, or there is no window.
    """
    people = _find_people(study, events, as_of)
    slots = _list_slots(study, people)
    windows = _Windows(study, people)
    rows = _find_rows(study, people, slots, windows)
    person, slot = rows.person, rows.slot
    of_wave = np.array([people.wave_ids.index(one.wave.id) for one in slots], np.int64)[slot]
    frame: dict[str, Any] = {
        "participant_id": people.ids.take(person),
        **{name: people.take_text(name, person) for name in ("site_id", "body_id", "cohort", "arm")},
        "wave": _take(people.wave_ids, of_wave),
        "respondent": _take([one.respondent for one in slots], slot),
    }
    frame["anchor_on"] = windows.anchors[of_wave, person]
    frame |= {name: windows.dates[name][of_wave, person] for name in (*_DATES, "release_from")}
    frame["is_truncated"] = windows.is_truncated[of_wave, person]
    frame |= _find_sent(people, rows)
    frame |= _find_answered(study, people, slots, rows)
    frame |= _find_stopped(study, events, people, person, as_of)
    frame |= {"is_expected": rows.is_expected, "signed_on": people.days["signed"][person]}
    expected = _build_frame(frame)
    expected["holds"] = find_holds(study, events, expected, as_of)
    _add_status(study, expected, as_of)
    return expected[_COLUMNS]


def find_form(forms: Iterable[str], wanted: str) -> str:
    """The version of a questionnaire that somebody is given: the wanted one, else the standard one, else what there
    is ("" if there is none). `wanted` may be ""."""
    forms = list(forms)
    return next((form for form in (wanted, "standard", *forms) if form in forms), "")


# What is known of people --------------------------------------------------------------------------------------------


@dataclass
class _People:
    """Those of whom something may be expected; each array has one place per id unless it says otherwise.

    texts: codes and words by column. days: by anchor. answered: id x triple of (wave, respondent, instrument), the day
    as a number, _NO_DAY where it is not in. sent: what went out, one place per ReturnReleased.
    """

    ids: pa.StringArray
    wave_ids: list[str]
    texts: dict[str, tuple[Numbers, list[str]]]
    days: dict[str, Days]
    has_agreed: Flags
    may_be_screened: Flags
    triples: list[tuple[str, str, str]]
    answered: Numbers
    sent: dict[str, Any]

    def take_text(self, column: str, person: Numbers) -> pa.StringArray:
        codes, words = self.texts[column]
        return _take(words, codes[person])

    def find_answered_days(self, wave_id: str) -> Days:
        """The first day on which anything of a wave was answered, one per id."""
        own = [place for place, triple in enumerate(self.triples) if triple[0] == wave_id]
        if not own:
            return np.full(len(self.ids), np.datetime64("NaT"), "datetime64[D]")
        days = self.answered[:, own]
        first: Numbers = np.where(days == _NO_DAY, np.iinfo(np.int64).max, days).min(axis=1)
        return np.where(first == np.iinfo(np.int64).max, _NO_DAY, first).view("datetime64[D]")


def _find_people(study: Study, events: Events, as_of: date) -> _People:
    view = events.select(as_of=as_of)
    # Of a site or a cohort that is told more than once, the first in this order counts.
    told = {
        "screened": view.table(ParticipantScreened),
        "approached": view.table(ParticipantApproached),
        "consented": pa.Table.from_pandas(derive_consents(study, events, as_of)[_OF_CONSENT], preserve_index=False),
        "answers": view.table(ApproachAnswered),
        "allocated": view.table(ParticipantAllocated),
        "returns": view.table(ReturnAccepted),
        "sent": view.table(ReturnReleased),
    }
    agreed = told["answers"].filter(pc.equal(told["answers"]["outcome"], "agreed"))["participant_id"]
    ids_of = {name: table["participant_id"] for name, table in told.items()}
    wanted = [agreed, *(ids_of[name] for name in ("consented", "allocated", "returns", "sent"))]
    if any(wave.anchor == "screened" for wave in study.waves):
        wanted.append(ids_of["screened"])
    every = pc.unique(pa.chunked_array([pc.unique(values).cast(pa.string()) for values in wanted], pa.string()))
    ids = every.take(pc.array_sort_indices(every))
    at = {name: find_places(ids, values) for name, values in ids_of.items()}
    n = len(ids)

    def collect(column: str, *names: str) -> tuple[Numbers, list[str]]:
        return _collect(n, [(at[name], told[name][column]) for name in names])

    outcomes = collect("outcome", "answers")
    has_outcome = {word: outcomes[0] == code for code, word in enumerate(outcomes[1])}
    has_said_no = np.zeros(n, bool)
    for word in ("declined", "not_eligible", "no_answer"):
        has_said_no |= has_outcome.get(word, False)
    has_agreed = has_outcome.get("agreed", np.zeros(n, bool))
    for name in ("consented", "allocated", "returns", "sent"):
        has_agreed[at[name]] = True
    days = {
        name: _scatter_days(n, at[table], told[table][column])
        for name, table, column in (
            ("screened", "screened", "occurred_on"),
            ("consented", "consented", "consented_on"),
            ("signed", "consented", "signed_on"),
            ("allocated", "allocated", "occurred_on"),
        )
    }
    stops = derive_stops(study, events, as_of)
    stops = stops[stops["stops"] == TREATMENT].sort_values("from_on").drop_duplicates("participant_id")
    days["left_treatment"] = _scatter_days(n, find_places(ids, stops["participant_id"]), stops["from_on"])
    triples, answered = _find_answers(study, told["returns"], at["returns"], n)
    return _People(
        ids=ids,
        wave_ids=[wave.id for wave in study.waves],
        texts={
            "site_id": collect("site_id", *told),
            "cohort": collect("cohort", "screened", "approached"),
            "body_id": collect("body_id", "screened", "approached"),
            "arm": collect("arm", "allocated"),
            **{name: collect(name, "consented") for name in ("scopes", "route", "form")},
        },
        days=days,
        has_agreed=has_agreed,
        may_be_screened=~np.isnat(days["screened"]) & ~has_said_no,
        triples=triples,
        answered=answered,
        sent={**_find_sent_rows(told["sent"]), "person": at["sent"]},
    )


def _list_words(values: Any) -> tuple[Numbers, list[str]]:
    codes, words = encode_texts(values)
    return codes, [str(word) for word in words.to_pylist()]


def _collect(n: int, told: list[tuple[Numbers, Any]]) -> tuple[Numbers, list[str]]:
    """One text per id, "" where nobody told one; of several the first of `told` that is not blank counts."""
    words: dict[str, int] = {"": 0}
    codes = np.zeros(n, np.int64)
    for places, values in reversed(told):
        own, texts = _list_words(values)
        numbers = np.array([words.setdefault(text, len(words)) for text in texts], np.int64)
        if len(own):
            is_told = (places >= 0) & (numbers[own] > 0)
            codes[places[is_told]] = numbers[own][is_told]
    return codes, list(words)


def _to_days(values: Any) -> Days:
    days: Days = values.to_numpy().astype("datetime64[D]")
    return days


def _scatter_days(n: int, places: Numbers, values: Any) -> Days:
    days = np.full(n, np.datetime64("NaT"), "datetime64[D]")
    days[places[places >= 0]] = _to_days(values)[places >= 0]
    return days


def _find_answers(
    study: Study, returns: pa.Table, person: Numbers, n: int
) -> tuple[list[tuple[str, str, str]], Numbers]:
    """The triples of wave, respondent and instrument that are scheduled or occur, and when each was answered, by the
    version that counts."""
    triples = {(wave, entry.respondent, entry.instrument): None for entry in study.schedule for wave in entry.waves}
    parts = [_list_words(returns[name]) for name in ("wave", "respondent", "instrument")]
    sizes = [len(words) for _, words in parts]
    key = (parts[0][0] * sizes[1] + parts[1][0]) * sizes[2] + parts[2][0]
    column = np.full(max(int(np.prod(sizes)), 1), -1, np.int64)
    planned = {wave.id for wave in study.waves}
    for number in np.unique(key).tolist():
        pair, instrument = divmod(number, sizes[2])
        wave, respondent = divmod(pair, sizes[1])
        triple = (parts[0][1][wave], parts[1][1][respondent], parts[2][1][instrument])
        if triple[0] in planned:
            triples.setdefault(triple)
            column[number] = list(triples).index(triple)
    answered = np.full((n, len(triples)), _NO_DAY, np.int64)
    at = column[key]
    order = np.argsort(returns["version"].to_numpy(), kind="stable")
    order = order[at[order] >= 0]
    answered[person[order], at[order]] = _to_days(returns["occurred_on"]).astype(np.int64)[order]
    return list(triples), answered


def _find_sent_rows(sent: pa.Table) -> dict[str, Any]:
    found: dict[str, Any] = {name: _list_words(sent[name]) for name in ("wave", "respondent", "form", "pack_id")}
    found["instruments"] = _list_words(pc.binary_join(sent["instruments"], ";"))
    found["released_on"], found["due_on"] = _to_days(sent["occurred_on"]), _to_days(sent["due_on"])
    found["copy"] = sent["copy_number"].to_numpy()
    return found


# Which rows there are -----------------------------------------------------------------------------------------------


def _list_slots(study: Study, people: _People) -> list[Slot]:
    """Every respondent at every wave that is scheduled, and those that something was sent to."""
    waves, respondents = people.sent["wave"], people.sent["respondent"]
    pairs = set(zip(waves[0].tolist(), respondents[0].tolist(), strict=True))
    wanted = {(waves[1][wave], respondents[1][respondent]) for wave, respondent in pairs}
    wanted |= {(wave, entry.respondent) for entry in study.schedule for wave in entry.waves}
    names = [*study.respondents, *sorted({name for _, name in wanted} - set(study.respondents))]
    return [Slot(wave, name) for wave in study.waves for name in names if (wave.id, name) in wanted]


@dataclass
class _Rows:
    """Which person at which slot, in order; the places of the first and last sending of each (-1: none), how many;
    whether each is expected by consent and protocol as they are."""

    person: Numbers
    slot: Numbers
    first_sent: Numbers
    last_sent: Numbers
    n_copies: Numbers
    is_expected: Flags


def _find_rows(study: Study, people: _People, slots: list[Slot], windows: _Windows) -> _Rows:
    n, n_slots = len(people.ids), len(slots)
    places = {(slot.wave.id, slot.respondent): place for place, slot in enumerate(slots)}
    first, last, copies = _find_sendings(people, places, n * n_slots)
    cohorts, names = people.texts["cohort"]
    expected = np.zeros((n, n_slots), bool)
    answered = np.zeros((n, n_slots), bool)
    fits = {name: _fits_rule(study, people, name) for name in {slot.respondent for slot in slots}}
    for place, slot in enumerate(slots):
        scheduled = np.array([bool(_list_scheduled(study, slot, cohort)) for cohort in names], bool)[cohorts]
        is_asked = people.has_agreed | people.may_be_screened if slot.wave.anchor == "screened" else people.has_agreed
        applies = windows.applies[people.wave_ids.index(slot.wave.id)]
        expected[:, place] = scheduled & is_asked & fits[slot.respondent] & applies
        own = [at for at, triple in enumerate(people.triples) if triple[:2] == (slot.wave.id, slot.respondent)]
        answered[:, place] = scheduled & (people.answered[:, own] != _NO_DAY).any(axis=1)
    for place, slot in enumerate(slots):
        others = [at for at, one in enumerate(slots) if one.wave == slot.wave and _are_alternatives(study, slot, one)]
        if others:
            expected[:, place] &= answered[:, place] | ~answered[:, others].any(axis=1)
    grid = expected | answered | (copies > 0).reshape(n, n_slots)
    person, slot_at = (part.astype(np.int64) for part in np.nonzero(grid))
    at = person * n_slots + slot_at
    return _Rows(person, slot_at, first[at], last[at], copies[at], expected[person, slot_at])


def _find_sendings(
    people: _People, places: Mapping[tuple[str, str], int], size: int
) -> tuple[Numbers, Numbers, Numbers]:
    waves, respondents = people.sent["wave"], people.sent["respondent"]
    known = np.array(
        [[places.get((wave, name), -1) for name in respondents[1]] for wave in waves[1]], np.int64
    ).reshape(len(waves[1]), len(respondents[1]))
    n_slots = max(len(places), 1)
    slot = known[waves[0], respondents[0]] if known.size else np.zeros(0, np.int64)
    order = np.argsort(people.sent["copy"], kind="stable")
    order = order[slot[order] >= 0]
    at = people.sent["person"][order] * n_slots + slot[order]
    first, last = np.full(size, -1, np.int64), np.full(size, -1, np.int64)
    last[at] = order
    first[at[::-1]] = order[::-1]
    return first, last, np.bincount(at, minlength=size).astype(np.int64)


def _list_scheduled(study: Study, slot: Slot, cohort: str) -> list[Any]:
    """What is asked of a respondent at a wave; of somebody whose cohort is unknown, what everybody is asked."""
    entries = study.find_scheduled(slot.wave.id, cohort or None)
    return [entry for entry in entries if entry.respondent == slot.respondent and (cohort or not entry.cohorts)]


def _fits_rule(study: Study, people: _People, respondent: str) -> Flags:
    """Of whom this respondent is expected, by their consent."""
    rule = study.fieldwork.find_respondent_rule(respondent)
    if rule is None:
        return np.ones(len(people.ids), bool)
    (routes, route_words), (scopes, scope_words) = people.texts["route"], people.texts["scopes"]
    by_route = np.array([not rule.routes or (route or "self") in rule.routes for route in route_words], bool)
    by_scope = np.array([set(rule.scopes) <= set(text.split(";")) for text in scope_words], bool)
    fits: Flags = by_route[routes] & by_scope[scopes]
    return fits


def _are_alternatives(study: Study, slot: Slot, other: Slot) -> bool:
    """Whether one of two respondents answers in the other's place: by consents that exclude each other."""
    rules = [study.fieldwork.find_respondent_rule(one.respondent) for one in (slot, other)]
    routes = [set(rule.routes) if rule else set() for rule in rules]
    return slot.respondent != other.respondent and all(routes) and not routes[0] & routes[1]


class _Windows:
    """The dates of every wave for every person, as arrays wave x person."""

    def __init__(self, study: Study, people: _People) -> None:
        size = (len(study.waves), len(people.ids))
        self.anchors = np.full(size, np.datetime64("NaT"), _US)
        self.dates = {name: np.full(size, np.datetime64("NaT"), _US) for name in (*_DATES, "release_from")}
        self.is_truncated = np.zeros(size, bool)
        self.applies = np.ones(size, bool)
        joined_on = np.where(np.isnat(people.days["consented"]), people.days["screened"], people.days["consented"])
        for place, wave in enumerate(study.waves):
            anchors = people.days[wave.anchor] if wave.anchor in ANCHORS else people.find_answered_days(wave.anchor)
            self._add(study, place, wave, anchors)
            if wave.applies_from is not None:
                counted = joined_on if wave.applies_to == "joining" else self.dates["opens_on"][place]
                self.applies[place] = np.isnat(counted) | (counted >= np.datetime64(wave.applies_from))
            if wave.ends_with_treatment:  # a day that is not known is later than every other
                self.applies[place] &= ~(people.days["left_treatment"] <= self.dates["due_on"][place])

    def _add(self, study: Study, place: int, wave: Wave, anchors: Days) -> None:
        """The rules of the calendar are asked once for each different day."""
        days, which = np.unique(anchors, return_inverse=True)
        if len(days) and np.isnat(days[-1]):
            days = days[:-1]  # NaT sorts last
        table = [compute_dates(study, wave, day) for day in days.astype(object).tolist()]
        self.anchors[place] = anchors
        for name in (*_DATES, "release_from"):
            values = [row[name] for row in table]
            self.dates[name][place] = np.array([*values, None], _US)[np.minimum(which, len(values))]
        self.is_truncated[place] = np.array([*(row["is_truncated"] for row in table), False])[
            np.minimum(which, len(table))
        ]


def compute_dates(study: Study, wave: Wave, anchor_on: date) -> dict[str, Any]:
    """The dates of a wave from the day that it counts from: those of `Study.compute_window_dates`, and release_from
    (None where the product does not send the wave out)."""
    window = study.compute_window_dates(wave, anchor_on)
    release = study.fieldwork.find_release(wave.id)
    release_from = None
    if release is not None:
        release_from = add_period(window.opens_on, Period(-release.lead.months, -release.lead.days))
    dates = {name: getattr(window, name) for name in (*_DATES, "is_truncated")}
    return {**dates, "release_from": release_from}


# What is known of each row ------------------------------------------------------------------------------------------


def _take(words: list[str], codes: Numbers) -> pa.StringArray:
    return pa.array(words or [""], pa.string()).take(codes)


def _find_sent(people: _People, rows: _Rows) -> dict[str, Any]:
    sent = people.sent
    packs, names = sent["pack_id"]
    last = np.append(packs, len(names))[rows.last_sent]
    return {
        "pack_id": _take([*names, ""], last),
        "released_on": np.append(sent["released_on"], np.datetime64("NaT"))[rows.first_sent],
        "due_told_on": np.append(sent["due_on"], np.datetime64("NaT"))[rows.last_sent],
        "n_copies": rows.n_copies,
    }


def _find_answered(study: Study, people: _People, slots: list[Slot], rows: _Rows) -> dict[str, Any]:
    """form, instruments, n_instruments, n_returned and returned_on of each row."""
    known = [*study.instruments, *(planned.id for planned in study.planned_instruments)]
    known += sorted({triple[2] for triple in people.triples} - set(known))
    (cohorts, cohort_words), (forms, form_words) = people.texts["cohort"], people.texts["form"]
    # What each row is asked is one of few lists, by slot, cohort and wanted form, or by the pack that it was in.
    asked: dict[tuple[str, ...], int] = {}
    given: dict[str, int] = {}
    n_cohorts, n_forms = len(cohort_words), len(form_words)
    list_at = np.zeros(len(slots) * n_cohorts, np.int64)
    form_at = np.zeros((len(slots) * n_cohorts, n_forms), np.int64)
    for place, slot in enumerate(slots):
        for at, cohort in enumerate(cohort_words):
            entries = _list_scheduled(study, slot, cohort)
            names = {entry.instrument for entry in entries}
            key = tuple(name for name in known if name in names)
            list_at[place * n_cohorts + at] = asked.setdefault(key, len(asked))
            offered = {form for entry in entries for form in entry.forms}
            ordered = [form for form in study.forms if form in offered]
            for number, wanted in enumerate(form_words):
                form_at[place * n_cohorts + at, number] = given.setdefault(find_form(ordered, wanted), len(given))
    cell = rows.slot * n_cohorts + cohorts[rows.person]
    lists, form = list_at[cell], form_at[cell, forms[rows.person]]
    is_sent = rows.last_sent >= 0
    packed, packs = people.sent["instruments"]
    numbers = np.array([asked.setdefault(_order(text, known), len(asked)) for text in packs], np.int64)
    in_form, form_names = people.sent["form"]
    form_numbers = np.array([given.setdefault(name, len(given)) for name in form_names], np.int64)
    if is_sent.any():
        lists[is_sent] = numbers[packed[rows.last_sent[is_sent]]]
        form[is_sent] = form_numbers[in_form[rows.last_sent[is_sent]]]
    defined = set(study.instruments)
    is_asked = np.array([[name in key and name in defined for name in known] for key in asked], bool)
    is_asked = is_asked.reshape(len(asked), len(known))
    places = {triple: place for place, triple in enumerate(people.triples)}
    columns = np.array(
        [[places.get((slot.wave.id, slot.respondent, name), -1) for name in known] for slot in slots], np.int64
    ).reshape(len(slots), len(known))
    days = np.full((len(rows.person), len(known)), _NO_DAY, np.int64)
    for at in range(len(known)):
        column = columns[rows.slot, at]
        days[:, at] = np.where(is_asked[lists, at] & (column >= 0), people.answered[rows.person, column], _NO_DAY)
    return {
        "form": _take(list(given), form),
        "instruments": _take([";".join(key) for key in asked], lists),
        "n_instruments": is_asked.sum(axis=1)[lists],
        "n_returned": (days != _NO_DAY).sum(axis=1),
        "returned_on": days.max(axis=1, initial=_NO_DAY).view("datetime64[D]"),
    }


def _order(text: str, known: list[str]) -> tuple[str, ...]:
    names = [name for name in text.split(";") if name]
    return (*(name for name in known if name in names), *(name for name in names if name not in known))


def _find_stopped(study: Study, events: Events, people: _People, person: Numbers, as_of: date) -> dict[str, Any]:
    stops = derive_stops(study, events, as_of)
    stops = stops.loc[stops["stops"] == QUESTIONNAIRES].sort_values("from_on", kind="stable")
    stops = stops.drop_duplicates("participant_id")
    places = find_places(people.ids, stops["participant_id"])
    days = _scatter_days(len(people.ids), places, stops["from_on"])
    reasons = _collect(len(people.ids), [(places, stops["reason"])])
    return {"stopped_on": days[person], "stopped_by": _take(reasons[1], reasons[0][person])}


def _build_frame(columns: Mapping[str, Any]) -> pd.DataFrame:
    arrays: dict[str, Any] = {
        name: values.astype(_US) if isinstance(values, np.ndarray) and values.dtype.kind == "M" else values
        for name, values in columns.items()
    }
    frame: pd.DataFrame = pa.table(arrays).to_pandas()
    return frame


def _add_status(study: Study, expected: pd.DataFrame, as_of: date) -> None:
    today = np.datetime64(as_of)
    ends_on = np.datetime64(study.data_collection_ends_on, "us")
    day = {name: expected[name].to_numpy() for name in (*_DATES, "anchor_on", "returned_on", "stopped_on")}
    is_released = ~np.isnat(expected["released_on"].to_numpy())
    n_instruments, n_returned = expected["n_instruments"].to_numpy(), expected["n_returned"].to_numpy()
    is_truncated = expected["is_truncated"].to_numpy(bool)
    over_on = np.where(is_truncated, np.datetime64("NaT"), np.minimum(day["late_until"], ends_on))
    is_in = (n_instruments > 0) & (n_returned == n_instruments)
    is_unwanted = ~expected["is_expected"].to_numpy(bool)
    was_stopped = ~np.isnat(day["stopped_on"]) & ~(day["stopped_on"] > over_on)
    is_over = (today > over_on) | ((today > ends_on) & ~is_truncated)
    has_come = today >= expected["release_from"].to_numpy()
    waits = np.isnat(day["anchor_on"]) & expected["wave"].isin(
        [wave.id for wave in study.waves if wave.anchor == "consented" and study.fieldwork.find_release(wave.id)]
    ).to_numpy(bool)
    is_held = (has_come | waits) & ~is_truncated & (expected["holds"] != "").to_numpy(bool)
    conditions = [
        (is_in, RETURNED),
        (was_stopped, STOPPED),
        (is_unwanted & (is_released | (n_returned > 0)), STOPPED),
        (n_returned > 0, PARTIAL),
        (is_over, MISSED),
        (is_released, RELEASED),
        (is_held, HELD),
    ]
    status = np.full(len(expected), STATUSES.index(PLANNED))
    for is_it, name in reversed(conditions):
        status[is_it] = STATUSES.index(name)
    expected["status"] = _take(list(STATUSES), status).to_pandas()
    is_unwanted &= ~was_stopped & (status == STATUSES.index(STOPPED))
    expected["stopped_on"] = expected["stopped_on"].mask(is_unwanted, _find_last_day(expected))
    expected["stopped_by"] = expected["stopped_by"].mask(is_unwanted, NOT_EXPECTED)
    timings = [
        (day["returned_on"] < day["opens_on"], "early"),
        (day["returned_on"] > day["late_until"], "out_of_window"),
        (day["returned_on"] > day["closes_on"], "late"),
        (day["returned_on"] >= day["opens_on"], "in_window"),
    ]
    timing = np.zeros(len(expected), np.int64)
    for is_it, name in reversed(timings):
        timing[is_it] = TIMINGS.index(name) + 1
    expected["timing"] = _take(["", *TIMINGS], timing).to_pandas()


def _find_last_day(expected: pd.DataFrame) -> pd.Series[Any]:
    """The last day on which something that ended an expectation is known to have happened: the sending, the answers,
    or the signing of the consent in force."""
    return expected[["released_on", "returned_on", "signed_on"]].max(axis="columns")


# What moved, and what can still be reached --------------------------------------------------------------------------

_MOVED = ("opens_on", "due_on", "closes_on", "late_until", "release_from")
_ROW = ["participant_id", "wave", "respondent"]


def derive_moves(
    study: Study, events: Events, as_of: date, since: date, study_then: Study | None = None
) -> pd.DataFrame:
    """Which dates moved: what is known on `as_of` against what was known at the end of `since`, in London.

    `study_then`: the study by the configuration in force then, where that was another. One row per expected return and
    date that had one then: participant_id, site_id, wave, respondent, date_column (opens_on, due_on, closes_on,
    late_until or release_from), moved_from, moved_to (NaT: it has none any more), due_told_on (what was sent says so
    still; NaT: nothing was), why. A first date is no move.
    """
    last_moment = find_day_bounds(since)[1] - timedelta(microseconds=1)
    then = derive_expected_returns(study_then or study, events.select(since, last_moment), since)
    now = derive_expected_returns(study, events, as_of)
    told = ["site_id", "anchor_on", *_MOVED]
    both = then[[*_ROW, *told]].merge(
        now[[*_ROW, *told, "due_told_on"]], how="left", on=_ROW, suffixes=("_then", ""), indicator="found_in"
    )
    parts = []
    for column in _MOVED:
        before, after = both[f"{column}_then"], both[column]
        rows = both.loc[before.notna() & ~(before == after)]
        rows = rows.assign(date_column=column, moved_from=rows[f"{column}_then"], moved_to=rows[column])
        parts.append(rows)
    moves = pd.concat(parts, ignore_index=True)
    moves["site_id"] = moves["site_id_then"]
    cause = moves.groupby(["wave", "anchor_on_then", "anchor_on", "found_in"], dropna=False, observed=True).ngroup()
    causes = moves.assign(cause=cause).drop_duplicates("cause").sort_values("cause")
    words = [_explain(study, row) for row in causes.itertuples(index=False)]
    moves["why"] = np.array(words, object)[cause]
    order = {wave.id: place for place, wave in enumerate(study.waves)}
    moves["order"] = moves["wave"].map(order).fillna(len(order))
    moves = moves.sort_values(["participant_id", "order", "respondent"], ignore_index=True, kind="stable")
    columns = ["participant_id", "site_id", "wave", "respondent", "date_column", "moved_from", "moved_to"]
    return moves[[*columns, "due_told_on", "why"]].astype({"date_column": "str", "why": "str"})


def _explain(study: Study, row: Any) -> str:
    """Why a date moved: the event that it counts from did, or else the protocol."""
    if row.found_in == "left_only":
        return "It is expected no longer."
    wave = study.find_wave(row.wave)
    anchor = wave.anchor if wave else ""
    earlier = study.find_wave(anchor)
    fact = f"{earlier.label} answered" if earlier else anchor.capitalize()
    if pd.isna(row.anchor_on):
        return f"{fact} on {format_day(row.anchor_on_then)}: that is not on record any more."
    if row.anchor_on != row.anchor_on_then:
        return f"{fact} on {format_day(row.anchor_on)}, not {format_day(row.anchor_on_then)}."
    return "The protocol changed."


def derive_reachable_follow_up(study: Study, events: Events, as_of: date) -> pd.DataFrame:
    """How long each participant can still be followed up before data collection ends: one row per participant of whom
    anything is expected.

    Columns: participant_id, site_id, cohort, arm, counts_from (the day on which the baseline was answered), is_assumed
    (it has not been: as if it were answered on `as_of`), ends_on (of data collection), n_months (whole months from
    the one to the other; 0 if none), reachable (the last follow-up that has been answered, or still can be; '' none),
    out_of_reach (those that would open after data collection ends, joined with ";").

    A follow-up that counts from something which has not happened is taken to count from `as_of`, and one that counts
    from an earlier follow-up from that one's day. Who has stopped, or missed a wave, reaches only what is in.
    """
    expected = derive_expected_returns(study, events, as_of)
    people = expected.drop_duplicates("participant_id").reset_index(drop=True)
    people = people[["participant_id", "site_id", "cohort", "arm"]]
    places = encode_texts(people["participant_id"]).words
    answered_on, days = _find_wave_days(study, expected, places, as_of)
    baseline_on = answered_on[study.baseline.id]
    people["is_assumed"] = np.isnat(baseline_on)
    counts_from = np.where(np.isnat(baseline_on), np.datetime64(as_of), baseline_on)
    people["counts_from"] = counts_from.astype(_US)
    people["ends_on"] = pd.Series(pd.Timestamp(study.data_collection_ends_on), people.index, dtype=_US)
    by_day = {day: _count_months(day, study.data_collection_ends_on) for day in np.unique(counts_from).astype(object)}
    people["n_months"] = [by_day[day] for day in counts_from.astype(object)]
    reachable, beyond = np.full(len(people), "", object), np.full(len(people), "", object)
    for wave in study.waves:
        if wave.role != "follow_up":
            continue
        own = expected.loc[expected["wave"] == wave.id]
        at = find_places(places, own["participant_id"])
        is_it, is_open = np.zeros(len(people), bool), np.zeros(len(people), bool)
        is_it[at] = True
        is_open[at[own["status"].isin((PLANNED, HELD, RELEASED, PARTIAL, RETURNED)).to_numpy(bool)]] = True
        is_truncated = _find_truncated(study, wave, days[wave.id]) & is_it
        is_in = ~np.isnat(answered_on[wave.id])
        reachable[is_it & (is_in | (is_open & ~is_truncated))] = wave.id
        is_beyond = is_truncated & ~is_in
        beyond[is_beyond] = [f"{text};{wave.id}" if text else wave.id for text in beyond[is_beyond]]
    people["reachable"], people["out_of_reach"] = pd.Series(reachable, dtype="str"), pd.Series(beyond, dtype="str")
    columns = ["participant_id", "site_id", "cohort", "arm", "counts_from", "is_assumed", "ends_on", "n_months"]
    return people[[*columns, "reachable", "out_of_reach"]]


def _find_wave_days(
    study: Study, expected: pd.DataFrame, places: pa.StringArray, as_of: date
) -> tuple[dict[str, Days], dict[str, Days]]:
    """By wave, one place per participant: when it was answered (NaT: it is not in), and the day that it counts from,
    assumed where it is not known."""
    answered_on: dict[str, Days] = {}
    days: dict[str, Days] = {}
    for wave in study.waves:
        own = expected.loc[expected["wave"] == wave.id]
        at = find_places(places, own["participant_id"])
        answered, anchors = (np.full(len(places), np.datetime64("NaT"), "datetime64[D]") for _ in range(2))
        answered[at] = own["returned_on"].to_numpy()
        np.fmin.at(answered, at, own["returned_on"].to_numpy().astype("datetime64[D]"))
        anchors[at] = own["anchor_on"].to_numpy()
        assumed: Days = np.full(len(places), np.datetime64(as_of))
        before = study.find_wave(wave.anchor)
        if before is not None and before.role == "follow_up":
            assumed = _add_offset(days[before.id], before.offset)
        answered_on[wave.id], days[wave.id] = answered, np.where(np.isnat(anchors), assumed, anchors)
    return answered_on, days


def _add_offset(days: Days, offset: Period) -> Days:
    different, which = np.unique(days, return_inverse=True)
    return np.array([add_period(day, offset) for day in different.astype(object)], "datetime64[D]")[which]


def _find_truncated(study: Study, wave: Wave, days: Days) -> Flags:
    different, which = np.unique(days, return_inverse=True)
    return np.array([study.compute_window_dates(wave, day).is_truncated for day in different.astype(object)], bool)[
        which
    ]


def _count_months(first: date, last: date) -> int:
    """Whole months from one day to another, 0 if there are none."""
    n_months = (last.year - first.year) * 12 + last.month - first.month
    return max(n_months - (add_months(first, n_months) > last), 0)
