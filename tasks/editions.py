"""What leaves the team: external editions of a release, and reports for a monitoring committee.

Both are made from a release's files alone and lie beside the releases, each in a folder with a manifest of its own.
What an external edition hides is kept among the study's own files (`disclosure/`), since the next edition must be
protected against it.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from itertools import pairwise
from typing import Any, Literal

import pandas as pd

from study.analysis_tables import TIMINGS
from study.answers import derive_records
from study.calendar import format_day
from study.datasets import ReleaseFault, derive_means, derive_missing_answers
from study.disclosure import DisclosureFault, Protected, Rule, find_sums, protect_counts
from study.disclosure_audit import Published, find_told, read_sums
from study.editions import (
    derive_edition_counts,
    derive_edition_flow,
    derive_edition_reasons,
    derive_edition_returns,
    derive_moves,
    derive_recruitment,
    derive_retention,
    derive_why_missing,
    find_return_rows,
    list_groups,
    list_reasons,
)
from study.flow import ALL, derive_flow_boxes
from study.instruments import Instrument
from study.masking import find_telling_sites, mask_arms, mask_study
from study.protocol import Study
from study.release_rules import LEFT_OUT_WORDS
from tasks.definitions import parse_configuration
from tasks.files import find_releases, publish_folder
from tasks.flow_diagram import describe_for_page, encode_flow_table, list_table, show_count
from tasks.masking import draw_letters, unmask_arms
from tasks.pages import render_page
from tasks.releases import BLINDED, MANIFEST, RELEASES, derive_code_version
from tasks.workspace import Workspace

EDITIONS, RECORDS = "editions", "disclosure"
EXTERNAL = "external"
PAGE = "report.html"
Part = Literal["open", "closed"]

_TABLES = ("flow.csv", "returns.csv", "reasons.csv")
_TEXT = ("stage", "box", "part_of", "rule", "reason", "label", "group", "wave", "respondent", "by", "key", "hidden")


@dataclass(frozen=True)
class Edition:
    """What was published. `answer`: "added", or "same" where it was there before; `n_counts`, `n_hidden`: of an
    external edition; `matched_by`: of a closed report, the releases whose counts by arm would tell its letters."""

    name: str
    answer: str
    location: str
    n_counts: int = 0
    n_hidden: int = 0
    protected_against: tuple[str, ...] = ()
    matched_by: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Source:
    """A release, as far as an edition needs it."""

    release: str
    manifest: Mapping[str, Any]
    manifest_sha256: str
    study: Study
    instruments: Mapping[str, Instrument]
    tables: Mapping[str, pd.DataFrame]

    @property
    def is_blinded(self) -> bool:
        return bool(self.manifest["masked_arms"])

    @property
    def as_of(self) -> date:
        return date.fromisoformat(self.manifest["as_of"])

    def describe(self) -> dict[str, Any]:
        told = {name: self.manifest[name] for name in ("release", "as_of", "known_at")}
        return {**told, "manifest_sha256": self.manifest_sha256}


def _read_source(workspace: Workspace, release: str, tables: Sequence[str]) -> _Source:
    """A release's manifest, its definitions and some of its tables, held against the manifest. Raises ReleaseFault."""
    folder = f"{RELEASES}/{release or 'latest'}"
    if not workspace.area.has(f"{folder}/{MANIFEST}"):
        known = ", ".join(find_releases(workspace.area, RELEASES)) or "none"
        raise ReleaseFault([f'There is no release "{release or "latest"}" of {workspace.name}. Releases: {known}.'])
    content = workspace.area.get(f"{folder}/{MANIFEST}")
    manifest = json.loads(content)
    frames = {}
    for name in tables:
        if name not in manifest["tables"]:
            raise ReleaseFault([f"{manifest['release']} has no table {name}: it is older than that. Freeze it again."])
        data = workspace.area.get(f"{folder}/data/{name}.parquet")
        if _hash(data) != manifest["files"][f"data/{name}.parquet"]["sha256"]:
            raise ReleaseFault([f"data/{name}.parquet of {manifest['release']} has been changed since it was frozen."])
        frame = pd.read_parquet(io.BytesIO(data))
        days = [column for column in frame.columns if column.endswith("_on")]
        frames[name] = frame.astype(dict.fromkeys(days, "datetime64[us]"))
    parts = {(part["part"], part["name"]): workspace.content.get(part["sha256"]) for part in manifest["configuration"]}
    study, instruments = parse_configuration(parts)
    return _Source(manifest["release"], manifest, _hash(content), study, instruments, frames)


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _encode(value: Any) -> bytes:
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()


