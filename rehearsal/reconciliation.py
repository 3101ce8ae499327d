"""Was any answer of the pilot trial lost, altered or invented on the way to a release, and do the results agree?

Two questions, kept apart. The first follows every item row of the source: it is accepted, superseded, refused with a
query or held in quarantine, and nothing else. The second holds the release against the trial's own derived records,
which no part of the pipeline reads.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd

from rehearsal.pilot_sites import derive_item_rows, derive_supplied_rows
from rehearsal.pilot_source import (
    INSTRUMENT_OF_FILE,
    PilotSource,
    PilotTruth,
    read_truth,
    select_source,
    select_truth,
)
from study.protocol import Study

OUTCOMES = ("accepted", "superseded", "refused", "quarantined")
FAULTS = ("lost", "altered", "refused_without_query")
RECORD_KEY = ["participant_id", "wave", "respondent", "instrument"]
ITEM_KEY = [*RECORD_KEY, "item"]
SENDING_KEY = ["site_id", "posted_on", "sending_number"]
RESPONSE_TOLERANCE = 1e-9
SCORE_TOLERANCE = 1e-6

# Derived record of the trial -> instrument and scale that must give the same.
SCALE_OF_TRUTH = {
    "ACTOT": ("adas_cog", "adas_cog_11"),
    "MHTOT": ("hachinski", "hachinski_total"),
    "NPTOT": ("npi_x", "npi_x_9"),
    **{f"NPITM{number:02}S": ("npi_x", f"npi{number:02}") for number in range(1, 13)},
}
# The trial's total has nine domains. For the three that it leaves out, the trial wrote an item score of 0 whatever had
# been answered: where ours is the product of the source's own frequency and severity there, that is a discrepancy to
# report, and not a fault.
ZEROED_BY_TRIAL = ("NPITM06S", "NPITM11S", "NPITM12S")
# Reasons that need no cell in the source: the study gives them to cells that the sites left blank.
BLANK_REASONS = ("not_answered", "not_asked", "not_returned")


@dataclass(frozen=True)
class ReleaseFrames:
    """The three tables of a release that are held against the source, with the columns of the release's interface."""

    participants: pd.DataFrame
    responses: pd.DataFrame
    scores: pd.DataFrame


@dataclass(frozen=True)
class Reconciliation:
    """What became of the source's item rows, and how the release agrees with the trial's derived records.

    outcomes: one row per item row of the source, with its trace (no answer): source_file, source_row, SENDING_KEY,
    ITEM_KEY, outcome (OUTCOMES or FAULTS), fault (what differs, where it is altered).
    counts: one row per instrument and the total: n_source, then a column for each of OUTCOMES and FAULTS.
    n_typed_missing: among the accepted, those without an answer, by reason.
    n_supplied: answers in the release that rest on an assumption. n_blank: cells without an answer that the source has
    no row for. n_unsourced: answers, or typed missing values, that no source row explains; n_supplied_wrong: supplied
    answers that are absent or altered; n_repeated: release rows that repeat a key.
    checks: check, row, column, expected (the trial's), found (the release's), agrees.
    scales: one row per derived record of the trial: test_code, scale, n_trial, n_release, n_equal, n_discrepant
    (explained), n_unexplained, largest_difference (of those not explained).
    n_assumptions: those that the study declares, as its report counts them.
    """

    outcomes: pd.DataFrame
    counts: pd.DataFrame
    n_typed_missing: Mapping[str, int]
    n_supplied: int
    n_supplied_wrong: int
    n_blank: int
    n_unsourced: int
    n_repeated: int
    checks: pd.DataFrame
    scales: pd.DataFrame
    n_assumptions: int

    @property
    def adds_up(self) -> bool:
        """Every source row has one of the four outcomes, and the release holds nothing else."""
        total = self.counts.loc["total"]
        return bool(
            total[list(OUTCOMES)].sum() == total["n_source"] == len(self.outcomes)
            and not total[list(FAULTS)].any()
            and not (self.n_unsourced or self.n_supplied_wrong or self.n_repeated)
        )

    @property
    def agrees_with_trial(self) -> bool:
        """Every check is met, and every score equals the trial's, the explained discrepancies apart."""
        return bool(self.checks["agrees"].all() and not self.scales["n_unexplained"].any())

    def to_text(self) -> str:
        return render_reconciliation(self)


