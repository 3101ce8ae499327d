"""Safeguarding: answers of which a named clinician is told on the day on which they are read.

An instrument declares its triggers, a study adds its own or leaves some out, and names who is told and who next.

Judgement calls:

- A danger is a danger, whatever becomes of the answer: a row that is refused, held by the gate, late, overtaken by a
  correction, or of somebody who has left raises its alert like any other; so does a row of a file that is not taken as
  a whole, and one of which nobody can say whose it is. A file that was held unread raises none until it is released.
- One alert for a record and a trigger. Told again, in the same file or another, it raises none. A correction that
  triggers for the first time does; one that no longer triggers does not silence what was raised.
- A cell that cannot be read (two answers, a word) triggers nothing: the site is asked about it, as about any other.
- Where a study lists words, each questionnaire's sheet has a column for remarks on safety, and a remark with one of
  them triggers, whatever else it says: "not abused" as well. The text goes nowhere: not among the answers either.
- No quiet period, pause or cap holds an alert back, and no news. Whom mail does not reach is not waited for: what the
  clinician cannot be told, or what came back, goes to the next role at once.
- Nothing is told twice: each alert is told to each of the two roles once.
- Who took no alert over is passed by after so many working days, and not hours: the first round of the day on which
  they are over escalates, at half past six, so that with one day nobody has longer than to the next working morning.
  Hours would end between two rounds, when nothing runs. Neither the Care Act 2014 nor its guidance sets any.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow.compute

from study.calendar import add_working_days, find_holidays
from study.contacts import Contacts, Gap, Person
from study.deadlines import describe_place
from study.digests import ALERT_ESCALATED, ALERT_LETTER, ALERT_RAISED, Chase, Draft, Section
from study.events import MessageQueued, ObligationChased, SafeguardingAcknowledged, SafeguardingRaised, Source
from study.instruments import AnswerTest, Instrument, Trigger, find_suggestion
from study.pack_layout import REMARKS, Reading
from study.protocol import FIELDWORK_FILE, Study
from study.returns import Decision, Record
from study.state import Events, remembered
from study.validation import check_records, passes_test

pc: Any = pyarrow.compute  # its stubs do not know chunked arrays in every place

ABOUT = "safeguarding"
TOLD, ESCALATED = STEPS = ("told", "escalated")
"""What is done about an alert, each once: the clinician is told; the next role is."""
PARTS = {TOLD: ALERT_RAISED, ESCALATED: ALERT_ESCALATED}
CATEGORY = "alert"

ALERT_COLUMNS = [
    *("alert_id", "site_id", "participant_id", "respondent", "wave", "instrument", "trigger", "return_id"),
    *("source_sheet", "source_row", "raised_on", "told_on", "told_message", "escalated_on", "escalated_message"),
    *("acknowledged_on", "role", "way", "state"),
]
_COLUMNS = ("Alert", "Site", "Identifier", "Wave", "Who answers", "Return", "Sheet and row")
_NOT_REACHED = ("failed", "bounced")


# What triggers --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Triggered:
    """A record whose answers raise an alert: the fields of SafeguardingRaised that are not the file's."""

    subject: str
    trigger: str
    instrument: str
    row: int
    participant_id: str = ""
    respondent: str = ""
    wave: str = ""

    @property
    def key(self) -> str:
        return SafeguardingRaised.derive_key({"subject": self.subject, "trigger": self.trigger})


def list_triggers(study: Study, instrument: Instrument) -> list[Trigger]:
    """The triggers of an instrument that count in a study: its own that are not left out, and the study's."""
    rule = study.fieldwork.safeguarding_rule
    if rule is None:
        return []
    own = [trigger for trigger in instrument.safeguarding if f"{instrument.id}.{trigger.id}" not in rule.leaves_out]
    for entry in study.fieldwork.safeguarding_triggers:
        if entry.instrument == instrument.id:
            test = AnswerTest(items=(entry.item,), equals=entry.equals, at_least=entry.at_least, at_most=entry.at_most)
            own.append(Trigger(id=entry.id, about=entry.about, any_of=(test,)))
    return own


def find_about(study: Study, instruments: Mapping[str, Instrument], instrument_id: str, trigger_id: str) -> str:
    """What a trigger concerns, in words; its id, where the configuration no longer has it."""
    if trigger_id == REMARKS:
        return "A remark of the site's"
    own = list_triggers(study, instruments[instrument_id]) if instrument_id in instruments else []
    return next((trigger.about for trigger in own if trigger.id == trigger_id), trigger_id)