def _encode_table(table: pd.DataFrame) -> bytes:
    return table.to_csv(index=False, lineterminator="\n").encode()


def _read_table(content: bytes) -> pd.DataFrame:
    header = pd.read_csv(io.BytesIO(content), nrows=0).columns
    text = {name: "str" for name in header if name in _TEXT}
    table = pd.read_csv(io.BytesIO(content), dtype=text)
    return table.fillna(dict.fromkeys(text, ""))


# External editions --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Earlier:
    """An edition that is out: its manifest, what it hides, and what its files say."""

    manifest: Mapping[str, Any]
    manifest_sha256: str
    protected: Protected
    published: Published


def publish_external(workspace: Workspace, release: str = "") -> Edition:
    """The external edition of a release: flow, questionnaires and reasons with small counts hidden, protected together
    with every external edition that is out already. The same release again gives the same edition.

    Raises ReleaseFault for a blinded release, for one whose edition is out by other rules, and where a hidden count
    could be told from what would be out.
    """
    source = _read_source(workspace, release, ("dispositions", "returns"))
    if source.is_blinded:
        raise ReleaseFault(
            [
                f"{source.release} is a blinded edition. Beside an external edition with arms its letters could be "
                "told: make the external edition of a release that is not blinded."
            ]
        )
    name = f"{source.release}-{EXTERNAL}"
    stated = source.study.fieldwork.disclosure_rule
    rule = Rule(stated.threshold, stated.base)
    told_rule = {"threshold": rule.threshold, "base": rule.base, "source": stated.source}
    everything = _read_earlier(workspace)
    for one in everything:
        if one.manifest["edition"] == name:
            if (one.manifest["source"]["manifest_sha256"], one.manifest["rule"]) != (source.manifest_sha256, told_rule):
                raise ReleaseFault(
                    [f"{name} is out already, made by other rules or of other files. Freeze the study again."]
                )
            return _tell(workspace, name, "same", one.protected, one.manifest)
    people, returns, study = source.tables["dispositions"], source.tables["returns"], source.study
    try:
        protected = protect_counts(
            derive_edition_counts(people, returns, study), rule, [one.protected for one in everything]
        )
    except DisclosureFault as fault:
        raise ReleaseFault([f"{name}: {fault}"]) from None
    rows, boxes = find_return_rows(returns, people), derive_flow_boxes(people, study)
    tables = (
        derive_edition_flow(boxes, protected),
        derive_edition_returns(rows, protected, study),
        derive_edition_reasons(rows, protected, study),
    )
    _refuse_telling(name, everything, protected, Published(*tables), rule)
    against = [
        {"edition": one.manifest["edition"], "manifest_sha256": one.manifest_sha256} for one in everything
    ]  # fmt: skip
    manifest: dict[str, Any] = {
        "edition": name,
        "kind": EXTERNAL,
        "number": len(everything) + 1,
        "study": study.study_id,
        "slice": source.manifest["slice"],
        "title": study.title,
        "source": source.describe(),
        "rule": told_rule,
        "protected_against": against,
    }
    files = dict(zip(_TABLES, (encode_flow_table(tables[0]), *map(_encode_table, tables[1:])), strict=True))
    files[PAGE] = _write_external_page(source, manifest, protected, tables, rows)
    # First what the next edition needs to know: an edition that is out and of which this is lost could not be followed.
    workspace.area.put(f"{RECORDS}/{name}.counts.csv", _encode_table(protected.cells))
    workspace.area.put(f"{RECORDS}/{name}.sums.csv", _encode_table(protected.lines))
    answer = _publish(workspace, name, manifest, files)
    return _tell(workspace, name, answer, protected, manifest)