def read_release(folder: Path) -> ReleaseFrames:
    """The tables of a release folder. Raises FileNotFoundError naming the table that is absent."""
    frames = {}
    for name in ("participants", "responses", "scores"):
        path = folder / "data" / f"{name}.parquet"
        if not path.is_file():
            raise FileNotFoundError(f"{folder} is no complete release: it has no data/{name}.parquet. Freeze it again.")
        frames[name] = pd.read_parquet(path)
    return ReleaseFrames(**frames)


def reconcile(
    source: PilotSource,
    study: Study,
    release: ReleaseFrames | Path,
    *,
    refused: pd.DataFrame | None = None,
    superseded: pd.DataFrame | None = None,
    quarantined: pd.DataFrame | None = None,
    held: pd.DataFrame | None = None,
    sites: Collection[str] | None = None,
    until: date | None = None,
    truth: PilotTruth | None = None,
) -> Reconciliation:
    """Follow the item rows that `sites` posted by the end of `until`, and hold the release against the trial.

    refused: RECORD_KEY + query_id, one row per refused record. superseded: RECORD_KEY, one row per accepted record
    that a later one replaced. quarantined: SENDING_KEY, one row per file held. held: RECORD_KEY, one row per record
    held back because it was collected while that was not allowed. None stands for none.
    truth: the trial's derived records; read from the package if not given.

    A row is accepted if the release holds its answer (to 1e-9), its reason for having none, and its date; so a record
    refused when it came a second time counts as accepted. It is superseded only if the release holds a successor.
    """
    frames = release if isinstance(release, ReleaseFrames) else read_release(release)
    item_rows = derive_item_rows(source, study, sites, until)
    responses = frames.responses[[*ITEM_KEY, "response", "missing_reason", "collected_on"]]
    responses = responses.assign(
        missing_reason=responses["missing_reason"].fillna("").astype("str"),
        collected_on=pd.to_datetime(responses["collected_on"]),
    )
    n_repeated = int(responses.duplicated(ITEM_KEY).sum())
    responses = responses.drop_duplicates(ITEM_KEY)
    compared = _compare(item_rows, responses)
    outcomes = item_rows.assign(
        outcome=_derive_outcome(compared, refused, superseded, quarantined, held), fault=compared["fault"].to_numpy()
    )
    outcomes.loc[outcomes["outcome"] != "altered", "fault"] = ""
    supplied = derive_supplied_rows(item_rows)
    supplied_compared = _compare(supplied, responses)
    has_record = _is_in(supplied, _accepted_records(outcomes), RECORD_KEY)
    explained = pd.concat([item_rows[ITEM_KEY], supplied[ITEM_KEY]], ignore_index=True)
    others = responses[~_is_in(responses, explained, ITEM_KEY)]
    is_blank = _is_blank(others, item_rows)
    part = select_source(source, sites, until)
    trial = select_truth(read_truth() if truth is None else truth, sites, until)
    return Reconciliation(
        outcomes=outcomes[["source_file", "source_row", *SENDING_KEY, *ITEM_KEY, "outcome", "fault"]],
        counts=_count(outcomes),
        n_typed_missing=_count_typed_missing(outcomes),
        n_supplied=int((supplied_compared["fault"] == "").sum()),
        n_supplied_wrong=int((has_record & (supplied_compared["fault"] != "")).sum()),
        n_blank=int(is_blank.sum()),
        n_unsourced=int((~is_blank).sum()),
        n_repeated=n_repeated,
        checks=_derive_checks(part, trial, frames, study),
        scales=_derive_scale_checks(trial, item_rows, frames.scores, study),
        n_assumptions=len(study.assumptions),
    )


def _compare(rows: pd.DataFrame, responses: pd.DataFrame) -> pd.DataFrame:
    """Rows of the source (index from 0) with is_held (the release has the key) and fault ("" if it holds the same)."""
    both = rows.reset_index(drop=True).merge(
        responses, on=ITEM_KEY, how="left", suffixes=("", "_held"), indicator=True, validate="one_to_one"
    )
    is_held = both["_merge"] == "both"
    is_same_response = (both["response"] - both["response_held"]).abs() <= RESPONSE_TOLERANCE
    is_same_response |= both["response"].isna() & both["response_held"].isna()
    faults = (
        (~is_held, "not in the release"),
        (~is_same_response, "response"),
        (both["missing_reason"] != both["missing_reason_held"].fillna(""), "missing_reason"),
        (both["collected_on"] != both["collected_on_held"], "collected_on"),
    )
    fault = np.select([mask.to_numpy() for mask, _ in faults], [text for _, text in faults], default="")
    return both.assign(is_held=is_held, fault=fault)


