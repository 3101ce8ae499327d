"""What a return says beside all else that is known: of the same people, of other waves, of the rest of its sheet.

`study/validation.py` looks at one record by itself; here records are held against consent and leaving, against the
dates that the protocol gives them, against what the same people answered before, and against each other. Two rules are
hard: nobody answers after death, and answers that a study's own rule between questionnaires calls impossible. All
others are soft: dates, forms and unlikely answers can be right, and only the site can look at the paper.

A site is asked what it can answer, and once. What concerns all questionnaires of a person at a wave is asked at the
first of them in the file; what concerns a sheet is one question about it, not one for each row. How people answered
(straight lines, little variation) is for the psychometrics and never a reason to leave anybody out: 11111 is an answer.

Thresholds are data: those of an instrument in its definition (`other_versions`, `largest_change`), those of a study in
`[[return_checks]]` of fieldwork.toml, which also names the rules that it does not ask about.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import date
from itertools import compress, pairwise
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import pandas as pd

from study.calendar import parse_period
from study.instruments import AnswerTest, Instrument, find_suggestion
from study.logs import Person
from study.pack_layout import ABOUT, DISPOSITION, ReadSheet
from study.protocol import ANCHORS, FIELDWORK_FILE, Study
from study.queries import RETURN_RULES, Severity
from study.scoring import derive_scores
from study.validation import REASON_CODES, passes_test

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]

BASELINE_MISSING = "follow_up_without_baseline"
_DAYS_A_MONTH, _DAYS_A_YEAR = 30.4375, 365.25
_NOT_ANSWERED = REASON_CODES["not_answered"]
_REPEATED_DIGITS = (77.0, 88.0, 99.0, 777.0, 888.0, 999.0)
"""What paper forms and other programs put for "no answer", where a definition has codes of its own."""
_LEAVES_ALL = ("questionnaires", "study", "data")
_LEAST_MOVED = 3  # people whose rows hold somebody else's earlier answers, before rows are thought to have slipped
_MOST_COMPARED = 1_000  # people whose answers changed much, compared each with each


class ToldRecord(Protocol):
    """One record as a file tells it; parts of its key that were given wrongly are ""."""

    key: Any
    row: int
    form: str
    collected_on: date | None
    items: npt.NDArray[np.object_]
    responses: Floats
    reasons: npt.NDArray[np.int8]


class Finding(NamedTuple):
    """One thing to ask. `record`: the place of the record in the file, None where `sheet` as a whole, or the sheet
    About, is asked about, or a `row` of a log; `column`: where in its row; `item`: where it concerns one answer."""

    rule: str
    severity: Severity
    record: int | None
    column: str
    expected: str = ""
    item: str = ""
    sheet: str = ""
    row: int = 0
    participant_id: str = ""


class Beside(NamedTuple):
    """What is known beside a file, of people of the site. `records`: accepted or held ones by key. `answers`: those of
    the keys that `find_earlier` gives. `people`: with what the file itself tells of them. `sent_forms`: the form
    that went out, by participant_id, respondent and wave. `posted_on`: what the file says of itself; `today`: the study
    day."""

    records: Mapping[Any, Any]
    answers: Mapping[Any, ToldRecord]
    people: Mapping[str, Person]
    sent_forms: Mapping[tuple[str, str, str], str]
    posted_on: date
    today: date


def find_return_faults(
    study: Study,
    instruments: Mapping[str, Instrument],
    told: Sequence[ToldRecord],
    sheets: Mapping[str, ReadSheet],
    beside: Beside,
) -> list[Finding]:
    """Everything that the records of a file show beside what else is known, in the order of rules.

    `told`: every row of every questionnaire, those of one instrument together and in the order of its sheet.
    """
    died = _find_died_before(study, sheets, beside)
    leaves_out = study.fieldwork.return_checks_rule.leaves_out
    if not told:
        return [finding for finding in died if finding.rule not in leaves_out]
    case = _Case(study, instruments, told, sheets, beside)
    found = [
        *died,
        *_find_without_baseline(case),
        *_find_after_leaving(case),
        *_find_unscheduled(case),
        *_find_other_forms(case),
        *_find_misdated(case),
        *_find_recall_overlaps(case),
        *_find_of_sheets(case),
        *_find_changed(case),
        *_find_swapped(case),
        *_find_disagreeing(case),
    ]
    return [finding for finding in found if finding.rule not in leaves_out]


def find_earlier(
    study: Study, instruments: Mapping[str, Instrument], named: Iterable[Any], records: Mapping[Any, Any]
) -> set[Any]:
    """The standing records with which those that a file names (keys) are compared: of the same participant, respondent
    and instrument, the one of another wave that was collected last."""
    leaves_out = study.fieldwork.return_checks_rule.leaves_out
    compared = {name for name, instrument in instruments.items() if _is_compared(instrument, leaves_out)}
    wanted: dict[tuple[str, str, str], set[str]] = {}
    for key in named:
        if key.instrument in compared:
            wanted.setdefault((key.participant_id, key.respondent, key.instrument), set()).add(key.wave)
    last: dict[tuple[str, str, str], Any] = {}
    for key, stands in records.items():
        own = (key.participant_id, key.respondent, key.instrument)
        if own in wanted and key.wave not in wanted[own]:
            before = last.get(own)
            if before is None or records[before].collected_on < stands.collected_on:
                last[own] = key
    return set(last.values())


def _is_compared(instrument: Instrument, leaves_out: Collection[str]) -> bool:
    """Whether a study asks anything about this instrument's answers at two waves."""
    tells_who = any(item.provides for item in instrument.items)
    has_largest = any(scale.largest_change is not None for scale in instrument.scales)
    rules = {"identity_swapped"} | ({"sex_changed", "birth_year_changed"} if tells_who else set())
    return bool((rules | ({"implausible_change"} if has_largest else set())) - set(leaves_out))