def _tell(
    workspace: Workspace, name: str, answer: str, protected: Protected, manifest: Mapping[str, Any]
) -> Edition:  # fmt: skip
    hidden = protected.cells["hidden"] != ""
    against = tuple(one["edition"] for one in manifest["protected_against"])
    return Edition(name, answer, f"{workspace.area.place}/{EDITIONS}/{name}", len(hidden), int(hidden.sum()), against)


def _publish(workspace: Workspace, name: str, manifest: Mapping[str, Any], files: Mapping[str, bytes]) -> str:
    listed = {key: {"sha256": _hash(content), "bytes": len(content)} for key, content in sorted(files.items())}
    told = {**manifest, "files": listed, "code": derive_code_version()}
    return publish_folder(workspace.area, {**files, MANIFEST: _encode(told)}, f"{EDITIONS}/{name}", last=MANIFEST)


def _read_earlier(workspace: Workspace) -> list[_Earlier]:
    """The external editions that are out, in the order in which they went. Raises ReleaseFault where it is not known
    what one of them hides."""
    found = []
    for name in find_releases(workspace.area, EDITIONS):
        if not name.endswith(f"-{EXTERNAL}"):
            continue
        content = workspace.area.get(f"{EDITIONS}/{name}/{MANIFEST}")
        records = [f"{RECORDS}/{name}.{what}.csv" for what in ("counts", "sums")]
        if not all(workspace.area.has(key) for key in records):
            raise ReleaseFault(
                [f"{workspace.area.place}/{records[0]} is missing: no further edition can be protected beside {name}."]
            )
        cells, lines = (_read_table(workspace.area.get(key)) for key in records)
        tables = (_read_table(workspace.area.get(f"{EDITIONS}/{name}/{table}")) for table in _TABLES)
        found.append(_Earlier(json.loads(content), _hash(content), Protected(cells, lines), Published(*tables)))
    return sorted(found, key=lambda one: int(one.manifest["number"]))


def _refuse_telling(
    name: str, earlier: Sequence[_Earlier], protected: Protected, published: Published, rule: Rule
) -> None:
    """Raises ReleaseFault where a hidden count could be told more closely than the threshold from what is published,
    by a reckoning that shares nothing with the one that hid it."""
    every = [*(one.protected for one in earlier), protected]
    moves = [derive_moves(before, after) for before, after in pairwise(every)]
    sums = [read_sums(one) for one in (*(one.published for one in earlier), published)]
    try:
        told = find_told(sums, rule.threshold, [find_sums(one.lines) for one in every], moves)
    except ValueError as fault:
        raise ReleaseFault([f"{name}: {fault}"]) from None
    if len(told):
        raise ReleaseFault(
            [f"{name} is not published: {len(told):,} hidden counts could be told more closely than {rule.threshold}."]
        )


def _write_external_page(
    source: _Source,
    manifest: Mapping[str, Any],
    protected: Protected,
    tables: tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame],
    rows: pd.DataFrame,
) -> bytes:
    study, (boxes, returns, reasons) = source.study, tables
    figures = boxes.assign(n=boxes["n"].astype("Float64").astype("float64"))
    flow = describe_for_page(source.tables["dispositions"].iloc[:0], figures, study)  # its notes hold exact counts
    for table in flow["tables"]:
        for row in table["rows"]:
            row["counts"] = [None if n is None else show_count(n) for n in row["counts"]]
    hidden = protected.cells["hidden"] != ""
    return render_page(
        "external_edition.html.jinja",
        title=f"{study.title}: external edition of release {source.release}",
        study=study,
        slice_name=source.manifest["slice"],
        release=source.release,
        as_of=format_day(source.as_of),
        rule=manifest["rule"],
        against=manifest["protected_against"],
        n_counts=len(hidden),
        n_hidden=int(hidden.sum()),
        flow=flow,
        waves=_describe_waves(returns, study),
        sites=_describe_groups(returns, study, "site"),
        cohorts=_describe_groups(returns, study, "cohort") if len(list_groups(rows, study)["cohort"]) > 1 else [],
        reasons=_describe_reasons(reasons, rows, study),
    )