def find_triggered(
    study: Study,
    instruments: Mapping[str, Instrument],
    decision: Decision,
    reading: Reading | None,
    people: Collection[str],
) -> list[Triggered]:
    """Every record of a file whose answers raise an alert, whatever was decided about it; each record and trigger once.

    `reading`: the file as it was read, None where it could not be; `people`: participants whom the site has. Of a file
    that was not taken as a whole nothing is known of its rows but what they say.
    """
    rule = study.fieldwork.safeguarding_rule
    if rule is None:
        return []
    found: dict[str, Triggered] = {}
    for instrument_id, instrument in instruments.items():
        triggers = list_triggers(study, instrument)
        if not (triggers or rule.words):
            continue
        sheet = reading.sheets.get(instrument_id) if reading is not None else None
        frame = sheet.frame if sheet is not None else pd.DataFrame()
        records = {record.row: record for record in decision.records if record.key.instrument == instrument_id}
        raised: list[tuple[str, int]] = []
        if triggers and records:
            first, answers = next(iter(records.values())), np.array([one.responses for one in records.values()])
            raised += _list_true(triggers, first.items, answers, [*records])
        elif triggers and len(frame):
            checked = check_records(instrument, frame).responses
            raised += _list_true(triggers, checked.columns, checked.to_numpy(), frame["row"].tolist())
        if rule.words and len(frame):
            said = frame[REMARKS].map(_make_search(rule.words)).to_numpy(dtype=np.bool_)
            raised += [(REMARKS, row) for row in frame.loc[said, "row"].tolist()]
        for trigger_id, row in raised:
            one = _name(decision, records.get(row), frame, people, instrument_id, row, trigger_id)
            found.setdefault(one.key, one)
    return list(found.values())


def _list_true(
    triggers: Sequence[Trigger], items: Iterable[str], answers: npt.NDArray[np.float64], rows: Sequence[int]
) -> Iterator[tuple[str, int]]:
    """Trigger and row of each record of which it is true. `answers`: records x items, NaN where there is none; `rows`:
    of the sheet, one a record."""
    place = {item: number for number, item in enumerate(items)}
    for trigger in triggers:
        raised = np.zeros(len(answers), dtype=np.bool_)
        for test in trigger.any_of:
            if all(name in place for name in (*test.items, *filter(None, [test.above]))):
                others = answers[:, place[test.above]] if test.above else answers[:, 0]
                passed = [passes_test(test, answers[:, place[item]], others) for item in test.items]
                raised |= np.logical_and.reduce(passed)
        yield from ((trigger.id, rows[number]) for number in np.flatnonzero(raised).tolist())


def _make_search(words: Iterable[str]) -> Callable[[str], bool]:
    """Whether a text has a word that begins as one of these, whatever the capitals."""
    alternatives = "|".join(re.escape(" ".join(word.split())) for word in words)
    pattern = re.compile(rf"(?<!\w)(?:{alternatives})", re.IGNORECASE)
    return lambda text: pattern.search(" ".join(text.split())) is not None


def _name(
    decision: Decision,
    record: Record | None,
    frame: pd.DataFrame,
    people: Collection[str],
    instrument_id: str,
    row: int,
    trigger_id: str,
) -> Triggered:
    """Whose record it is, as far as that is known. Where nobody can say, its place stands for it, which is the same in
    a corrected file."""
    facts, sending = decision.facts, decision.sending
    of_file = sending.return_id if sending else f"file:{facts.site_id}:{facts.sha256[:16]}"
    place = f"{of_file}:{instrument_id}:{row}"
    if record is None:
        told = frame.loc[frame["row"] == row, "participant_id"].iloc[0]
        return Triggered(place, trigger_id, instrument_id, row, told if told in people else "")
    key = record.key
    subject = ":".join(key) if key.participant_id else place
    return Triggered(subject, trigger_id, instrument_id, row, key.participant_id, key.respondent, key.wave)


def derive_alert_ids(site_id: str, n_already: int, n_new: int) -> list[str]:
    """The next numbers of a site's alerts: `luton-S0001`. Count under the ledger's write lock."""
    return [f"{site_id}-S{n:04d}" for n in range(n_already + 1, n_already + n_new + 1)]


def derive_alert_events(
    triggered: Sequence[Triggered], decision: Decision, n_already: int, today: date, requested_by: str
) -> list[SafeguardingRaised]:
    """The alerts that a file raises. `n_already`: how many its site has had, counted under the write lock."""
    site_id, sending = decision.facts.site_id, decision.sending
    ids = derive_alert_ids(site_id, n_already, len(triggered))
    return [
        SafeguardingRaised(
            occurred_on=today, requested_by=requested_by, site_id=site_id, participant_id=one.participant_id,
            source=Source(sha256=decision.facts.sha256, sheet=one.instrument, row=one.row), alert_id=alert_id,
            subject=one.subject, trigger=one.trigger, instrument=one.instrument, respondent=one.respondent,
            wave=one.wave, return_id=sending.return_id if sending else "",
        )
        for one, alert_id in zip(triggered, ids, strict=True)
    ]  # fmt: skip