def find_settled(asked: Iterable[tuple[str, str, str]], study: Study, told: Sequence[ToldRecord]) -> set[Any]:
    """The questions about a missing baseline (subject, rule, item) that these records answer: it has come now."""
    baselines = {wave.id for wave in study.waves if wave.role == "baseline"}
    came = {record.key.participant_id for record in told if record.key.wave in baselines} - {""}
    return {key for key in asked if key[1] == BASELINE_MISSING and key[0].split(":")[0] in came}


class _Row(NamedTuple):
    """A record of the file whose key and date are known; `record`: its place in the file."""

    record: int
    participant_id: str
    respondent: str
    wave: str
    instrument: str
    form: str
    on: date


class _Case:
    """The records of a file, and all that stands of the same people.

    `known`: those whose key and date are known, and whose day has come. `days`: the first day of each participant,
    respondent and wave, in the file or standing; `answered`: of each participant, the waves of which anything is there,
    refused rows among them.
    """

    def __init__(
        self,
        study: Study,
        instruments: Mapping[str, Instrument],
        told: Sequence[ToldRecord],
        sheets: Mapping[str, ReadSheet],
        beside: Beside,
    ) -> None:
        self.study, self.instruments, self.told, self.sheets = study, instruments, told, sheets
        self.beside, self.rules = beside, study.fieldwork.return_checks_rule
        self.known = [
            _Row(n, key.participant_id, key.respondent, key.wave, key.instrument, record.form, record.collected_on)
            for n, (key, record) in enumerate((record.key, record) for record in told)
            if record.collected_on is not None and record.collected_on <= beside.today and all(key)
        ]
        self.answered: dict[str, set[str]] = {record.key.participant_id: set() for record in told}
        for record in told:
            self.answered[record.key.participant_id].add(record.key.wave)
        own = {row[1:5] for row in self.known}
        self.days: dict[tuple[str, str, str], date] = {}
        self.standing = [
            (key, record.collected_on)
            for key, record in beside.records.items()
            if key.participant_id in self.answered and key not in own
        ]
        every = [(row[1:4], row.on) for row in self.known] + [(key[:3], on) for key, on in self.standing]
        for (participant_id, respondent, wave), on in every:
            self.answered[participant_id].add(wave)
            place = (participant_id, respondent, wave)
            self.days[place] = min(on, self.days.get(place, on))
        self.of_instrument: dict[str, list[int]] = {}
        for n, record in enumerate(told):
            self.of_instrument.setdefault(record.key.instrument, []).append(n)
        self._pairs: dict[str, _Pairs | None] = {}

    def pair(self, instrument: Instrument) -> _Pairs | None:
        if instrument.id not in self._pairs:
            self._pairs[instrument.id] = _pair(self, instrument)
        return self._pairs[instrument.id]


