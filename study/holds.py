"""Why a questionnaire may not go out: every gate, with plain words, what to do about it and by whom.

A hold is looked up in the ledger each time, and once more at the moment of sending; no switch turns it off. A named
role may lift one hold on one wave for one participant where a committee can accept what is wrong. Nobody lifts a death,
a withdrawal, a missing consent or a missing approval: those end when the thing itself changes.

Judgement calls:

- A consent that ran out, or that a parent had no say in any more, is a missing consent and can't be lifted.
- Answers collected before consent are the sponsor's matter (an incident); they hold no later questionnaire.
- A window is closed for sending from the day after `closes_on`: what went out then could only come back late, which
  a role may want. After `late_until`, and after data collection, nobody lifts it.
- Who declined and signed later has come round; who declined on the day of signing or after it is left alone.
- Whoever has answered a part is not sent the whole again; the rest is asked for by a query or a chaser.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute

from study.consent import FAULTS, derive_consents
from study.events import ApproachAnswered, HoldLifted
from study.gate import Answer, Gate, open_gate
from study.incidents import find_activity
from study.instruments import find_suggestion
from study.participation import QUESTIONNAIRES, derive_stops
from study.protocol import Study
from study.state import Events

pc: Any = pyarrow.compute  # its stubs do not know chunked arrays in every place

Numbers = np.ndarray[Any, np.dtype[np.int64]]

SITE, MANAGER, COORDINATOR, NOBODY = "site_researcher", "project_manager", "fieldwork_coordinator", ""


@dataclass(frozen=True)
class Hold:
    """A reason why nothing goes out: in words, what to do, the role that does it ('': there is nothing to do), and
    whether a named role may lift it."""

    words: str
    to_do: str
    by: str
    is_liftable: bool = False


def _of_consent(code: str, by: str, is_liftable: bool) -> Hold:
    return Hold(FAULTS[code].words, FAULTS[code].to_do, by, is_liftable)


HOLDS: dict[str, Hold] = {
    "no_consent": Hold(
        "No consent is recorded", "The site sends in its consent log, or has the consent form signed", SITE
    ),
    "scope_missing": Hold(
        "The consent does not cover questionnaires",
        "Check the consent log against the form; nothing is sent to somebody who did not agree to it",
        SITE,
    ),
    "reconsent_overdue": _of_consent("reconsent_overdue", SITE, is_liftable=False),
    "parent_after_sixteen": _of_consent("parent_after_sixteen", SITE, is_liftable=False),
    "sixteen_unknown": _of_consent("sixteen_unknown", SITE, is_liftable=True),
    "capacity_not_assessed": _of_consent("capacity_not_assessed", SITE, is_liftable=True),
    "superseded_version": _of_consent("superseded_version", MANAGER, is_liftable=True),
    "signed_before_approved": _of_consent("signed_before_approved", MANAGER, is_liftable=True),
    "unknown_site": Hold(
        "The site or the body of the participant is not in the study's configuration",
        "Correct the screening log, or put the site back into sites_config",
        MANAGER,
    ),
    "site_not_open": Hold("The site is not open for this", "Get the approvals that are missing", MANAGER),
    "partly_in": Hold(
        "A part of the questionnaire is in already",
        "Ask the site for the rest; lift this if the whole is to be sent",
        COORDINATOR,
        is_liftable=True,
    ),
    "window_closed": Hold(
        "The window is over",
        "Lift this if the questionnaire is wanted late all the same",
        COORDINATOR,
        is_liftable=True,
    ),
    "not_allocated": Hold(
        "The wave counts from the allocation, and none is recorded", "Send in the allocation log", SITE
    ),
    "not_screened": Hold("The wave counts from screening, and none is recorded", "Send in the screening log", SITE),
    "earlier_wave_not_in": Hold(
        "The wave counts from an earlier one, and nothing of that is in", "Send in the earlier questionnaire", SITE
    ),
    "window_not_open": Hold(
        "Its day has not come", "Wait, or lift this to send it early", COORDINATOR, is_liftable=True
    ),
    "not_sent_out": Hold("The study sends no packs for this wave", "Nothing: the site collects it by itself", NOBODY),
    "not_expected": Hold("By the consent or the protocol it is expected no longer", "Nothing", NOBODY),
    "after_data_collection": Hold("The window would open after the end of data collection", "Nothing", NOBODY),
    "too_late": Hold("The time for late returns, or data collection, is over", "Nothing", NOBODY),
    "already_released": Hold("It went out already", "Nothing: a second copy is a pack of its own", NOBODY),
    "already_in": Hold("It is in", "Nothing", NOBODY),
    "not_eligible": Hold("The participant is not eligible", "Nothing; correct the log if that is wrong", SITE),
    "declined": Hold("The log says that the person declined", "Nothing; correct the log if that is wrong", SITE),
    "stopped": Hold("The participant has stopped questionnaires", "Nothing; correct the log if that is wrong", SITE),
    "died": Hold("The participant has died", "Nothing", NOBODY),
}
"""Every hold, the most actionable first."""

NOT_YET = "window_not_open"
"""The hold that ends by itself."""

_BIT = {code: 1 << place for place, code in enumerate(HOLDS)}
_OF_ANCHOR = {"screened": "not_screened", "consented": "no_consent", "allocated": "not_allocated"}
_FAULTS_THAT_HOLD = (
    *("reconsent_overdue", "parent_after_sixteen", "sixteen_unknown", "capacity_not_assessed"),
    *("superseded_version", "signed_before_approved"),
)
NEEDED_COLUMNS = (
    *("participant_id", "site_id", "body_id", "wave", "anchor_on", "release_from", "closes_on", "late_until"),
    *("is_truncated", "released_on", "n_instruments", "n_returned", "is_expected"),
)
"""What `find_holds` reads of an expected return."""


def find_holds(study: Study, events: Events, expected: pd.DataFrame, as_of: date) -> pd.Series[Any]:
    """What forbids to send each expected return on a day, by the ledger as it is: codes of HOLDS joined with ";", the
    most actionable first; "" where it may go out.

    In: `expected`, with NEEDED_COLUMNS as `study.waves.derive_expected_returns` gives them, any index. What people said
    and did (consent, leaving, eligibility), the gate's answer and what was lifted are read from `events`; dates, what
    went out and what came in from the frame, so at the moment of sending both must be of the same head of the ledger.
    """
    view = events.select(as_of=as_of)
    people = encode_texts(expected["participant_id"])
    bits = _find_bits_of_people(study, events, view, people.words, as_of)[people.codes]
    bits |= _find_bits_of_rows(study, expected, as_of)
    bits |= _find_bits_of_sites(study, _open_gate(study, events, as_of), expected)
    bits &= ~_find_lifted(study, view, people, expected["wave"])
    return join_codes(bits).set_axis(expected.index)


class Encoded(NamedTuple):
    """A column of text as numbers: each code is a place in `words`."""

    codes: Numbers
    words: pa.StringArray


def encode_texts(values: Any) -> Encoded:
    """A column of text, of Arrow or of pandas, as numbers."""
    encoded = _read_texts(values).dictionary_encode()
    return Encoded(encoded.indices.to_numpy().astype(np.int64), encoded.dictionary)


def find_places(known: pa.StringArray, wanted: Any) -> Numbers:
    """The place of each wanted text among the known ones, -1 where it is none of them."""
    places: Numbers = pc.fill_null(pc.index_in(_read_texts(wanted), value_set=known), -1).to_numpy()
    return places.astype(np.int64)


def _read_texts(values: Any) -> Any:
    texts: Any = values if isinstance(values, pa.Array | pa.ChunkedArray) else pa.array(values, pa.string())
    texts = texts.cast(pa.string())
    return texts.combine_chunks() if isinstance(texts, pa.ChunkedArray) else texts


def _find_bits_of_people(study: Study, events: Events, view: Events, ids: pa.StringArray, as_of: date) -> Numbers:
    """What holds everything of a person: consent, leaving, eligibility. One number per id."""
    consents = derive_consents(study, events, as_of)
    own = encode_texts(consents["faults"])
    of_faults = np.array([_find_fault_bits(text) for text in own.words.to_pylist()], np.int64)
    given = of_faults[own.codes] if len(consents) else np.zeros(0, np.int64)
    is_uncovered = ~consents["covers_questionnaires"].to_numpy(bool)
    has_ended = (consents["reconsent_due_on"] < pd.Timestamp(as_of)).to_numpy(bool)
    is_explained = (given & (_BIT["reconsent_overdue"] | _BIT["parent_after_sixteen"])) != 0
    given |= np.where(is_uncovered & has_ended & ~is_explained, _BIT["reconsent_overdue"], 0)
    given |= np.where(is_uncovered & ~has_ended & ~is_explained, _BIT["scope_missing"], 0)
    bits = np.full(len(ids), _BIT["no_consent"], np.int64)
    places = find_places(ids, consents["participant_id"])
    bits[places[places >= 0]] = given[places >= 0]
    stops = derive_stops(study, events, as_of)
    of_questionnaires = stops["stops"] == QUESTIONNAIRES
    kinds = {
        "died": stops["kind"] == "death",
        "not_eligible": of_questionnaires & (stops["kind"] == "exclusion"),
        "stopped": of_questionnaires & ~stops["kind"].isin(("death", "exclusion")),
    }
    approaches = view.frame(ApproachAnswered)
    is_no = {
        "not_eligible": approaches["outcome"] == "not_eligible",
        "declined": (approaches["outcome"] == "declined") & _is_since_signing(approaches, consents),
    }
    told = [(code, stops.loc[is_it, "participant_id"]) for code, is_it in kinds.items()]
    told += [(code, approaches.loc[is_it, "participant_id"]) for code, is_it in is_no.items()]
    for code, participant_ids in told:
        places = find_places(ids, participant_ids)
        bits[places[places >= 0]] |= _BIT[code]
    return bits


def _is_since_signing(approaches: pd.DataFrame, consents: pd.DataFrame) -> pd.Series[Any]:
    """Whether each answer was given on the day of the consent in force or later."""
    signed_on = consents.set_index("participant_id")["signed_on"].reindex(approaches["participant_id"])
    return approaches["occurred_on"] >= signed_on.set_axis(approaches.index)


def _find_fault_bits(faults: Any) -> int:
    return sum(_BIT[code] for code in faults.split(";") if code in _FAULTS_THAT_HOLD)


def _find_bits_of_rows(study: Study, expected: pd.DataFrame, as_of: date) -> Numbers:
    """What the dates, what went out and what came in say."""
    today = np.datetime64(as_of)
    days = {
        name: expected[name].to_numpy()
        for name in ("anchor_on", "release_from", "closes_on", "late_until", "released_on")
    }
    n_returned, n_instruments = (expected[name].to_numpy() for name in ("n_returned", "n_instruments"))
    is_in = (n_instruments > 0) & (n_returned >= n_instruments)
    is_released = ~np.isnat(days["released_on"])
    is_without = np.isnat(days["anchor_on"])
    waves = encode_texts(expected["wave"])
    named = [study.find_wave(str(wave)) for wave in waves.words.to_pylist()]
    of_wave = np.array(
        [0 if wave and study.fieldwork.find_release(wave.id) else _BIT["not_sent_out"] for wave in named]
    )
    is_late = (today > days["late_until"]) | (as_of > study.data_collection_ends_on)
    found = {
        "window_not_open": today < days["release_from"],
        "window_closed": (today > days["closes_on"]) & ~is_late,
        "too_late": is_late,
        "after_data_collection": expected["is_truncated"].to_numpy(bool),
        "already_released": is_released,
        "already_in": is_in,
        "partly_in": (n_returned > 0) & ~is_in & ~is_released,
        "not_expected": ~expected["is_expected"].to_numpy(bool),
    }
    bits = np.zeros(len(expected), np.int64)
    for code, is_it in found.items():
        bits |= np.where(is_it, _BIT[code], 0)
    of_anchor = [_BIT[_OF_ANCHOR.get(wave.anchor if wave else "", "earlier_wave_not_in")] for wave in named]
    if named:
        bits |= of_wave[waves.codes] | np.where(is_without, np.array(of_anchor)[waves.codes], 0)
    return bits


def _open_gate(study: Study, events: Events, as_of: date) -> Gate:
    """The gate; without a fold of the approvals where collecting needs none of them."""
    if any(study.pathway.find_needs(find_activity(study, wave.id)) for wave in study.waves):
        return open_gate(study, events, as_of)
    return Gate(study, as_of, pd.DataFrame())


def _find_bits_of_sites(study: Study, gate: Gate, expected: pd.DataFrame) -> Numbers:
    """What the gate says, asked once for each site, body and activity."""
    places = [encode_texts(expected[name]) for name in ("wave", "site_id", "body_id")]
    sizes = [len(place.words) for place in places]
    if not all(sizes):
        return np.zeros(len(expected), np.int64)
    key = (places[0].codes * sizes[1] + places[1].codes) * sizes[2] + places[2].codes
    bits = np.zeros(sizes[0] * sizes[1] * sizes[2], np.int64)
    answers: dict[tuple[str, str, str], Answer] = {}
    for number in np.flatnonzero(np.bincount(key, minlength=len(bits))):
        pair, body = divmod(int(number), sizes[2])
        wave, site = divmod(pair, sizes[1])
        texts = [place.words[at].as_py() for place, at in zip(places, (wave, site, body), strict=True)]
        question = (find_activity(study, texts[0]), texts[1], texts[2])
        if question not in answers:
            answers[question] = gate.ask(*question)
        bits[number] = _find_gate_bits(answers[question])
    of_rows: Numbers = bits[key]
    return of_rows


def _find_gate_bits(answer: Answer) -> int:
    unknown = {"unknown_site", "unknown_body"}
    states = {reason.state for reason in answer.reasons}
    known = _BIT["site_not_open"] if states - unknown else 0
    return known | (_BIT["unknown_site"] if states & unknown else 0)


def _find_lifted(study: Study, view: Events, people: Encoded, waves: pd.Series[Any]) -> Numbers:
    """What a role has lifted, as far as it may be lifted."""
    lifted = view.frame(HoldLifted)
    lifted = lifted[lifted["hold"].isin([code for code, hold in HOLDS.items() if hold.is_liftable])]
    wave_ids = [wave.id for wave in study.waves]
    own = pa.array(wave_ids, pa.string())
    places, at = find_places(people.words, lifted["participant_id"]), find_places(own, lifted["wave"])
    is_known = (places >= 0) & (at >= 0)
    if not is_known.any():
        return np.zeros(len(waves), np.int64)
    keys, which = np.unique(places[is_known] * len(wave_ids) + at[is_known], return_inverse=True)
    bits = np.zeros(len(keys), np.int64)
    np.bitwise_or.at(bits, which, [_BIT[code] for code in lifted["hold"][is_known]])
    wanted = people.codes * len(wave_ids) + find_places(own, waves)
    found = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    bits_of_rows: Numbers = np.where(keys[found] == wanted, bits[found], 0)
    return bits_of_rows


def join_codes(bits: Numbers) -> pd.Series[Any]:
    """The codes of HOLDS that each number stands for, joined with ";"."""
    different, which = np.unique(bits, return_inverse=True)
    texts = [";".join(code for code, bit in _BIT.items() if number & bit) for number in different.tolist()]
    joined: pd.Series[Any] = pa.array(texts, pa.string()).take(which).to_pandas()
    return joined


# For people ---------------------------------------------------------------------------------------------------------

_HELD_COLUMNS = [
    *("site_id", "participant_id", "wave", "respondent", "hold", "words", "to_do", "by", "is_liftable", "since_on"),
    "closes_on",
]


def list_held(study: Study, events: Events, as_of: date) -> pd.DataFrame:
    """What would go out on a day and is held, with every reason: one row per expected return and hold, the most
    actionable hold first, and of one hold what closes soonest.

    Columns: site_id, participant_id, wave, respondent, hold (code of HOLDS), words, to_do, by (a role; '' where nothing
    is to be done), is_liftable, since_on (the day from which it would have gone out, or on which the hold began if
    that was later; where there is no consent to count from, the day on which the person agreed; else NaT), closes_on.
    `words` of a site that is not open say which approvals are missing.
    """
    expected = _derive_expected_returns(study, events, as_of)
    held = expected.loc[expected["status"] == "held"].reset_index(drop=True)
    held["hold"] = held["holds"].str.split(";")
    held = held.explode("hold", ignore_index=True).astype({"hold": "str"})
    for column in ("words", "to_do", "by"):
        held[column] = held["hold"].map({code: getattr(hold, column) for code, hold in HOLDS.items()}).astype("str")
    held["is_liftable"] = held["hold"].isin([code for code, hold in HOLDS.items() if hold.is_liftable])
    held["words"] = _tell_closed_sites(study, _open_gate(study, events, as_of), held)
    held["since_on"] = _find_since(study, events, held, as_of)
    order = held["hold"].map({code: place for place, code in enumerate(HOLDS)})
    keys = ["order", "closes_on", "site_id", "participant_id", "wave", "respondent"]
    return held.assign(order=order).sort_values(keys, ignore_index=True)[_HELD_COLUMNS]


def _derive_expected_returns(study: Study, events: Events, as_of: date) -> pd.DataFrame:
    from study.waves import derive_expected_returns  # which asks this module for the holds

    return derive_expected_returns(study, events, as_of)


def _tell_closed_sites(study: Study, gate: Gate, held: pd.DataFrame) -> pd.Series[Any]:
    """The words of each hold; of a site that is not open with the gate's reasons."""
    words = held["words"].copy()
    is_closed = held["hold"] == "site_not_open"
    questions = held.loc[is_closed, ["wave", "site_id", "body_id"]]
    for (wave, site_id, body_id), rows in questions.groupby(["wave", "site_id", "body_id"], sort=False):
        activity = find_activity(study, str(wave))
        reasons = [reason.text for reason in gate.ask(activity, str(site_id), str(body_id)).reasons]
        more = f" And {len(reasons) - 3} more." if len(reasons) > 3 else ""
        text = f"The site is not open to {activity.replace('_', ' ')}. {' '.join(reasons[:3])}{more}"
        words.loc[rows.index] = text
    return words