def _derive_outcome(
    compared: pd.DataFrame,
    refused: pd.DataFrame | None,
    superseded: pd.DataFrame | None,
    quarantined: pd.DataFrame | None,
    held: pd.DataFrame | None,
) -> np.ndarray:
    refused = _require(refused, [*RECORD_KEY, "query_id"], "refused")
    superseded = _require(superseded, RECORD_KEY, "superseded")
    quarantined = _require(quarantined, SENDING_KEY, "quarantined")
    quarantined = quarantined.assign(
        posted_on=pd.to_datetime(quarantined["posted_on"]).astype(compared["posted_on"].dtype),
        sending_number=quarantined["sending_number"].astype("int64"),
        site_id=quarantined["site_id"].astype("str"),
    )
    has_query = refused["query_id"].fillna("") != ""
    is_held = compared["is_held"].to_numpy()
    is_refused = _is_in(compared, refused[has_query], RECORD_KEY)
    is_refused_silently = _is_in(compared, refused[~has_query], RECORD_KEY)
    masks = {
        "superseded": is_held & _is_in(compared, superseded, RECORD_KEY),
        "accepted": (compared["fault"] == "").to_numpy(),
        "altered": is_held,
        "refused": is_refused,
        "refused_without_query": is_refused_silently,
        "quarantined": _is_in(compared, quarantined, SENDING_KEY)
        | _is_in(compared, _require(held, RECORD_KEY, "held"), RECORD_KEY),
    }
    return np.select(list(masks.values()), list(masks), default="lost")


def _is_blank(others: pd.DataFrame, item_rows: pd.DataFrame) -> np.ndarray:
    """Cells that the sites left blank: without an answer, and with a reason that a blank cell may be given. A question
    after one that has no answer takes that one's reason."""
    gates = item_rows.loc[item_rows["missing_reason"] != "", [*ITEM_KEY, "missing_reason"]]
    gate = others["item"].str.replace(r"_.*", "_present", regex=True)
    follows_gate = _is_in(others.assign(item=gate), gates, [*ITEM_KEY, "missing_reason"])
    has_blank_reason = others["missing_reason"].isin(BLANK_REASONS).to_numpy()
    is_unanswered: np.ndarray = others["response"].isna().to_numpy() & (has_blank_reason | follows_gate)
    return is_unanswered


def _require(frame: pd.DataFrame | None, columns: list[str], name: str) -> pd.DataFrame:
    if frame is None:
        return pd.DataFrame({column: pd.Series(dtype="str") for column in columns})
    absent = [column for column in columns if column not in frame]
    if absent:
        raise ValueError(f"The frame of {name} records lacks {', '.join(absent)}. It needs {', '.join(columns)}.")
    return frame[columns]


def _is_in(frame: pd.DataFrame, others: pd.DataFrame, key: list[str]) -> np.ndarray:
    """For each row of the frame: is its key among the others'?"""
    if others.empty:
        return np.zeros(len(frame), dtype=bool)
    marked = frame[key].merge(others[key].drop_duplicates().assign(is_there=True), on=key, how="left")
    return marked["is_there"].notna().to_numpy()


def _accepted_records(outcomes: pd.DataFrame) -> pd.DataFrame:
    return outcomes.loc[outcomes["outcome"] == "accepted", RECORD_KEY].drop_duplicates()


def _count(outcomes: pd.DataFrame) -> pd.DataFrame:
    columns = [*OUTCOMES, *FAULTS]
    order = [name for name in INSTRUMENT_OF_FILE.values() if name in set(outcomes["instrument"])]
    counts = pd.crosstab(outcomes["instrument"], outcomes["outcome"])
    counts = counts.reindex(index=order, columns=columns, fill_value=0)
    counts.columns.name = None
    counts.insert(0, "n_source", outcomes["instrument"].value_counts().reindex(order))
    counts.loc["total"] = counts.sum()
    return counts.astype("int64")


def _count_typed_missing(outcomes: pd.DataFrame) -> dict[str, int]:
    is_typed = (outcomes["outcome"] == "accepted") & (outcomes["missing_reason"] != "")
    return {str(reason): int(n) for reason, n in outcomes.loc[is_typed].groupby("missing_reason").size().items()}


