"""What can be wrong with a return, and what each fault stops.

A **hard** rule stops a row (or, for a whole file, the file); a **soft** one lets it in with a query. The wording that a
site reads is in `templates/queries.toml`, one entry per rule.
"""

from __future__ import annotations

from typing import Literal

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
    "sheet_repeated": "hard",
    "cells_out_of_reach": "hard",
    "merged_cells": "hard",
    "formula_in_cell": "hard",
    "error_in_cell": "hard",
    "date_not_understood": "hard",
    "month_not_understood": "hard",
    "count_not_understood": "hard",
}

# Faults of a whole sheet: none of its rows can be trusted.
SHEET_RULES = frozenset({"missing_column", "codes_missing", "column_repeated", "cells_out_of_reach", "sheet_repeated"})

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