def _find_firsts(rows: Iterable[_Row], *names: str) -> list[_Row]:
    """The first record in the file of each of these."""
    firsts: dict[tuple[object, ...], _Row] = {}
    for row in rows:
        firsts.setdefault(tuple(getattr(row, name) for name in names), row)
    return list(firsts.values())


_OF_WAVE = ("participant_id", "respondent", "wave")


def _format(day: date) -> str:
    return f"{day:%d %b %Y}"


# People and waves ---------------------------------------------------------------------------------------------------


def _find_without_baseline(case: _Case) -> Iterator[Finding]:
    """Follow-ups of people of whom no baseline is there, by whichever respondent; a refused one in the file counts, for
    it has its own question."""
    roles = {wave.id: wave.role for wave in case.study.waves}
    has_baseline = {name for name, waves in case.answered.items() if any(roles.get(w) == "baseline" for w in waves)}
    is_without = (r for r in case.known if roles.get(r.wave) == "follow_up" and r.participant_id not in has_baseline)
    for row in _find_firsts(is_without, "participant_id", "wave"):
        yield Finding(
            BASELINE_MISSING, "soft", row.record, "wave", "a baseline questionnaire of this person, sent before"
        )


def _find_after_leaving(case: _Case) -> Iterator[Finding]:
    """Answers from after death, each; from after withdrawing, once a wave. The incident that follows on these is that
    of `study.consent`."""
    died: dict[str, date] = {}
    withdrew: dict[str, date] = {}
    for participant_id in case.answered:
        person = case.beside.people.get(participant_id)
        if person is not None and person.left:
            died_on, withdrew_on = _find_last_days(case.study, person)
            died |= {participant_id: died_on} if died_on else {}
            withdrew |= {participant_id: withdrew_on} if withdrew_on else {}
    for rule, days, names in (
        ("answered_after_death", died, ("record",)),
        ("answered_after_leaving", withdrew, _OF_WAVE),
    ):
        late = (row for row in case.known if row.participant_id in days and row.on > days[row.participant_id])
        for row in _find_firsts(late, *names) if days else ():
            expected = f"a date up to {_format(days[row.participant_id])}"
            yield Finding(rule, RETURN_RULES[rule], row.record, "collected_on", expected)


def _find_last_days(study: Study, person: Person) -> tuple[date | None, date | None]:
    """The day of death, and that of withdrawing from questionnaires; None for neither. Who completed, was taken out or
    left for a reason that withdraws nothing may have come back."""
    kinds = {reason.id: reason.kind for reason in study.disposition_reasons}
    rule = study.fieldwork.consent_rule
    withdraws_nothing = rule.not_withdrawals if rule else ()
    died, withdrew = [], []
    for scope, day in person.left.items():
        reason = person.left_for.get(scope, "")
        if kinds.get(reason) == "death":
            died.append(day)
        elif kinds.get(reason) == "loss" and scope in _LEAVES_ALL and reason not in withdraws_nothing:
            withdrew.append(day)
    return min(died, default=None), min(withdrew, default=None)


