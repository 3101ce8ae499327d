"""What may go to which site today, what is held and why, and what waits for the word of a coordinator.

A plan is drawn up afresh from the ledger each time; nothing is scheduled ahead. Five judgement calls:

- More questionnaires of one wave at one site than its `at_once`, those of the same day counted in, wait all together:
  the first sixty of a flood would be a flood of sixty a day.
- A questionnaire that was due before it was ever sent is a backlog, whether it was imported or its site joined late. It
  waits too, however few they are.
- Who asks for waves by name, having been shown the plan, gives that word. What is held is beyond anybody's word here.
- What may go within a release's `gather` goes along when a pack goes anyway, and makes no pack by itself: a site gets
  one pack for some weeks, and not one a week.
- A claim that was never delivered, and whose files are not in the outbox, is as if it had never been: its rows are
  planned anew. What had a person's word before it keeps it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from functools import cached_property
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute

from study.calendar import add_months, add_period
from study.consent import derive_consents
from study.events import (
    ActivityReported,
    ConsentRecorded,
    Event,
    IdentifiersIssued,
    PackClaimed,
    PackDelivered,
    ParticipantApproached,
    ParticipantScreened,
    ReturnReleased,
    Voided,
)
from study.gate import open_gate
from study.holds import NOT_YET
from study.identifiers import Block, derive_block, list_block
from study.packs import PackPlan, Purpose, add_what_is_open, derive_pack_id
from study.participation import derive_stops
from study.protocol import Site, Study
from study.queries import find_unanswered_queries
from study.state import Events, Head, derive_frame, derive_queries
from study.waves import derive_expected_returns

pc: Any = pyarrow.compute  # its stubs know neither chunked arrays in every place nor plain values as scalars

RETURN = ["participant_id", "respondent", "wave"]
"""What names a questionnaire that is owed."""
COPY = [*RETURN, "copy_number"]

GOES, WAITS, HELD = DECISIONS = ("goes", "waits", "held")
WORDS = {
    "on_request": "This wave goes out only when a coordinator sends it.",
    "backlog": "It was due before it was ever sent.",
    "at_once": "More of this wave than the study sends to one site at once.",
}
"""Why something waits for a coordinator's word."""

_ROW_COLUMNS = [
    *("participant_id", "site_id", "body_id", "cohort", "arm", "wave", "respondent", "form", "instruments"),
    *("anchor_on", "opens_on", "due_on", "closes_on", "late_until", "release_from", "holds", "n_copies"),
    *("copy_number", "decision", "word"),
]


@dataclass(frozen=True)
class ReleasePlan:
    """What would go where, from the ledger up to `head`.

    `rows`: one row per questionnaire that is due to go: the columns of `derive_expected_returns` that a pack tells,
    then copy_number, decision (goes, waits or held) and word (codes of WORDS joined with ";": why a person is asked).
    """

    study: Study
    events: Events
    as_of: date
    waves: tuple[str, ...]
    sites: tuple[str, ...]
    is_scheduled: bool
    second_copies: pd.DataFrame | None
    rows: pd.DataFrame
    _divided: dict[str, dict[str, pd.DataFrame]] = field(default_factory=dict, repr=False)

    @cached_property
    def blocks(self) -> pd.DataFrame:
        """The new identifiers that each site needs: site_id, first_number, n_numbers."""
        return derive_blocks(self.study, self.events, self.as_of, self.sites)

    @cached_property
    def queries(self) -> pd.DataFrame:
        """Those open at the sites."""
        queries = find_unanswered_queries(derive_queries(self.events.select(as_of=self.as_of)))
        return queries[queries["site_id"].isin(self.sites)].reset_index(drop=True)

    @cached_property
    def figures(self) -> pd.DataFrame:
        """Months of activity figures that the sites owe: site_id, figure, month, due_on."""
        return derive_owed_figures(self.study, self.events, self.as_of, self.sites)

    @cached_property
    def consents(self) -> pd.DataFrame:
        """As from `derive_consents`, of all sites."""
        return derive_consents(self.study, self.events, self.as_of)

    @cached_property
    def stops(self) -> pd.DataFrame:
        """As from `derive_stops`, of all sites."""
        return derive_stops(self.study, self.events, self.as_of)

    def take_rows_of(self, name: str, site_id: str) -> pd.DataFrame:
        """The rows of one site of a frame above, with a fresh index."""
        frame: pd.DataFrame = getattr(self, name)
        if name not in self._divided:
            self._divided[name] = {str(site): rows for site, rows in frame.groupby("site_id", sort=False)}
        return self._divided[name].get(site_id, frame.iloc[:0]).reset_index(drop=True)

    @property
    def head(self) -> Head:
        return self.events.head

    @cached_property
    def going(self) -> pd.DataFrame:
        return self.rows[self.rows["decision"] == GOES]

    @property
    def n_going(self) -> int:
        """How many questionnaires go: the count that a coordinator confirms."""
        return len(self.going)

    @cached_property
    def sites_with_work(self) -> list[str]:
        """The sites that get a pack, in the study's order: questionnaires go to them or, in the daily round, they are
        running out of identifiers."""
        wanted = set(self.going["site_id"])
        if self.is_scheduled:
            wanted |= set(self.blocks["site_id"])
        return [site_id for site_id in self.sites if site_id in wanted]

    def find_keys(self, site_id: str) -> set[tuple[Any, ...]]:
        """What goes to a site: participant, respondent, wave and number of the copy."""
        own = self.take_rows_of("going", site_id)
        return set(own[COPY].itertuples(index=False, name=None))

    def count(self) -> pd.DataFrame:
        """How many go, wait and are held: one row per site and wave of which anything is due, with a column each."""
        counts = self.rows.groupby(["site_id", "wave", "decision"], sort=False).size().unstack(fill_value=0)
        counts = counts.reindex(columns=list(DECISIONS), fill_value=0).reset_index()
        return counts.rename_axis(columns=None)