def _find_wave_ids(visits: pd.Series, study: Study) -> pd.Series:
    waves = {visit: study.find_wave(visit) for visit in visits.unique()}
    return visits.map({visit: visit if wave is None else wave.id for visit, wave in waves.items()})


def _derive_checks(source: PilotSource, trial: PilotTruth, release: ReleaseFrames, study: Study) -> pd.DataFrame:
    people = source.people.merge(source.dispositions.drop(columns="site_id"), on="participant_id", how="left")
    names = {"site": "site_id", "disposition": "reason", "disposition_on": "left_on"}
    held = release.participants.rename(columns=names)
    held = held.assign(**{name: held[name].fillna("").astype("str") for name in ("arm", "reason", "site_id")})
    checks = [
        _check_people(people, held),
        _check_attendance(trial, held, release.responses, study),
        _check_cells("left, by reason and arm", _count_by(people, "reason", "arm"), _count_by(held, "reason", "arm")),
        _check_means(trial, held, release.scores, study),
        _check_late_answers(source, held, release.responses),
    ]
    codes = ["", *(arm.id for arm in study.arms), *(wave.id for wave in study.waves)]
    order = {code: place for place, code in enumerate(codes)}
    cells = pd.concat([check.assign(place=place) for place, check in enumerate(checks)], ignore_index=True)
    for name in ("column", "row"):
        cells = cells.sort_values(name, key=lambda texts: texts.map(order).fillna(len(order)), kind="stable")
    return cells.sort_values("place", kind="stable", ignore_index=True).drop(columns="place")


def _check_people(people: pd.DataFrame, held: pd.DataFrame) -> pd.DataFrame:
    """Numbers of people, and of those whose dates, arm and site are the source's."""
    columns = ["participant_id", "site_id", "arm", "screened_on", "consented_on", "allocated_on"]
    dates = [column for column in columns if column.endswith("_on")]
    sides = []
    for frame in (people, held):
        side = frame[columns].assign(**{name: pd.to_datetime(frame[name]).dt.strftime("%Y-%m-%d") for name in dates})
        sides.append(side.fillna("").astype("str"))
    same = sides[0].merge(sides[1], on=columns)
    rows = [
        ("screened", len(people), len(held)),
        ("allocated", int((people["arm"] != "").sum()), int((held["arm"] != "").sum())),
        ("with the same site, arm and dates", len(people), len(same)),
    ]
    return _to_checks("people", [(row, "all", expected, found) for row, expected, found in rows])


def _check_attendance(trial: PilotTruth, held: pd.DataFrame, responses: pd.DataFrame, study: Study) -> pd.DataFrame:
    """People with at least one ADAS-Cog answer, by wave and arm, against those with a total of the trial."""
    totals = trial.totals[trial.totals["test_code"] == "ACTOT"]
    expected = totals.assign(wave=_find_wave_ids(totals["visit"], study))
    answered = responses[(responses["instrument"] == "adas_cog") & responses["response"].notna()]
    found = answered.drop_duplicates(["participant_id", "wave"])[["participant_id", "wave"]].merge(
        held[["participant_id", "arm"]], on="participant_id"
    )
    return _check_cells(
        "ADAS-Cog, people by wave and arm", _count_by(expected, "wave", "arm"), _count_by(found, "wave", "arm")
    )


def _check_means(trial: PilotTruth, held: pd.DataFrame, scores: pd.DataFrame, study: Study) -> pd.DataFrame:
    """Mean ADAS-Cog total at week 24 by arm."""
    instrument, scale = SCALE_OF_TRUTH["ACTOT"]
    totals = trial.totals[trial.totals["test_code"] == "ACTOT"]
    totals = totals[_find_wave_ids(totals["visit"], study) == "week_24"]
    ours = scores[(scores["instrument"] == instrument) & (scores["scale"] == scale) & (scores["wave"] == "week_24")]
    ours = ours.merge(held[["participant_id", "arm"]], on="participant_id")
    expected, found = totals.groupby("arm")["value"].mean(), ours.groupby("arm")["score"].mean()
    arms = sorted({*expected.index, *found.index})
    return _to_checks(
        "mean ADAS-Cog (11) at week 24",
        [("mean", arm, float(expected.get(arm, np.nan)), float(found.get(arm, np.nan))) for arm in arms],
    )