def _find_died_before(study: Study, sheets: Mapping[str, ReadSheet], beside: Beside) -> list[Finding]:
    """Deaths that are told now, of people of whom later answers stand already: one of the dates is wrong, or a name."""
    deaths = {reason.id for reason in study.disposition_reasons if reason.kind == "death"}
    rows: list[Any] = sheets[DISPOSITION].frame.to_dict("records") if DISPOSITION in sheets else []
    told = {r["participant_id"]: r for r in rows if r["reason"] in deaths and isinstance(r["left_on"], date)}
    last: dict[str, date] = {}
    for key, record in beside.records.items() if told else ():
        if key.participant_id in told:
            last[key.participant_id] = max(record.collected_on, last.get(key.participant_id, record.collected_on))
    return [
        Finding(
            "died_before_answers", "soft", None, "left_on", f"a date from {_format(day)} on, when the last was dated",
            sheet=DISPOSITION, row=told[name]["row"], participant_id=name,
        )
        for name, day in last.items()
        if told[name]["left_on"] < day and name in beside.people
    ]  # fmt: skip


def _find_unscheduled(case: _Case) -> Iterator[Finding]:
    """Questionnaires that the protocol has for nobody at that wave; not in a study that takes unscheduled occasions."""
    if case.study.accepts_unscheduled:
        return
    planned = {(entry.instrument, entry.respondent, wave) for entry in case.study.schedule for wave in entry.waves}
    for row in case.known:
        if (row.instrument, row.respondent, row.wave) not in planned:
            waves = [w.id for w in case.study.waves if (row.instrument, row.respondent, w.id) in planned]
            expected = f"{', '.join(waves)} for this questionnaire and respondent" if waves else "another respondent"
            yield Finding("not_scheduled", "soft", row.record, "wave", expected)


def _find_other_forms(case: _Case) -> Iterator[Finding]:
    """Another form than the pack held, where the questionnaire has that form: easy read told as standard, or the
    other way round."""
    sent = case.beside.sent_forms
    is_other = (
        row
        for row in case.known
        if (form := sent.get(row[1:4], row.form)) != row.form and form in case.instruments[row.instrument].forms
    )
    for row in _find_firsts(is_other, *_OF_WAVE) if sent else ():
        form = sent[row[1:4]].replace("_", " ")
        yield Finding("form_differs", "soft", row.record, "form", f"the {form} form, which was in the pack")


# Dates --------------------------------------------------------------------------------------------------------------


def _find_misdated(case: _Case) -> Iterator[Finding]:
    """Dates that do not fit the order of waves, the window of the wave, or the day of posting. What lies in the future,
    or before consent, has a question of its own, and a date is asked about once."""
    asked = set()
    waves = {wave.id: place for place, wave in enumerate(case.study.waves)}
    of_person: dict[tuple[str, str], date] = {}
    for (participant_id, _, wave_id), on in case.days.items():
        of_person[participant_id, wave_id] = min(on, of_person.get((participant_id, wave_id), on))
    for row in _find_firsts(case.known, *_OF_WAVE):
        place = waves.get(row.wave)
        if place is None:
            continue
        before = [case.days.get((*row[1:3], wave.id)) for wave in case.study.waves[:place]]
        earlier = max((day for day in before if day is not None), default=None)
        if earlier is not None and row.on < earlier:
            expected = f"a date from {_format(earlier)} on, when an earlier wave was answered"
            yield Finding("waves_out_of_order", "soft", row.record, "collected_on", expected)
            asked.add(row[1:4])
            continue
        wave = case.study.waves[place]
        person = case.beside.people.get(row.participant_id, Person())
        is_unconsented = person.consented_on is not None and row.on < person.consented_on
        anchor_on = (
            getattr(person, f"{wave.anchor}_on")
            if wave.anchor in ANCHORS
            else of_person.get((row.participant_id, wave.anchor))
        )
        if anchor_on is None or is_unconsented:
            continue
        dates = case.study.compute_window_dates(wave, anchor_on)
        if not dates.opens_on <= row.on <= dates.late_until:
            expected = f"a date from {_format(dates.opens_on)} to {_format(dates.late_until)}"
            yield Finding("outside_window", "soft", row.record, "collected_on", expected)
            asked.add(row[1:4])
    sound = [row.on for row in case.known if row.on <= case.beside.today and row[1:4] not in asked]
    if sound and max(sound) > case.beside.posted_on:
        expected = f"{_format(max(sound))} or later, the last date in it"
        yield Finding("posted_before_collected", "soft", None, "posted_on", expected, sheet=ABOUT)