def _find_labels(study: Study) -> dict[str, str]:
    labels = {wave.id: wave.label for wave in study.waves} | {arm.id: arm.label for arm in study.arms}
    labels |= {site.site_id: site.name for site in study.sites} | {one.id: one.label for one in study.cohorts}
    return labels | {ALL: "All", "not_known": "Not known"}


def _show_pct(value: Any) -> str:
    return "*" if pd.isna(value) else f"{float(value):.0f} %"


def _describe_waves(returns: pd.DataFrame, study: Study) -> list[dict[str, Any]]:
    """A table for each respondent: waves as rows, and for all and each arm what was returned of what was expected."""
    labels, described = _find_labels(study), []
    groups = list(dict.fromkeys(zip(returns["by"], returns["group"], strict=True)))
    shown = [(by, group) for by, group in groups if by in ("all", "arm")]
    for respondent, own in returns.groupby("respondent", sort=False):
        cells: Any = own.set_index(["wave", "by", "group"]).loc
        rows = []
        for wave in dict.fromkeys(own["wave"]):
            texts: list[str] = []
            for by, group in shown:
                row = cells[(wave, by, group)]
                nothing = not pd.isna(row["expected"]) and row["expected"] == 0
                texts += [show_count(row["expected"]), show_count(row["returned"])]
                texts.append("–" if nothing else _show_pct(row["returned_pct"]))
            rows.append({"label": labels[str(wave)], "texts": texts})
        described.append({"respondent": respondent, "groups": [labels[group] for _, group in shown], "rows": rows})
    return described


def _describe_groups(returns: pd.DataFrame, study: Study, by: str) -> list[dict[str, Any]]:
    """A table for each respondent: groups as rows, waves as columns, in the cells "returned / expected"."""
    labels, described = _find_labels(study), []
    for respondent, own in returns[returns["by"] == by].groupby("respondent", sort=False):
        waves = list(dict.fromkeys(own["wave"]))
        cells = own.set_index(["group", "wave"])
        rows = [
            {
                "label": labels.get(str(group), str(group)),
                "texts": [
                    f"{show_count(cells.loc[(group, wave), 'returned'])} / "
                    f"{show_count(cells.loc[(group, wave), 'expected'])}"
                    for wave in waves
                ],
            }
            for group in dict.fromkeys(own["group"])
        ]
        described.append({"respondent": respondent, "waves": [labels[str(wave)] for wave in waves], "rows": rows})
    return described


def _describe_reasons(reasons: pd.DataFrame, rows: pd.DataFrame, study: Study) -> list[dict[str, Any]]:
    """A table for each respondent: reasons as rows, waves as columns, over all arms."""
    labels, words, described = _find_labels(study), list_reasons(rows, study), []
    for respondent, own in reasons[reasons["by"] == "all"].groupby("respondent", sort=False):
        waves = list(dict.fromkeys(own["wave"]))
        counts = {(reason, wave): n for reason, wave, n in own[["reason", "wave", "n"]].itertuples(index=False)}
        table = [
            {"label": words[code], "texts": [show_count(counts[(code, wave)]) for wave in waves]}
            for code in dict.fromkeys(own["reason"])
        ]
        described.append({"respondent": respondent, "waves": [labels[str(wave)] for wave in waves], "rows": table})
    return described


# Reports for a monitoring committee ---------------------------------------------------------------------------------