def plan_release(
    study: Study,
    events: Events,
    as_of: date,
    waves: Sequence[str] = (),
    sites: Sequence[str] = (),
    *,
    is_scheduled: bool = False,
    second_copies: pd.DataFrame | None = None,
    agreed: Collection[tuple[Any, ...]] = (),
) -> ReleasePlan:
    """What may go on a day: of these waves to these sites (none named: all of them).

    `is_scheduled`: nobody asked, so only what the study sends by itself goes. `second_copies`: questionnaires of which
    a ladder encloses another copy (RETURN, and copy_number where it is not 2); one that has had that copy gets none.
    `agreed`: rows (COPY) for which the word was given before; they are planned whatever else is asked for. Raises
    ValueError for a wave or site that the study does not have.
    """
    known_waves, known_sites = [wave.id for wave in study.waves], [site.site_id for site in study.sites]
    for named, known in ((waves, known_waves), (sites, known_sites)):
        if strangers := sorted(set(named) - set(known)):
            raise ValueError(f"{study.study_id} has no {', '.join(strangers)}. It has {', '.join(known)}.")
    wave_ids = tuple(wave for wave in known_waves if wave in waves or not waves)
    site_ids = tuple(site for site in known_sites if site in sites or not sites)
    expected = derive_expected_returns(study, events, as_of)
    expected = expected[expected["site_id"].isin(site_ids)]
    before = pd.DataFrame(sorted(agreed), columns=COPY).astype({"copy_number": "int64"})
    copies = pd.concat([pd.DataFrame(columns=RETURN) if second_copies is None else second_copies, before])
    rows = pd.concat([_find_due(study, expected, as_of), _find_second_copies(expected, copies)], ignore_index=True)
    rows["is_gathered"] = rows["is_gathered"].eq(True)
    rows["is_agreed"] = pd.MultiIndex.from_frame(rows[COPY]).isin(list(agreed))
    rows = _decide(study, rows[rows["is_agreed"] | rows["wave"].isin(wave_ids)], expected, as_of, is_scheduled)
    rows = _drop_lonely(rows)
    order = {name: n for n, name in enumerate([*site_ids, *known_waves])}
    by = ["site_id", "wave", "participant_id", "respondent", "copy_number"]
    rows = rows.sort_values(by, key=lambda c: c.map(order) if c.name in by[:2] else c, ignore_index=True)
    return ReleasePlan(
        study=study,
        events=events,
        as_of=as_of,
        waves=wave_ids,
        sites=site_ids,
        is_scheduled=is_scheduled,
        second_copies=second_copies,
        rows=rows[_ROW_COLUMNS],
    )