def _find_recall_overlaps(case: _Case) -> Iterator[Finding]:
    """Questionnaires that ask about the same weeks twice: the one before is nearer than the recall period, less the
    overlap that a study lets pass. What was used in these weeks would be counted twice."""
    share = 1 - case.rules.recall_overlap_pct / 100
    for instrument_id, instrument in case.instruments.items():
        period = _count_days(instrument.recall) if instrument_id in case.of_instrument else 0
        told: dict[tuple[str, str], list[tuple[date, int]]] = {}
        for row in case.known if period else ():
            if row.instrument == instrument_id:
                told.setdefault((row.participant_id, row.respondent), []).append((row.on, row.record))
        for key, on in case.standing if told else ():
            if key.instrument == instrument_id and (own := told.get((key.participant_id, key.respondent))):
                own.append((on, -1))
        for own in told.values():
            for (before, _), (on, record) in pairwise(sorted(own)):
                if record >= 0 and (on - before).days < period * share:
                    expected = f"a date about {instrument.recall} after the questionnaire before it"
                    yield Finding("recall_overlaps", "soft", record, "collected_on", expected)


def _count_days(recall: str) -> float:
    """The length of a recall period ("6 months", "2 weeks") in days; 0 where it says something else, or nothing."""
    try:
        period = parse_period(recall)
    except ValueError:
        return 0
    return period.months * _DAYS_A_MONTH + period.days


# Sheets as wholes ---------------------------------------------------------------------------------------------------


def _find_of_sheets(case: _Case) -> Iterator[Finding]:
    for instrument_id, places in case.of_instrument.items():
        instrument, records = case.instruments[instrument_id], [case.told[n] for n in places]
        items = list(records[0].items)
        answers = np.array([record.responses for record in records])
        is_blank = np.array([record.reasons for record in records]) == _NOT_ANSWERED
        if is_blank.any():
            cells = case.sheets[instrument_id].frame[items].to_numpy(dtype=object)
            is_blank &= pd.isna(cells) | (cells == "")
            yield from _find_gaps(case, instrument, places, items, answers, is_blank)
        yield from _find_other_versions(instrument, items, answers)
        yield from _find_sentinels(case, instrument, items, answers)
        yield from _find_alike(case, instrument, items, answers)


def _find_gaps(
    case: _Case, instrument: Instrument, places: list[int], items: list[str], answers: Floats, is_blank: Flags
) -> Iterator[Finding]:
    """Questions that most rows leave blank, without a code that says why: a page, or a column, may have been left out.
    And a question that an earlier answer leads to and that is blank, the first of each row."""
    place = {item: n for n, item in enumerate(items)}
    names = [item for item in instrument.item_ids if item in place]
    often = is_blank.mean(axis=0) * 100 >= case.rules.blank_pct
    blank = [item for item in names if often[place[item]]] if len(answers) >= case.rules.blank_rows else []
    if blank:
        listed = (
            f"answers to {', '.join(blank[:5])}{' and others' if len(blank) > 5 else ''}, or the code of the reason"
        )
        yield Finding("often_blank", "soft", None, blank[0], listed, sheet=instrument.id)
    is_asked = np.zeros_like(is_blank)
    for item in instrument.items:
        if item.asked_if is not None and item.id in place and item.asked_if.item in place and item.id not in blank:
            gate = answers[:, place[item.asked_if.item]]
            is_asked[:, place[item.id]] = np.isin(gate, item.asked_if.equals)
    missed = (is_blank & is_asked)[:, [place[item] for item in names]]
    for row in np.flatnonzero(missed.any(axis=1)):
        name = names[int(missed[row].argmax())]
        yield Finding("asked_and_blank", "soft", places[row], name, "an answer, or a code", name)