# What stands ----------------------------------------------------------------------------------------------------------


@remembered
def derive_alerts(study: Study, events: Events, as_of: date) -> pd.DataFrame:
    """Every alert that was raised by the end of a day, oldest first: ALERT_COLUMNS, one row an alert.

    told_on, escalated_on, acknowledged_on: NaT if not yet, with the message ids ("" if none); role and way: of whom
    acknowledged it. state: "untold", "told", "escalated" or "acknowledged".
    """
    view = events.select(as_of=as_of)
    raised = view.frame(SafeguardingRaised).rename(columns={"occurred_on": "raised_on"}).sort_values("seq")
    steps = view.frame_among(ObligationChased, "about", [ABOUT])
    for step in STEPS:
        own = steps[steps["step"] == step].set_index("chase")
        keys = "safeguarding:" + raised["alert_id"].astype("str") + f":{step}"
        raised[f"{step}_on"] = own["occurred_on"].reindex(keys).to_numpy()
        raised[f"{step}_message"] = own["message_id"].reindex(keys).fillna("").to_numpy()
    taken = view.frame(SafeguardingAcknowledged).drop_duplicates("alert_id").set_index("alert_id")
    taken = taken.reindex(raised["alert_id"])
    raised["acknowledged_on"] = taken["occurred_on"].to_numpy()
    for name in ("role", "way"):
        raised[name] = taken[name].fillna("").to_numpy()
    raised["state"] = "untold"
    for state in (*STEPS, "acknowledged"):
        raised.loc[raised[f"{state}_on"].notna(), "state"] = state
    return raised[ALERT_COLUMNS].reset_index(drop=True)


def has_open_alerts(events: Events, as_of: date) -> bool:
    """Whether there is an alert that nobody has acknowledged: a look at two kinds of rows, and no fold."""
    view = events.select(as_of=as_of)
    raised, taken = (view.table(kind)["alert_id"] for kind in (SafeguardingRaised, SafeguardingAcknowledged))
    return bool(len(raised)) and not pc.all(pc.is_in(raised, value_set=taken.combine_chunks())).as_py()


def find_open_alerts(study: Study, events: Events, as_of: date) -> pd.DataFrame:
    """Alerts that nobody has acknowledged."""
    alerts = derive_alerts(study, events, as_of)
    return alerts[alerts["state"] != "acknowledged"]


# Who is told today ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class AlertPlan:
    """What goes out today, one letter for each mailbox. `gaps`: roles in which nobody can be written to; `unheard`:
    alerts of which nobody has heard and nobody can be told."""

    drafts: tuple[Draft, ...] = ()
    gaps: tuple[Gap, ...] = ()
    unheard: tuple[str, ...] = ()


@dataclass
class _Mailbox:
    person: Person
    role: str
    told: dict[str, list[Any]] = field(default_factory=lambda: {step: [] for step in STEPS})


def plan_alerts(
    study: Study,
    contacts: Contacts,
    events: Events,
    states: Mapping[str, str],
    stopped: Collection[str],
    titles: Mapping[str, str],
    as_of: date,
) -> AlertPlan:
    """Which alerts are told to whom on a day. `states`: what became of messages, by message_id; `stopped`: codes of
    addresses from which mail came back; `titles`: of the sheets of a return, by their codes."""
    rule = study.fieldwork.safeguarding_rule
    if rule is None:
        return AlertPlan()
    holidays = find_holidays(study.bank_holidays)
    boxes: dict[str, _Mailbox] = {}
    gaps: dict[Gap, None] = {}
    unheard = []
    alerts: list[Any] = list(find_open_alerts(study, events, as_of).itertuples(index=False))
    for alert in alerts:
        told_on = None if pd.isna(alert.told_on) else alert.told_on.date()
        wanted = {TOLD: rule.clinician} if told_on is None else {}
        is_due = add_working_days(told_on or as_of, rule.escalate_after, holidays) <= as_of
        is_heard = told_on is not None and states.get(alert.told_message) not in _NOT_REACHED
        was_escalated = not pd.isna(alert.escalated_on)
        for step in STEPS:
            if step == ESCALATED and not was_escalated and (is_due or not is_heard):
                wanted[ESCALATED] = rule.escalates_to
            if step not in wanted:
                continue
            found = contacts.seek(wanted[step], alert.site_id, as_of, stopped=stopped)
            if found.person is None:
                gaps[Gap(wanted[step], alert.site_id, "", found.why)] = None
            else:
                box = boxes.setdefault(contacts.find_code(found.person), _Mailbox(found.person, wanted[step]))
                box.told[step].append(alert)
                is_heard = True
        if not is_heard and not (was_escalated and states.get(alert.escalated_message) not in _NOT_REACHED):
            unheard.append(alert.alert_id)
    queued = events.frame_among(MessageQueued, "category", [CATEGORY])
    queued = queued[queued["occurred_on"] == pd.Timestamp(as_of)]
    drafts = [
        _draft(study, titles, box, 1 + int((queued["person_id"] == box.person.person_id).sum()), as_of)
        for _, box in sorted(boxes.items())
    ]
    return AlertPlan(tuple(drafts), tuple(gaps), tuple(unheard))


