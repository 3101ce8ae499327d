"""What can be wrong with a return, and what each fault stops.

A **hard** rule stops a row (or, for a whole file, the file); a **soft** one lets it in with a query. The wording that a
site reads is in `templates/queries.toml`, one entry per rule.

A query asks one site about one value by one rule, and asks once. It stays open while the fault stands with that value,
and closes by itself when the fault is gone. A fault that comes back with the same value opens the same query again; one
that a person settled, because the site confirms the value or nobody need answer, is asked about no more, whichever file
tells that value. Another value is another question. The site's answer is one thing, and what the study makes of it
another: an answer takes the query off the site's list and puts it on ours.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd

Severity = Literal["hard", "soft"]

# A file in which something may tell who a person is: held unread.
IDENTIFIERS_FOUND = "identifiers_found"

# Whole files that nobody may read further: kept as they came, in quarantine.
FILE_RULES: dict[str, Severity] = {
    "not_a_workbook": "hard",
    "old_excel_format": "hard",
    "encrypted_workbook": "hard",
    "truncated_workbook": "hard",
    "damaged_workbook": "hard",
    "zip_bomb": "hard",
    "macro_workbook": "hard",
    "file_too_large": "hard",
    "unsafe_workbook": "hard",
    "empty_workbook": "hard",
    "about_missing": "hard",
    "about_incomplete": "hard",
    "wrong_study": "hard",
    "wrong_site": "hard",
    "wrong_layout_version": "hard",
    "posted_in_future": "hard",
    "nothing_to_read": "hard",
    IDENTIFIERS_FOUND: "hard",
}

# A pack that came back as it was sent. No query: the site knows, and the returns that it asked for are owed as before.
NOTHING_FILLED_IN = "nothing_filled_in"

# Places in a file: sheets, columns, cells.
PLACE_RULES: dict[str, Severity] = {
    "unknown_sheet": "soft",
    "unknown_column": "soft",
    "missing_column": "hard",
    "codes_missing": "hard",
    "column_repeated": "hard",
    "columns_mixed_up": "hard",
    "sheet_repeated": "hard",
    "cells_out_of_reach": "hard",
    "merged_cells": "hard",
    "formula_in_cell": "hard",
    "error_in_cell": "hard",
    "date_not_understood": "hard",
    "month_not_understood": "hard",
    "count_not_understood": "hard",
    "read_from_label": "soft",
}

# Faults of a whole sheet: none of its rows can be trusted.
SHEET_RULES = frozenset(
    {"missing_column", "codes_missing", "column_repeated", "columns_mixed_up", "cells_out_of_reach", "sheet_repeated"}
)

# Rows of the logs and of the questionnaires.
ROW_RULES: dict[str, Severity] = {
    "participant_missing": "hard",
    "participant_malformed": "hard",
    "check_digit_wrong": "hard",
    "participant_unknown": "hard",
    "participant_of_another_site": "hard",
    "identifier_not_issued": "soft",
    "code_unknown": "hard",
    "blank_expected": "hard",
    "date_missing": "hard",
    "date_in_future": "hard",
    "dates_out_of_order": "hard",
    "month_not_over": "hard",
    "differs_from_record": "hard",
    "consent_not_recorded": "hard",
    "collected_before_consent": "hard",
    "consent_without_agreement": "soft",
    "consent_after_leaving": "soft",
    "capacity_not_assessed": "soft",
    "sixteenth_month_missing": "soft",
    "query_unknown": "hard",
    "wave_unknown": "hard",
    "respondent_unknown": "hard",
    "form_unknown": "hard",
    "duplicate_in_file": "hard",
    "conflicts_with_accepted": "hard",
    "overtaken_by_correction": "hard",
    "overtaken_by_later_return": "hard",
    "left_out_of_correction": "soft",
}

# Rows of which nobody knows whose they are.
IDENTITY_RULES = frozenset(
    {
        "participant_missing",
        "participant_malformed",
        "check_digit_wrong",
        "participant_unknown",
        "participant_of_another_site",
    }
)

# What a return says beside all else that is known; `study.return_checks` finds it. A study may leave some out.
RETURN_RULES: dict[str, Severity] = {
    "follow_up_without_baseline": "soft",
    "answered_after_death": "hard",
    "answered_after_leaving": "soft",
    "died_before_answers": "soft",
    "not_scheduled": "soft",
    "form_differs": "soft",
    "posted_before_collected": "soft",
    "waves_out_of_order": "soft",
    "outside_window": "soft",
    "recall_overlaps": "soft",
    "often_blank": "soft",
    "asked_and_blank": "soft",
    "other_version": "soft",
    "sentinel_suspected": "soft",
    "answered_alike": "soft",
    "sex_changed": "soft",
    "birth_year_changed": "soft",
    "implausible_change": "soft",
    "identity_swapped": "soft",
    "scales_disagree": "soft",  # or hard, as the study's rule says
}

# What was done while it was not allowed. No query: the site can mend nothing, and the receipt says so.
GATE_RULES = {
    "approach": "approached_while_not_allowed",
    "recruit": "recruited_while_not_allowed",
    "collect_baseline": "collected_while_not_allowed",
    "collect_follow_up": "collected_while_not_allowed",
}


def derive_query_ids(site_code: str, n_already: int, n_new: int) -> list[str]:
    """Numbers for new queries of one site, in the order they were found: `701-0001`, `701-0002` …

    Counting happens under the ledger's write lock, so two runs never give one number to two queries.
    """
    return [f"{site_code}-{number:04d}" for number in range(n_already + 1, n_already + n_new + 1)]


def find_open_queries(queries: pd.DataFrame, site_id: str | None = None) -> pd.DataFrame:
    """Open queries (rows of `state.derive_queries`), oldest first; of one site, or of all."""
    is_open = queries["status"] == "open"
    if site_id is not None:
        is_open &= queries["site_id"] == site_id
    return queries[is_open].sort_values(["raised_on", "query_id"])


def find_unanswered_queries(queries: pd.DataFrame) -> pd.DataFrame:
    """Open queries that wait for their site, oldest first: what a pack and a digest ask for."""
    return find_open_queries(queries[queries["stage"] == WITH_SITE])


# Where a query is ---------------------------------------------------------------------------------------------------

WITH_SITE, WITH_STUDY, CLOSED = "with_site", "with_study", "closed"
STAGES = {WITH_SITE: "with the site", WITH_STUDY: "answered, for us to look at", CLOSED: "closed"}
"""Open and not answered; open and answered by the site; closed."""
ANSWERS = {"corrected": "corrected", "confirmed": "right as it is", "cannot_say": "nobody can say"}
CLOSINGS = {
    "mended": "mended",
    "confirmed": "confirmed as is",
    "withdrawn": "withdrawn",
    "changed": "asked anew about another value",
}

AGE_BANDS = {7: "up to 7 days", 14: "8 to 14 days", 28: "15 to 28 days", 56: "29 to 56 days", 10**6: "over 56 days"}
"""Bands of the age of a query, by the last day of each: calendar days since it was raised. Weeks and four weeks are
what sites plan by; the bands are a convention of data management and carry no rule."""


def find_age_band(days: int) -> str:
    return next(words for last, words in AGE_BANDS.items() if days <= last)


def derive_ages(queries: pd.DataFrame, as_of: date) -> pd.DataFrame:
    """Queries (rows of `state.derive_queries`) with age_days, from the day on which they were raised to that on which
    they were closed, or to `as_of`, and age_band, one of AGE_BANDS."""
    until = queries["closed_on"].fillna(pd.Timestamp(as_of))
    days = (until - queries["raised_on"]).dt.days.astype("int64").clip(lower=0)
    bands = np.array(list(AGE_BANDS.values()), dtype=object)
    return queries.assign(age_days=days, age_band=bands[np.searchsorted(list(AGE_BANDS), days)])


# What a query is about ----------------------------------------------------------------------------------------------

WHOLE_ROW_RULES = frozenset({"differs_from_record", "conflicts_with_accepted", "duplicate_in_file", "identity_swapped"})
"""Rules that ask about all cells of a row; every other one asks about its own cell."""


def derive_seal(data: bytes) -> bytes:
    """The key under which the values of a file are sealed. It follows from the file alone and not from its SHA-256, so
    that who has the ledger but not the file can try no values, and nobody can once the file is erased."""
    return hashlib.blake2b(data, person=b"query values", digest_size=32).digest()


def compute_fingerprint(seal: bytes, values: Sequence[str]) -> str:
    """A value, or several of one question, as 32 letters: nobody who looks for a number in a ledger meets one here."""
    text = "\x1e".join(values).encode("utf-8", "surrogatepass")
    return hmac.digest(seal, text, hashlib.sha256).hex()[:32].translate(_LETTERS)


_LETTERS = str.maketrans("0123456789abcdef", "abcdefghijklmnop")


class AskedQuery(NamedTuple):
    """A query that a site was asked. `return_id`, `sheet`, `row` (0: no row), `column`: what it was asked about;
    `fingerprint` of the value, sealed with the file `sha256`. `reason`: why it was closed, '' while it is open.
    `standing`: hashes of the rows that closed and answered it, which are voided to open it again."""

    query_id: str
    return_id: str
    sheet: str
    row: int
    column: str = ""
    fingerprint: str = ""
    sha256: str = ""
    reason: str = ""
    standing: tuple[str, ...] = ()


class Settled(NamedTuple):
    """What follows where a fault meets the queries that were asked before. `step`: "ask" anew, "keep" an open query,
    "reopen" a closed one, or stay "silent"; `query`: which; `changed`: open ones about another value, to be closed.
    `fingerprint`: of the value that is told now."""

    step: Literal["ask", "keep", "reopen", "silent"]
    query: AskedQuery | None = None
    changed: tuple[AskedQuery, ...] = ()
    fingerprint: str = ""


SETTLED_BY_A_PERSON = ("confirmed", "withdrawn")


def settle_fault(
    asked: Sequence[AskedQuery], is_same: Callable[[AskedQuery], bool | None], *, is_overtaken: bool = False
) -> Settled:
    """What follows from a fault about which the site was `asked` before (oldest first), by the same rule at the same
    place. `is_same`: whether a query is about the value that is told now; None where nobody can tell, as of queries
    from before values were noted, or whose file was erased. A file that a higher correction overtook changes nothing.
    """
    still_open = [query for query in asked if not query.reason]
    if is_overtaken and asked:
        return Settled("keep", still_open[-1]) if still_open else Settled("silent", asked[-1])
    same = {query.query_id: is_same(query) for query in asked}
    others = tuple(query for query in still_open if same[query.query_id] is False)
    for query in reversed(still_open):
        if same[query.query_id] is not False:
            return Settled("keep", query, others)
    for query in reversed(asked):
        if same[query.query_id]:
            is_settled = query.reason in SETTLED_BY_A_PERSON
            return Settled("silent" if is_settled else "reopen", query, others)
    return Settled("ask", None, others)


def make_comparison(seals: Mapping[str, bytes], values: Sequence[str]) -> Callable[[AskedQuery], bool | None]:
    """Whether a query is about these values. `seals`: by the SHA-256 of the file that a query came from."""

    def is_same(query: AskedQuery) -> bool | None:
        seal = seals.get(query.sha256)
        if seal is None or not query.fingerprint:
            return None
        return hmac.compare_digest(compute_fingerprint(seal, values), query.fingerprint)

    return is_same


def describe_state(query: Mapping[Any, Any]) -> str:
    """Where a query is, in words: "with the site", "answered: right as it is", "closed: confirmed as is"."""
    if query["stage"] == CLOSED:
        return f"closed: {CLOSINGS[query['close_reason']]}"
    return f"answered: {ANSWERS[query['answer']]}" if query["stage"] == WITH_STUDY else STAGES[WITH_SITE]