def _find_other_versions(instrument: Instrument, items: list[str], answers: Floats) -> Iterator[Finding]:
    """A sheet in whose many rows no answer is above the highest level of a shorter version of the questionnaire."""
    for version in instrument.other_versions:
        if not set(version.items) <= set(items):
            continue
        own = answers[:, [items.index(item) for item in version.items]]
        own = own[~np.isnan(own).any(axis=1)]
        if len(own) >= version.rows and (own <= version.highest).all():
            expected = f"{instrument.title} on paper; no answer is above {version.highest}, as on {version.title}"
            yield Finding("other_version", "soft", None, version.items[0], expected, sheet=instrument.id)


def _find_sentinels(case: _Case, instrument: Instrument, items: list[str], answers: Floats) -> Iterator[Finding]:
    """A number such as 99 that stands in many rows of a question and is an answer there by its range alone."""
    for item in instrument.items:
        if item.type != "number" or item.id not in items:
            continue
        own = answers[:, items.index(item.id)]
        own = own[~np.isnan(own)]
        for code in _REPEATED_DIGITS:
            n = int((own == code).sum())
            if n >= case.rules.sentinel_rows and n * 100 >= case.rules.sentinel_pct * len(own):
                expected = (
                    f"answers to {item.label} ({item.id}); {code:g} stands in many rows, as a code for no answer would"
                )
                yield Finding("sentinel_suspected", "soft", None, item.id, expected, sheet=instrument.id)
                break


def _find_alike(case: _Case, instrument: Instrument, items: list[str], answers: Floats) -> Iterator[Finding]:
    """A sheet in which most people gave one and the same answer to every question, by questionnaires that are long
    enough, and have enough levels, for that to be odd: a value may have been copied along the rows."""
    asked = [
        items.index(item.id)
        for item in instrument.items
        if item.id in items and len(item.levels) >= 4 and item.asked_if is None
    ]
    if len(asked) < case.rules.alike_items or len(answers) < case.rules.alike_rows:
        return
    own = answers[:, asked]
    is_alike = (own == own[:, :1]).all(axis=1)
    if is_alike.mean() * 100 >= case.rules.alike_pct:
        column = items[asked[0]]
        expected = "answers as they stand on paper; most rows have one answer throughout"
        yield Finding("answered_alike", "soft", None, column, expected, sheet=instrument.id)


# What the same people answered before -------------------------------------------------------------------------------


class _Pairs(NamedTuple):
    """Records of one instrument in the file (places) with the one before each: answers by the instrument's items, and
    the years between."""

    records: list[int]
    now: Floats
    before: Floats
    years: Floats


def _pair(case: _Case, instrument: Instrument) -> _Pairs | None:
    """The record before is of the same participant and respondent and of another wave, in the file or standing."""
    Telling = tuple[date, int, str, ToldRecord]
    told: dict[tuple[str, str], list[Telling]] = {}
    for row in case.known:
        if row.instrument == instrument.id:
            own = told.setdefault((row.participant_id, row.respondent), [])
            own.append((row.on, row.record, row.wave, case.told[row.record]))
    for key, record in case.beside.answers.items():
        own = told.get((key.participant_id, key.respondent), []) if key.instrument == instrument.id else []
        if own and record.collected_on is not None and key.wave not in [wave for _, _, wave, _ in own]:
            own.append((record.collected_on, -1, key.wave, record))
    found = [
        (now, before)
        for own in told.values()
        for before, now in pairwise(sorted(own, key=lambda telling: telling[:2]))
        if now[1] >= 0 and before[2] != now[2]
    ]
    if not found:
        return None
    place = {item: n for n, item in enumerate(instrument.item_ids)}

    def spread(records: Sequence[ToldRecord]) -> Floats:
        answers = np.full((len(records), len(place)), np.nan)
        for own, record in zip(answers, records, strict=True):
            own[[place[item] for item in record.items if item in place]] = [
                answer for item, answer in zip(record.items, record.responses, strict=True) if item in place
            ]
        return answers

    return _Pairs(
        records=[now[1] for now, _ in found],
        now=spread([now[3] for now, _ in found]),
        before=spread([before[3] for _, before in found]),
        years=np.array([(now[0] - before[0]).days / _DAYS_A_YEAR for now, before in found]),
    )