def _draft(study: Study, titles: Mapping[str, str], box: _Mailbox, number: int, as_of: date) -> Draft:
    person = box.person
    alerts = [(step, alert) for step in STEPS for alert in box.told[step]]
    sites = {alert.site_id for _, alert in alerts}
    return Draft(
        message_id=f"alert-{person.person_id}-{as_of}-{number}",
        category=CATEGORY,
        template=ALERT_LETTER,
        person=person,
        role=box.role,
        place=person.site_id,
        site_id=sites.pop() if len(sites) == 1 else "",
        on=as_of,
        sections=tuple(_make_section(study, titles, step, box.told[step]) for step in STEPS if box.told[step]),
        chases=tuple(
            Chase(f"safeguarding:{alert.alert_id}:{step}", ABOUT, step, alert.site_id, alert.participant_id, as_of)
            for step, alert in alerts
        ),
        participant_ids=tuple(sorted({alert.participant_id for _, alert in alerts} - {""})),
    )


def _make_section(study: Study, titles: Mapping[str, str], step: str, alerts: Sequence[Any]) -> Section:
    """Where to look, and nothing of what stands there: not even what the question was about."""
    waves = {wave.id: wave.label for wave in study.waves}
    rows = tuple(
        (
            alert.alert_id, describe_place(study, alert.site_id), alert.participant_id or "not known",
            waves.get(alert.wave, alert.wave) or "not known", alert.respondent or "not known",
            alert.return_id or "not known",
            f"{titles.get(alert.source_sheet, alert.source_sheet)}, row {alert.source_row}",
        )
        for alert in alerts
    )  # fmt: skip
    return Section(PARTS[step], ABOUT, _COLUMNS, rows)


# What a study states --------------------------------------------------------------------------------------------------


def find_safeguarding_faults(study: Study, instruments: Mapping[str, Instrument]) -> Iterator[str]:
    """What a study's triggers and those of its instruments leave open, a sentence each.

    `instruments`: the study's, as far as their definitions can be read.
    """
    place, rule = f"sites_config/{study.study_id}/{FIELDWORK_FILE}", study.fieldwork.safeguarding_rule
    own = {id_: instruments[id_] for id_ in study.instruments if id_ in instruments}
    declared = [f"{id_}.{trigger.id}" for id_, instrument in own.items() for trigger in instrument.safeguarding]
    if rule is None and (declared or study.fieldwork.safeguarding_triggers):
        named = declared or [trigger.id for trigger in study.fieldwork.safeguarding_triggers]
        yield (
            f"{place}: {', '.join(named)} must be told to a clinician on the day, and the study names none. Add "
            "[[safeguarding]] with clinician, escalate_after and escalates_to."
        )
    for name in rule.leaves_out if rule else ():
        if name not in declared:
            hint = find_suggestion(name, declared) or f" Known: {', '.join(declared) or 'none'}."
            yield f'{place}: safeguarding leaves out "{name}", which no instrument of the study declares.{hint}'
    for id_, asked in own.items():
        if rule is not None and rule.words and asked.find_item(REMARKS):
            yield f"{place}: safeguarding has words, but instruments/{id_} has an item {REMARKS}. Leave out the words."
    for trigger in study.fieldwork.safeguarding_triggers:
        where = f"{place}: safeguarding_triggers.{trigger.id}"
        instrument = own.get(trigger.instrument)
        item = instrument.find_item(trigger.item) if instrument else None
        if instrument is None:
            if trigger.instrument not in study.instruments:
                hint = find_suggestion(trigger.instrument, study.instruments)
                yield f'{where} names instrument "{trigger.instrument}", which is none of the study.{hint}'
        elif f"{instrument.id}.{trigger.id}" in declared:
            yield f"{where}: instruments/{instrument.id} has a trigger of this id. Give it another."
        elif item is None:
            hint = find_suggestion(trigger.item, instrument.item_ids)
            yield f'{where} names item "{trigger.item}", which instruments/{instrument.id} does not have.{hint}'
        else:
            for value in trigger.equals:
                if not item.is_answer(value):
                    yield f"{where}: {value} is no answer of {item.id} ({item.answers_in_words}). Correct it."