def _check_late_answers(source: PilotSource, held: pd.DataFrame, responses: pd.DataFrame) -> pd.DataFrame:
    """People with answers given after the date on which they left: by reason, all of them kept."""
    columns = ["participant_id", "reason", "left_on"]
    counts = []
    for people, answers in ((source.dispositions, source.items), (held, responses)):
        dated = answers[["participant_id", "collected_on"]].drop_duplicates()
        dated = dated.merge(people[columns], on="participant_id")
        late = dated[pd.to_datetime(dated["collected_on"]) > pd.to_datetime(dated["left_on"])]
        late = late.drop_duplicates("participant_id").assign(all="people")
        counts.append(_count_by(late, "reason", "all"))
    return _check_cells("answered after leaving, by reason", *counts)


def _count_by(frame: pd.DataFrame, row: str, column: str) -> dict[tuple[str, str], int]:
    sizes = frame.groupby([row, column]).size()
    return {(str(key[0]), str(key[1])): int(n) for key, n in sizes.items() if isinstance(key, tuple) and key[0]}


def _check_cells(
    check: str, expected: Mapping[tuple[str, str], int], found: Mapping[tuple[str, str], int]
) -> pd.DataFrame:
    cells = sorted({*expected, *found})
    return _to_checks(check, [(row, col, expected.get((row, col), 0), found.get((row, col), 0)) for row, col in cells])


def _to_checks(check: str, cells: Iterable[tuple[str, str, float, float]]) -> pd.DataFrame:
    frame = pd.DataFrame(list(cells), columns=["row", "column", "expected", "found"])
    frame = frame.astype({"row": "str", "column": "str", "expected": "float64", "found": "float64"})
    frame.insert(0, "check", check)
    return frame.assign(agrees=(frame["expected"] - frame["found"]).abs() <= SCORE_TOLERANCE)


def _derive_products(item_rows: pd.DataFrame, domain: str) -> pd.DataFrame:
    """Frequency x severity of one domain, straight from the source's rows: participant_id, wave, product."""
    parts = [
        item_rows.loc[item_rows["item"] == f"{domain}_{part}", ["participant_id", "wave", "response"]]
        for part in ("frequency", "severity")
    ]
    both = parts[0].merge(parts[1], on=["participant_id", "wave"], validate="one_to_one")
    return both.assign(product=both["response_x"] * both["response_y"])[["participant_id", "wave", "product"]]


def _derive_scale_checks(
    trial: PilotTruth, item_rows: pd.DataFrame, scores: pd.DataFrame, study: Study
) -> pd.DataFrame:
    totals = trial.totals.assign(wave=_find_wave_ids(trial.totals["visit"], study))
    rows = []
    for test_code, (instrument, scale) in SCALE_OF_TRUTH.items():
        theirs = totals.loc[totals["test_code"] == test_code, ["participant_id", "wave", "value"]]
        ours = scores.loc[
            (scores["instrument"] == instrument) & (scores["scale"] == scale) & scores["score"].notna(),
            ["participant_id", "wave", "score"],
        ]
        both = theirs.merge(ours, on=["participant_id", "wave"], how="outer", validate="one_to_one")
        difference = (both["value"] - both["score"]).abs()
        is_equal = difference <= SCORE_TOLERANCE
        is_discrepant = pd.Series(False, index=both.index)
        if test_code in ZEROED_BY_TRIAL:
            products = both.merge(_derive_products(item_rows, scale), on=["participant_id", "wave"], how="left")
            is_product = (products["score"] - products["product"]).abs() <= SCORE_TOLERANCE
            is_discrepant = ~is_equal & (both["value"] == 0) & is_product
        is_unexplained = ~is_equal & ~is_discrepant
        rows.append(
            {
                "test_code": test_code,
                "scale": scale,
                "n_trial": len(theirs),
                "n_release": len(ours),
                "n_equal": int(is_equal.sum()),
                "n_discrepant": int(is_discrepant.sum()),
                "n_unexplained": int(is_unexplained.sum()),
                "largest_difference": float(difference[~is_discrepant].fillna(np.inf).max()) if len(both) else 0.0,
            }
        )
    return pd.DataFrame(rows)


# As text