def _find_changed(case: _Case) -> Iterator[Finding]:
    """A sex or a year of birth that changed, and a scale that moved further than its definition thinks likely.

    Ages are told in whole years, so that they may grow by a year less or more than the time between.
    """
    for instrument_id in case.of_instrument:
        instrument = case.instruments[instrument_id]
        scales = [scale for scale in instrument.scales if scale.largest_change is not None]
        provides = [(place, item) for place, item in enumerate(instrument.items) if item.provides]
        pairs = case.pair(instrument) if scales or provides else None
        if pairs is None:
            continue
        records = np.array(pairs.records)
        for place, item in provides:
            change = pairs.now[:, place] - pairs.before[:, place]
            is_odd, rule = ~np.isnan(change) & (change != 0), "sex_changed"
            if item.provides == "age":
                is_odd, rule = np.abs(change - pairs.years) > 1.01, "birth_year_changed"
            for record in records[is_odd].tolist():
                yield Finding(rule, "soft", record, item.id, "what was told at the wave before", item.id)
        if not scales:
            continue
        # Without value sets, which need not be looked up for this.
        bare = instrument.model_copy(update={"scales": tuple(s for s in instrument.scales if not s.value_set)})
        names = list(instrument.item_ids)
        now, before = (derive_scores(bare, pd.DataFrame(a, columns=names)) for a in (pairs.now, pairs.before))
        for scale in scales:
            is_own = (now["scale"] == scale.id).to_numpy()
            change = np.abs(now["score"].to_numpy()[is_own] - before["score"].to_numpy()[is_own])
            item_id = scale.items[0] if scale.items[0] in names else ""
            expected = f"a change of {scale.label} by at most {scale.largest_change:g} since the wave before"
            for record in records[change > scale.largest_change].tolist():
                yield Finding("implausible_change", "soft", record, item_id or "participant_id", expected, item_id)


def _find_swapped(case: _Case) -> Iterator[Finding]:
    """Two people of one return each of whom answers as the other did before, and not as they did themselves; and three
    or more of whom each answers as somebody else among them did, as where a column slipped by a row.

    Distances are means over all items that both have, as shares of the items' ranges; at least `swap_items` of them.
    """
    parts = [(case.instruments[name], case.pair(case.instruments[name])) for name in case.of_instrument]
    width = sum(len(instrument.items) for instrument, pairs in parts if pairs)
    people: dict[tuple[str, ...], int] = {}
    first: dict[int, int] = {}
    for _, pairs in parts:
        for record in pairs.records if pairs else ():
            key = case.told[record].key
            n = people.setdefault(key[:3], len(people))
            first[n] = min(record, first.get(n, record))
    if len(people) < 2:
        return
    now, before = np.full((2, len(people), width), np.nan)
    start = 0
    for instrument, pairs in parts:
        if pairs is not None:
            at = [people[case.told[record].key[:3]] for record in pairs.records]
            lowest = np.array([item.lowest for item in instrument.items])
            span = np.array([max(item.highest - item.lowest, 1.0) for item in instrument.items])
            columns = slice(start, start + len(span))
            now[at, columns], before[at, columns] = (pairs.now - lowest) / span, (pairs.before - lowest) / span
            start += len(span)
    apart, alike, n_items = case.rules.swap_apart_pct / 100, case.rules.swap_alike_pct / 100, case.rules.swap_items
    candidates = np.flatnonzero(_compute_distances(now, before, n_items) >= apart)[:_MOST_COMPARED].tolist()
    names = list(people)
    fits: dict[int, int] = {}  # whose earlier answers somebody's are now
    for n in candidates:
        others = [m for m in candidates if names[m][1:] == names[n][1:] and names[m][0] != names[n][0]]
        fitting = np.array(others, np.intp)[_compute_distances(now[n], before[others], n_items) <= alike].tolist()
        # The one that it is exchanged with, rather than any other that is alike.
        back = [m for m in fitting if _compute_distances(now[m], before[n], n_items) <= alike]
        fits |= {n: (back or fitting)[0]} if fitting else {}
    swapped = sorted({(first[n], first[m]) for n, m in fits.items() if fits.get(m) == n and first[n] < first[m]})
    for record, its in swapped:
        where = f"row {case.told[its].row}"
        if case.told[its].key.instrument != case.told[record].key.instrument:
            where += f" of the sheet {case.instruments[case.told[its].key.instrument].sheet_title}"
        expected = f"the person's own answers; those of {where} and of this row look exchanged"
        yield Finding("identity_swapped", "soft", record, "participant_id", expected)
    moved = sorted(first[n] for n, m in fits.items() if fits.get(m) != n)
    if len(moved) >= _LEAST_MOVED and len({m for n, m in fits.items() if fits.get(m) != n}) >= _LEAST_MOVED:
        expected = f"the person's own answers; those of {len(moved)} people, from this row on, look moved to others"
        yield Finding("identity_swapped", "soft", moved[0], "participant_id", expected)