def _find_since(study: Study, events: Events, held: pd.DataFrame, as_of: date) -> pd.Series[Any]:
    begun = held["release_from"].copy()
    one_day = pd.Timedelta(days=1)
    ends_on = pd.Timestamp(study.data_collection_ends_on)
    last_days = {
        "window_closed": held["closes_on"],
        "too_late": held["late_until"].mask(held["late_until"] > ends_on, ends_on),
    }
    for code, last_on in last_days.items():
        begun = begun.mask((held["hold"] == code) & (last_on + one_day > begun), last_on + one_day)
    consents = derive_consents(study, events, as_of).set_index("participant_id")
    ended_on = consents["reconsent_due_on"].reindex(held["participant_id"]).set_axis(held.index) + one_day
    begun = begun.mask((held["hold"] == "reconsent_overdue") & (ended_on > begun), ended_on)
    approaches = events.select(as_of=as_of).frame(ApproachAnswered)
    agreed = approaches.loc[approaches["outcome"] == "agreed"].set_index("participant_id")["occurred_on"]
    return begun.fillna(agreed.reindex(held["participant_id"]).set_axis(held.index))


def find_lift_faults(study: Study, events: Events, event: HoldLifted, today: date) -> list[str]:
    """Why a hold can't be lifted as told: sentences; none if it can. `today`: the date in London."""
    faults = []
    hold = HOLDS.get(event.hold)
    liftable = [code for code, one in HOLDS.items() if one.is_liftable]
    if hold is None:
        faults.append(f'"{event.hold}" is no hold. {_suggest(event.hold, liftable)}')
    elif not hold.is_liftable:
        faults.append(f'"{event.hold}" can\'t be lifted: it ends when the thing itself changes. {hold.to_do}.')
    wave_ids = [wave.id for wave in study.waves]
    if event.wave not in wave_ids:
        faults.append(f'"{event.wave}" is no wave of {study.study_id}. {_suggest(event.wave, wave_ids)}')
    if event.occurred_on > today:
        faults.append(f"the date {event.occurred_on} is in the future (today is {today}). Correct the date.")
    expected = _derive_expected_returns(study, events, today)
    own = expected.loc[expected["participant_id"] == event.participant_id]
    if own.empty:
        faults.append(f"nothing is expected of {event.participant_id}. Check the identifier.")
    elif event.wave in wave_ids and hold is not None and hold.is_liftable:
        codes = own.loc[own["wave"] == event.wave, "holds"].str.split(";")
        if not any(event.hold in several for several in codes):
            faults.append(
                f"{event.hold} does not hold {event.participant_id} at {event.wave} on {today}. Look at what is held."
            )
    return faults


def _suggest(word: str, known: Iterable[str]) -> str:
    known = list(known)
    return (find_suggestion(word, known) or f"Known: {', '.join(known)}.").strip()