def render_reconciliation(result: Reconciliation) -> str:
    """The reconciliation as plain text for a terminal; no answer and no participant in it."""
    total = result.counts.to_dict("index")["total"]
    n_explained = sum(total[name] for name in OUTCOMES)
    parts = [
        "What became of the source's item rows",
        _render_table(
            ["instrument", "source", *(c.replace("_", " ") for c in result.counts.columns[1:])],
            [[str(name), *(f"{int(n):,}" for n in row)] for name, row in result.counts.iterrows()],
        ),
        f"{' + '.join(f'{total[name]:,} {name}' for name in OUTCOMES)} = {n_explained:,} of {total['n_source']:,}.",
        f"Besides these the release holds {result.n_supplied:,} answers supplied by an assumption and "
        f"{result.n_blank:,} cells left blank by routing or by the respondent.",
        *(
            f"Among the accepted: {n:,} that the trial records as {reason.replace('_', ' ')}, with no answer."
            for reason, n in result.n_typed_missing.items()
        ),
        *_render_faults(result),
    ]
    for check, cells in result.checks.groupby("check", sort=False):
        parts += ["", f"{str(check)[0].upper()}{str(check)[1:]}", _render_cells(cells)]
    if not result.checks["agrees"].all():
        parts.append("In brackets: the trial's own figure, where the release has another.")
    parts += ["", "Scores against the trial's own derived records"]
    parts.append(_render_table(
        ["trial's record", "scale", "trial", "release", "equal", "discrepant", "unexplained", "largest difference"],
        [
            [
                str(row["test_code"]), str(row["scale"]),
                *(f"{row[name]:,}" for name in ("n_trial", "n_release", "n_equal", "n_discrepant", "n_unexplained")),
                f"{row['largest_difference']:.1e}",
            ]
            for row in result.scales.to_dict("records")
        ],
    ))  # fmt: skip
    n_discrepant = int(result.scales["n_discrepant"].sum())
    if n_discrepant:
        parts.append(
            f"Discrepant: {n_discrepant:,} domain scores that the trial recorded as 0 although a frequency and a "
            "severity were given, all in the domains outside its nine-domain total. The release keeps their product."
        )
    parts += [
        "",
        "Every answer is accounted for." if result.adds_up else "ANSWERS ARE NOT ACCOUNTED FOR: see the faults above.",
        "The release agrees with the trial's own records."
        if result.agrees_with_trial
        else "THE RELEASE DIFFERS from the trial's own records: see the figures above.",
        f"Rests on {result.n_assumptions} declared assumptions; the report of the release lists them.",
    ]
    return "\n".join(parts) + "\n"


def _render_faults(result: Reconciliation) -> list[str]:
    lines = []
    if result.n_unsourced:
        lines.append(f"FAULT: {result.n_unsourced:,} answers in the release have no row in the source.")
    if result.n_supplied_wrong:
        lines.append(f"FAULT: {result.n_supplied_wrong:,} supplied answers are absent or differ.")
    if result.n_repeated:
        lines.append(f"FAULT: {result.n_repeated:,} rows of the release repeat an answer.")
    at_fault = result.outcomes[result.outcomes["outcome"].isin(FAULTS)]
    for row in at_fault.head(10).to_dict("records"):
        what = f"{row['outcome'].replace('_', ' ')}{' (' + row['fault'] + ')' if row['fault'] else ''}"
        lines.append(
            f"FAULT: {row['source_file']} row {row['source_row']}, site {row['site_id']}, posted "
            f"{row['posted_on']:%Y-%m-%d}, {row['wave']}, {row['instrument']}, {row['item']}: {what}."
        )
    if len(at_fault) > 10:
        lines.append(f"... and {len(at_fault) - 10:,} more.")
    return lines


def _render_cells(cells: pd.DataFrame) -> str:
    columns = list(dict.fromkeys(cells["column"]))
    decimals = 4 if str(cells["check"].iloc[0]).startswith("mean") else 0
    texts: dict[str, dict[str, str]] = {}
    for cell in cells.to_dict("records"):
        found, expected = (
            "none" if np.isnan(value) else f"{value:,.{decimals}f}" for value in (cell["found"], cell["expected"])
        )
        texts.setdefault(cell["row"], {})[cell["column"]] = found if cell["agrees"] else f"{found} ({expected})"
    return _render_table(
        ["", *(column or "not allocated" for column in columns)],
        [[row, *(by_column.get(column, "0") for column in columns)] for row, by_column in texts.items()],
    )


def _render_table(header: list[str], rows: list[list[str]]) -> str:
    """Columns of equal width, the first to the left, the others to the right."""
    table = [header, *rows]
    widths = [max(len(row[place]) for row in table) for place in range(len(header))]
    lines = [
        "  ".join([row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))]).rstrip()
        for row in table
    ]
    return "\n".join(["  " + lines[0], "  " + "-" * len(lines[0]), *("  " + line for line in lines[1:])])