def publish_committee_report(workspace: Workspace, release: str, part: Part) -> Edition:
    """A report for a monitoring committee from a release, blinded or not: `open` pools the arms and names none,
    `closed` shows masked letters. What they stand for stays sealed. Raises ReleaseFault.

    A closed report has exact counts, as the committee needs them. So whoever has a release with the arms can tell the
    letters by comparing; the page says so where it was made from one, and `matched_by` names those that are there.
    """
    source = _read_source(workspace, release, ("participants", "dispositions", "returns", "responses", "scores"))
    study, tables = source.study, source.tables
    letters = draw_letters(workspace, study) if part == "closed" or source.is_blinded else {}
    if letters:
        study = mask_study(study, letters)
    if letters and not source.is_blinded:
        tables = {name: mask_arms(frame, letters) for name, frame in tables.items()}
    if part == "open":
        study = study.model_copy(update={"arms": (), "assumptions": ()})
        tables = {name: _pool(frame) for name, frame in tables.items()}
    name = f"{source.release}-committee-{part}"
    page = _write_committee_page(source, study, tables, part)
    manifest = {
        "edition": name,
        "kind": f"committee_{part}",
        "study": study.study_id,
        "slice": source.manifest["slice"],
        "title": study.title,
        "source": source.describe(),
        "letters": sorted(letters.values()) if part == "closed" else [],
    }
    with_arms = [one for one in find_releases(workspace.area, RELEASES) if f"-{BLINDED}" not in one]
    standing, answer = f"{EDITIONS}/{name}/{MANIFEST}", "same"
    if not workspace.area.has(standing) or json.loads(workspace.area.get(standing))["source"] != manifest["source"]:
        answer = _publish(workspace, name, manifest, {PAGE: page})
    return Edition(
        name,
        answer,
        f"{workspace.area.place}/{EDITIONS}/{name}",
        matched_by=tuple(with_arms if part == "closed" else ()),
    )