def _compute_distances(a: Floats, b: Floats, n_items: int) -> Floats:
    """Mean distances over items that both have, row by row; NaN where these are too few."""
    differences = np.abs(a - b)
    is_there = ~np.isnan(differences)
    n = is_there.sum(axis=-1)
    total = np.where(is_there, differences, 0).sum(axis=-1)
    distances: Floats = np.where(n >= n_items, total / np.maximum(n, 1), np.nan)
    return distances


# Across questionnaires ----------------------------------------------------------------------------------------------


def _find_disagreeing(case: _Case) -> Iterator[Finding]:
    """Answers of one person at one wave to different questionnaires that a rule of the study calls odd together."""
    if not case.study.fieldwork.across:
        return
    by_wave: dict[tuple[str, ...], dict[str, int]] = {}
    for row in case.known:
        by_wave.setdefault(row[1:4], {}).setdefault(row.instrument, row.record)
    for rule in case.study.fieldwork.across:
        needed = {test.instrument for test in rule.never_together}
        own = [records for records in by_wave.values() if needed <= records.keys()]
        broken = np.ones(len(own), dtype=np.bool_)
        for test in rule.never_together if own else ():
            told = AnswerTest(items=test.items, equals=test.equals, at_least=test.at_least, at_most=test.at_most)
            for item in test.items:
                answers = np.array([_find_answer(case.told[records[test.instrument]], item) for records in own])
                broken &= passes_test(told, answers, answers)
        last = rule.never_together[-1]
        for records in compress(own, broken):
            record, item = records[last.instrument], last.items[-1]
            yield Finding("scales_disagree", rule.severity, record, item, rule.says, item)


def _find_answer(record: ToldRecord, item: str) -> float:
    found = np.flatnonzero(record.items == item)
    return float(record.responses[found[0]]) if len(found) else np.nan


def find_across_faults(study: Study, instruments: Mapping[str, Instrument]) -> Iterator[str]:
    """What the rules between questionnaires name that the study's instruments do not have."""
    place = f"sites_config/{study.study_id}/{FIELDWORK_FILE}"
    for rule in study.fieldwork.across:
        for test in rule.never_together:
            instrument = instruments.get(test.instrument)
            if instrument is None:
                hint = find_suggestion(test.instrument, instruments)
                yield f'{place}: across {rule.id}: "{test.instrument}" is no instrument of the study.{hint}'
                continue
            for item in test.items:
                if item not in instrument.item_ids:
                    hint = find_suggestion(item, instrument.item_ids)
                    yield f'{place}: across {rule.id}: {instrument.id} has no item "{item}".{hint}'