def _find_due(study: Study, expected: pd.DataFrame, as_of: date) -> pd.DataFrame:
    """What never went and may go today, and what is held; and, as `is_gathered`, what may go along with the rest."""
    until = {release.wave: pd.Timestamp(add_period(as_of, release.gather)) for release in study.fieldwork.releases}
    is_new = (expected["n_copies"] == 0) & expected["wave"].isin(list(until))
    is_due = (expected["holds"] == "") | (expected["status"] == "held")
    is_near = (expected["holds"] == NOT_YET) & (expected["release_from"] <= pd.to_datetime(expected["wave"].map(until)))
    rows = expected[is_new & (is_due | is_near)].assign(copy_number=1)
    rows["is_gathered"] = is_near
    rows["holds"] = rows["holds"].mask(rows["is_gathered"], "")
    return rows


def _drop_lonely(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows without what would go along with nothing."""
    sites = rows.loc[(rows["decision"] == GOES) & ~rows["is_gathered"], "site_id"].unique()
    return rows[~rows["is_gathered"] | ((rows["decision"] == GOES) & rows["site_id"].isin(sites))]


def _find_second_copies(expected: pd.DataFrame, wanted: pd.DataFrame) -> pd.DataFrame:
    """Of what went and has not come back in full, the copies that are wanted and have not been sent yet."""
    numbers = wanted["copy_number"].fillna(2).astype("int64")
    keys = wanted[RETURN].assign(copy_number=numbers).loc[numbers > 1].drop_duplicates(RETURN)
    found = expected.merge(keys, on=RETURN)
    is_out = found["status"].isin(["released", "partial"]) & (found["n_copies"] == found["copy_number"] - 1)
    # That it went out already is what makes it a second copy; every other hold holds that too.
    others = [";".join(code for code in holds.split(";") if code != "already_released") for holds in found["holds"]]
    return found.assign(holds=pd.Series(others, found.index, "str"))[is_out]


def _decide(
    study: Study,
    rows: pd.DataFrame,
    expected: pd.DataFrame,
    as_of: date,
    is_scheduled: bool,
) -> pd.DataFrame:
    """The rows (with is_agreed) and their decision and word."""
    rules = {release.wave: release for release in study.fieldwork.releases}
    today, place = pd.Timestamp(as_of), ["site_id", "wave"]
    is_first, is_free = rows["copy_number"] == 1, rows["holds"] == ""
    asked_for = [release.wave for release in study.fieldwork.releases if release.mode == "on_request"]
    asks = {
        "on_request": is_first & rows["wave"].isin(asked_for) & is_scheduled,
        "backlog": is_first & (rows["due_on"] < today),
    }
    counted = is_first & is_free
    if is_scheduled:
        counted &= rows["is_agreed"] | ~(asks["on_request"] | asks["backlog"])
    n_here = rows[counted].groupby(place).size()
    n_sent = expected[expected["released_on"] == today].groupby(place).size()
    n_at_once = n_here.add(n_sent, fill_value=0).reindex(n_here.index)
    limits = n_at_once.index.get_level_values("wave").map({wave: rule.at_once for wave, rule in rules.items()})
    too_many = n_at_once.index[n_at_once.to_numpy() > limits.to_numpy()]
    asks["at_once"] = counted & pd.MultiIndex.from_frame(rows[place]).isin(too_many)
    words = pd.DataFrame({name: is_asked & ~rows["is_agreed"] for name, is_asked in asks.items()}, index=rows.index)
    joined = words.dot(pd.Series({name: f"{name};" for name in words})).str.rstrip(";") if len(rows) else ""
    rows = rows.assign(word=joined, decision=GOES)
    if is_scheduled:
        rows["decision"] = rows["decision"].mask(rows["word"] != "", WAITS)
    rows["decision"] = rows["decision"].mask(~is_free, HELD)
    return rows


# What else a pack holds ---------------------------------------------------------------------------------------------


def derive_blocks(study: Study, events: Events, as_of: date, sites: Sequence[str]) -> pd.DataFrame:
    """The block of new identifiers for each site that may approach people and has fewer than half a block unused.

    Columns: site_id, first_number, n_numbers. A site counts as one that may approach if it may under one of its bodies.
    An identifier is used once anything was recorded of it, voided or not. Numbers of a pack that never went out are
    not at the site, and yet never given again. Nobody needs any after the last day of data collection.
    """
    rule, columns = study.fieldwork.identifier_rule, ["site_id", "first_number", "n_numbers"]
    if rule is None or as_of > study.data_collection_ends_on:
        return pd.DataFrame(columns=columns)
    issued, gate = _list_issued(events), open_gate(study, events, as_of)
    lost, used = _find_lost_blocks(events), _list_used(events)
    found = []
    for site in study.sites:
        bodies = [body.id for body in site.bodies] or [""]
        if site.site_id not in sites or not any(gate.ask("approach", site.site_id, body).is_allowed for body in bodies):
            continue
        own = issued[issued["site_id"] == site.site_id]
        n_unused = sum(
            identifier not in used
            for block in own[["first", "n"]].itertuples(index=False, name=None)
            if (site.site_id, block[0]) not in lost
            for identifier in list_block(rule, site.code, Block(*block))
        )
        block = _find_free_block(study, site, own, used) if 2 * n_unused < rule.block else None
        if block is not None:
            found.append((site.site_id, *block))
    return pd.DataFrame(found, columns=columns)


def _find_free_block(study: Study, site: Site, issued: pd.DataFrame, used: set[str]) -> Block | None:
    """The next block of a site in which nothing is used: imported lists and slips of the hand use numbers that nobody
    issued, and to give them again would make two people one. None where the numbers are used up."""
    rule = study.fieldwork.identifier_rule
    first = int((issued["first"] + issued["n"]).max()) if len(issued) else 1
    while rule is not None and (n := min(rule.block, 10**rule.digits - first)) > 0:
        identifiers = list_block(rule, site.code, Block(first, n))
        taken = [place for place, each in enumerate(identifiers) if each in used]
        if not taken:
            passed = pd.DataFrame({"site_id": [site.site_id], "first": [1], "n": [first - 1]})
            return derive_block(study, site, pd.concat([issued, passed]))
        first += taken[-1] + 1
    return None


def _list_used(events: Events) -> set[str]:
    """Every identifier of which anything was ever recorded."""
    tables = [events.tables[kind.kind] for kind in _FIRST_WORDS_OF_A_PERSON if kind.kind in events.tables]
    return set[str]().union(*(pc.unique(table["participant_id"]).to_pylist() for table in tables))


def _list_issued(events: Events) -> pd.DataFrame:
    """Every block that was ever issued, voided ones among them: site_id, first, n."""
    table = events.tables.get(IdentifiersIssued.kind)
    if table is None:
        return pd.DataFrame({"site_id": [], "first": [], "n": []}).astype({"first": "int64", "n": "int64"})
    frame: pd.DataFrame = table.select(["site_id", "first", "n"]).to_pandas()
    return frame


def _find_lost_blocks(events: Events) -> set[tuple[str, int]]:
    """Site and first number of the blocks whose pack was claimed and did not go out, voided claims among them."""
    claims = events.tables.get(PackClaimed.kind)
    if claims is None:
        return set()
    delivered = events.table(PackDelivered)["pack_id"]
    lost = claims.filter(pc.and_(pc.greater(claims["n_numbers"], 0), pc.invert(pc.is_in(claims["pack_id"], delivered))))
    return {(str(row["site_id"]), int(row["first_number"])) for row in lost.to_pylist()}


_FIRST_WORDS_OF_A_PERSON = (ParticipantScreened, ParticipantApproached, ConsentRecorded)


def derive_owed_figures(study: Study, events: Events, as_of: date, sites: Sequence[str]) -> pd.DataFrame:
    """Months that are over and of which a site has not reported a figure to both: site_id, figure, month, due_on.

    Only sites that have approached, screened or enrolled somebody owe any.
    """
    columns = ["site_id", "figure", "month", "due_on"]
    view = events.select(as_of=as_of)
    active = set[str]().union(
        *(pc.unique(view.table(kind)["site_id"]).to_pylist() for kind in _FIRST_WORDS_OF_A_PERSON)
    )
    owed = pd.DataFrame(
        [
            (site_id, figure.id, f"{month:%Y-%m}", pd.Timestamp(add_period(add_months(month, 1), figure.due)))
            for site_id in sites
            if site_id in active
            for figure in study.fieldwork.figures
            for month in _list_months(figure.from_month, figure.until_month)
            if add_months(month, 1) <= as_of
        ],
        columns=columns,
    )
    told = view.frame(ActivityReported).groupby(columns[:3])["reported_to"].nunique()
    complete = told.index[told.to_numpy() == 2]
    return owed[~pd.MultiIndex.from_frame(owed[columns[:3]]).isin(complete)].reset_index(drop=True)


def _list_months(first: str, last: str) -> list[date]:
    month, until = (date.fromisoformat(f"{text}-01") for text in (first, last))
    months = []
    while month <= until:
        months.append(month)
        month = add_months(month, 1)
    return months


def compose_pack(
    plan: ReleasePlan, site_id: str, *, is_blank: bool = False, is_wanted: bool = False
) -> PackPlan | None:
    """The pack of one site and sending; None where nothing goes to it, unless it `is_wanted` all the same.

    `is_blank`: without questionnaires, whatever else is due.
    """
    rows = plan.take_rows_of("going", site_id)
    if is_blank:
        rows = rows.iloc[:0]
    elif site_id not in plan.sites_with_work and not is_wanted:
        return None
    block = plan.take_rows_of("blocks", site_id)
    first_number, n_numbers = (int(block[name].iloc[0]) if len(block) else 0 for name in ("first_number", "n_numbers"))
    purpose: Purpose = "blank" if not len(rows) else "replacement" if (rows["copy_number"] > 1).all() else "wave"
    pack = PackPlan(
        pack_id=derive_pack_id(site_id, plan.as_of, _count_packs(plan.events, site_id, plan.as_of) + 1),
        site_id=site_id,
        as_of=plan.as_of,
        purpose=purpose,
        rows=rows,
        queries=plan.take_rows_of("queries", site_id),
        consents=plan.take_rows_of("consents", site_id),
        stop_list=plan.take_rows_of("stops", site_id),
        figures=plan.take_rows_of("figures", site_id),
        first_number=first_number,
        n_numbers=n_numbers,
    )
    return add_what_is_open(plan.study, plan.events, pack)


def _count_packs(events: Events, site_id: str, on: date) -> int:
    """How many packs a site was ever given that day, voided ones too: no two share a name."""
    table = events.tables.get(PackClaimed.kind)
    if table is None:
        return 0
    on_the_day = pc.equal(table["occurred_on"], pa.scalar(on).cast(table["occurred_on"].type))
    return len(table.filter(pc.and_(on_the_day, pc.equal(table["site_id"], site_id))))


# Claims -------------------------------------------------------------------------------------------------------------


def derive_claim(
    study: Study, pack: PackPlan, requested_by: str, sha256: str, file_name: str, letters_sha256: str = ""
) -> list[Event]:
    """What claims a pack: the pack, the numbers that it gives, and each questionnaire, with the dates that it tells."""
    about: Mapping[str, Any] = {"occurred_on": pack.as_of, "requested_by": requested_by, "site_id": pack.site_id}
    events: list[Event] = [
        PackClaimed(
            **about,
            pack_id=pack.pack_id,
            purpose=pack.purpose,
            waves=tuple(pack.rows["wave"].unique()),
            n_returns=len(pack.rows),
            n_queries=len(pack.queries),
            first_number=pack.first_number,
            n_numbers=pack.n_numbers,
            sha256=sha256,
            letters_sha256=letters_sha256,
            file_name=file_name,
            protocol_version=study.protocol_version,
        )
    ]
    if pack.n_numbers:
        events.append(IdentifiersIssued(**about, first=pack.first_number, n=pack.n_numbers))
    for row in pack.rows.to_dict("records"):
        events.append(
            ReturnReleased(
                **about,
                pack_id=pack.pack_id,
                **{name: row[name] for name in ("participant_id", "respondent", "wave", "copy_number", "form")},
                instruments=tuple(row["instruments"].split(";")),
                **{name: row[name].date() for name in ("opens_on", "due_on", "late_until")},
            )
        )
    return events


def find_open_claims(events: Events, site_id: str = "") -> pd.DataFrame:
    """Packs that were claimed and, as far as anybody knows, not delivered, oldest first; the columns of PackClaimed."""
    claims, delivered = (
        events.table_of_site(kind, site_id) if site_id else events.table(kind) for kind in (PackClaimed, PackDelivered)
    )
    return derive_frame(claims.filter(pc.invert(pc.is_in(claims["pack_id"], delivered["pack_id"]))))


def find_claimed_rows(events: Events, pack_id: str) -> pd.DataFrame:
    """What a pack was to release, with the columns of ReturnReleased."""
    rows = events.frame(ReturnReleased)
    return rows[rows["pack_id"] == pack_id].reset_index(drop=True)


def derive_voids(events: Events, pack_id: str, as_of: date, requested_by: str) -> list[Event]:
    """What takes back a claim: voids of the pack and of everything that it would have released.

    The numbers that it would have given stay given, so that they can be given to no other: the next pack has new ones.
    """
    claims = events.frame(PackClaimed)
    hashes = [*claims.loc[claims["pack_id"] == pack_id, "hash"], *find_claimed_rows(events, pack_id)["hash"]]
    return [Voided(occurred_on=as_of, requested_by=requested_by, voids=each, reason="superseded") for each in hashes]