def _pool(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame with everybody who is in an arm in one and the same."""
    if "arm" not in frame.columns:
        return frame
    return frame.assign(arm=pd.Series("pooled", frame.index, dtype="str").where(frame["arm"].notna()))


def _write_committee_page(
    source: _Source, study: Study, tables: Mapping[str, pd.DataFrame], part: Part
) -> bytes:  # fmt: skip
    people, responses = tables["dispositions"], tables["responses"]
    rows, labels = find_return_rows(tables["returns"], people), _find_labels(study)
    boxes = derive_flow_boxes(people, study)
    by_month, by_site = derive_recruitment(people, study)
    common: dict[str, Any] = {
        "study": study,
        "slice_name": source.manifest["slice"],
        "release": source.release,
        "as_of": format_day(source.as_of),
        "part": part,
        "is_blinded": source.is_blinded,
    }
    if part == "open":
        pooled = boxes[boxes["group"] == ALL]
        return render_page(
            "committee_report.html.jinja",
            title=f"{study.title}: open report",
            **common,
            flow_tables=_drop_empty(list_table(pooled, study)),
            months=by_month.to_dict("records"),
            sites=[{**row, "label": labels[row["site"]]} for row in by_site.to_dict("records")],
            retention=_describe_retention(derive_retention(rows, study, "all"), labels),
            reasons=_describe_why(derive_why_missing(rows, study, "all"), rows, study, labels),
            quality=_describe_quality(source, responses, tables["returns"]),
            means=[],
            n_telling_sites=0,
        )
    return render_page(
        "committee_report.html.jinja",
        title=f"{study.title}: closed report",
        **common,
        flow_tables=[table for table in list_table(boxes, study) if table["title"] != "Enrolment"],
        months=[],
        sites=[],
        retention=_describe_retention(derive_retention(rows, study, "arm"), labels),
        reasons=_describe_why(derive_why_missing(rows, study, "arm"), rows, study, labels),
        quality=None,
        means=_describe_means(source, tables, study),
        n_telling_sites=find_telling_sites(tables["participants"]),
    )


def _drop_empty(tables: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return [table for table in tables if table["rows"]]


def _describe_retention(table: pd.DataFrame, labels: Mapping[str, str]) -> list[dict[str, Any]]:
    described = []
    for respondent, own in table.groupby("respondent", sort=False):
        groups = list(dict.fromkeys(own["group"]))
        cells = own.set_index(["wave", "group"])
        rows = []
        for wave in dict.fromkeys(own["wave"]):
            texts: list[str] = []
            for group in groups:
                row = cells.loc[(wave, group)]
                texts += [f"{int(row[name]):,}" for name in ("expected", "returned", "awaited", "missing")]
                texts.append("–" if pd.isna(row["returned_pct"]) else f"{row['returned_pct']:.0f} %")
            rows.append({"label": labels[str(wave)], "texts": texts})
        described.append(
            {"respondent": respondent, "groups": [labels.get(str(one), str(one)) for one in groups], "rows": rows}
        )
    return described


def _describe_why(
    table: pd.DataFrame, rows: pd.DataFrame, study: Study, labels: Mapping[str, str]
) -> dict[str, Any]:  # fmt: skip
    words, groups = list_reasons(rows, study), [name for name in table.columns if name != "reason"]
    return {
        "groups": [labels.get(str(group), str(group)) for group in groups],
        "rows": [
            {"label": words[row["reason"]], "texts": [f"{row[group]:,}" for group in groups]}
            for row in table.to_dict("records")
        ],
    }


def _describe_quality(source: _Source, responses: pd.DataFrame, returns: pd.DataFrame) -> dict[str, Any]:
    answers = derive_missing_answers(derive_records(responses), source.study)
    timing = returns.loc[returns["returned"] == 1, "timing"].value_counts()
    outcomes = pd.Series([entry["outcome"] for entry in source.manifest["returns"]], dtype="str").value_counts()
    left_out = source.manifest["without_consent"]
    return {
        "answers": [
            {
                "label": source.instruments[row["instrument"]].title,
                "n_items": row["n_items"],
                "n_answered": row["n_answered"],
                "pct": f"{100 * row['n_answered'] / row['n_items']:.1f} %",
            }
            for row in answers.to_dict("records")
        ],
        "timing": [{"label": words, "n": int(timing.get(code, 0))} for code, words in TIMINGS.items()],
        "files": [{"label": str(code).replace("_", " "), "n": int(n)} for code, n in outcomes.sort_index().items()],
        "left_out": [
            {"label": LEFT_OUT_WORDS[row["reason"]], "n": row["n_records"]} for row in left_out["reasons"]
        ],
        "n_left_out": left_out["n_records"],
    }  # fmt: skip


def _describe_means(
    source: _Source, tables: Mapping[str, pd.DataFrame], study: Study
) -> list[dict[str, Any]]:  # fmt: skip
    """A table for each scale that no other scale is made of: waves of the protocol as rows, by letter n, mean, SD."""
    means, described = derive_means(tables["scores"], tables["participants"], study), []
    labels = _find_labels(study)
    for (instrument_id, scale_id, respondent), own in means.groupby(["instrument", "scale", "respondent"], sort=False):
        instrument = source.instruments[str(instrument_id)]
        scale = instrument.find_scale(str(scale_id))
        if scale is None or any(scale.id in other.items for other in instrument.scales):
            continue
        cells = {(row["wave"], row["arm"]): row for row in own.to_dict("records")}
        rows = []
        for wave in dict.fromkeys(own["wave"]):
            if wave not in labels:
                continue
            texts: list[str] = []
            for arm in study.arms:
                cell = cells.get((wave, arm.id))
                texts += (
                    ["0", "–", "–"]
                    if cell is None
                    else [f"{cell['n']:,}", f"{cell['mean']:.2f}", "–" if pd.isna(cell["sd"]) else f"{cell['sd']:.2f}"]
                )
            rows.append({"label": labels[str(wave)], "texts": texts})
        title = f"{instrument.title}: {scale.label}, answered by {respondent}"
        described.append({"title": title, "groups": [arm.label for arm in study.arms], "rows": rows})
    return described


def open_letters(
    workspace: Workspace, release: str, *, reason: str, role: str, requested_by: str, reference: str = ""
) -> Mapping[str, str]:
    """The label of each letter's arm of a blinded release, by a named role's decision, which is recorded first."""
    source = _read_source(workspace, release, ())
    if not source.is_blinded:
        raise ReleaseFault([f"{source.release} is not blinded: its arms stand in it."])
    arms = unmask_arms(
        workspace, source.study, source.release, reason=reason, role=role, requested_by=requested_by,
        reference=reference,
    )  # fmt: skip
    labels = {arm.id: arm.label for arm in source.study.arms}
    return {letter: labels[arm] for letter, arm in arms.items()}
