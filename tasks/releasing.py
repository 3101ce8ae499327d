"""Send packs to the sites: claim what goes, put it into the outbox, record that it lies there.

A pack is claimed in one append with every questionnaire that it releases, under the ledger's lock and only if nothing
that concerns its people, its site or the study is newer than what was decided on; no switch turns that off. The files
are kept before the claim, put into the outbox after it, and `PackDelivered` is recorded last. A claim without that is
one whose run died or whose store failed, and the next run takes it up. While a site is served, no other run of the
study sends anything, so nobody takes up what is still under way.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import date
from typing import Any

import pandas as pd

from study.calendar import format_day, london_day
from study.events import STEPS_OF_SENDING, PackDelivered, Voided
from study.packs import PackPlan
from study.releasing import (
    COPY,
    ReleasePlan,
    compose_pack,
    derive_claim,
    derive_voids,
    find_claimed_rows,
    find_open_claims,
    plan_release,
)
from tasks.ahead import begin, has_other_processes
from tasks.files import FileFault
from tasks.ledger import LedgerRefused, SendingBusy
from tasks.packs import PackFiles, find_pack_name, write_pack_files
from tasks.page_links import link_pages
from tasks.release_plan_page import write_release_plan_page, write_release_plan_workbook
from tasks.workspace import Workspace

PLAN_PAGE = "pages/release_plan.html"
PLAN_WORKBOOK = "pages/release_plan.xlsx"
_PATIENCE_SECONDS = 300.0  # another run that sends holds the lock for as long as a site takes, or a batch of messages


class ReleaseRefused(LedgerRefused):
    """Why a pack does not go, and what to do."""


@dataclass(frozen=True)
class Claim:
    """A pack that was claimed, as the ledger holds it: what must lie in the outbox for it to count as delivered."""

    pack_id: str
    site_id: str
    key: str
    hash: str
    file_name: str
    sha256: str
    letters_sha256: str

    @property
    def files(self) -> list[tuple[str, str]]:
        """Name in the outbox and SHA-256, in the order in which they are put there: the workbook last, since it is
        what shows that the pack is complete."""
        letters = [(f"{self.file_name.removesuffix('.xlsx')}_letters.html", self.letters_sha256)]
        return [*(letters if self.letters_sha256 else []), (self.file_name, self.sha256)]


@dataclass(frozen=True)
class Released:
    """What became of a release: counts by site, and for each site that was not served a sentence."""

    counts: dict[str, Counter[str]]
    failures: list[str]


# Planning -----------------------------------------------------------------------------------------------------------


def draw_up_plan(
    workspace: Workspace,
    as_of: date,
    waves: Sequence[str] = (),
    sites: Sequence[str] = (),
    *,
    is_scheduled: bool = False,
    second_copies: pd.DataFrame | None = None,
) -> ReleasePlan:
    """What would go where, from the ledger as it is now. Nothing is sent, nothing recorded."""
    return plan_release(
        workspace.study,
        workspace.read_events(),
        as_of,
        waves,
        sites,
        is_scheduled=is_scheduled,
        second_copies=second_copies,
    )


@dataclass(frozen=True)
class _Kept:
    """A plan that is being carried out, and the packs by it whose files were begun ahead, by site."""

    plan: ReleasePlan
    begun: Mapping[str, tuple[PackPlan, Callable[[], PackFiles]]]


_kept: dict[str, _Kept] = {}


@contextmanager
def keep_plan(workspace: Workspace, plan: ReleasePlan) -> Iterator[None]:
    """While this lasts, the steps of a run in this process find its plan: one fold for all sites, and nothing about
    people passes through Prefect. Where other processes are lent, they begin with the packs."""
    before = _kept.get(workspace.name)
    _kept[workspace.name] = _Kept(plan, _begin_packs(workspace, plan) if has_other_processes() else {})
    try:
        yield
    finally:
        if before is None:
            del _kept[workspace.name]
        else:
            _kept[workspace.name] = before


def _begin_packs(workspace: Workspace, plan: ReleasePlan) -> dict[str, tuple[PackPlan, Callable[[], PackFiles]]]:
    begun = {}
    for site_id in plan.sites_with_work:
        with suppress(Exception):  # the site's own step meets it again, and stops no other site
            pack = compose_pack(plan, site_id)
            if pack is not None:
                files = begin(write_pack_files, workspace.study, workspace.instruments, pack, workspace.layout)
                begun[site_id] = (pack, files)
    return begun


def find_plan(workspace: Workspace, as_of: date) -> ReleasePlan:
    """The plan of the run that is under way. Raises ReleaseRefused where there is none of that day."""
    kept = _kept.get(workspace.name)
    if kept is None or kept.plan.as_of != as_of:
        raise ReleaseRefused("This step belongs to a run that has drawn up a plan. Start the run, not the step.")
    return kept.plan


def write_release_plan(workspace: Workspace, plan: ReleasePlan) -> str:
    """Write the page and the workbook of a plan into the study's files; where they are."""
    workspace.area.put(PLAN_PAGE, write_release_plan_page(plan, workspace.clock(), workspace.banner))
    workspace.area.put(PLAN_WORKBOOK, write_release_plan_workbook(plan))
    link_pages(workspace.area)
    return f"{workspace.area.place}/{PLAN_PAGE}"


def find_sites_to_serve(plan: ReleasePlan) -> list[str]:
    """Sites that get a pack by this plan, and those with a pack that was claimed and not delivered."""
    left = set(find_open_claims(plan.events)["site_id"])
    return [site_id for site_id in plan.sites if site_id in left or site_id in plan.sites_with_work]


def refuse_another_day(workspace: Workspace, as_of: date) -> None:
    """What goes out is decided on the day on which it goes. Raises ReleaseRefused for any other day."""
    today = london_day(workspace.clock())
    if as_of != today:
        raise ReleaseRefused(
            f"Nothing is sent as of {format_day(as_of)}: today is {format_day(today)}, and a pack goes only by what is "
            "known on its own day. Ask for today."
        )


def refuse_another_plan(plan: ReleasePlan, expect: int) -> None:
    """Who sends has seen the plan, and says its count. Raises ReleaseRefused where there is another one now."""
    if plan.n_going != expect:
        raise ReleaseRefused(
            f"The plan was of {expect:,} questionnaires, and now {plan.n_going:,} would go: something was recorded "
            "since. Nothing was sent. Look at the plan again, and send it with its count."
        )


# Sending ------------------------------------------------------------------------------------------------------------


def release_packs(workspace: Workspace, plan: ReleasePlan, requested_by: str) -> Released:
    """Serve every site of a plan, one after the other; one site's trouble never stops the others."""
    refuse_another_day(workspace, plan.as_of)
    released = Released({}, [])
    with keep_plan(workspace, plan):
        for site_id in find_sites_to_serve(plan):
            try:
                released.counts[site_id] = release_site(workspace, plan, site_id, requested_by)
            except (FileFault, ReleaseRefused, SendingBusy) as fault:
                released.failures.append(f"{site_id}: {fault}")
    return released


def release_site(workspace: Workspace, plan: ReleasePlan, site_id: str, requested_by: str) -> Counter[str]:
    """Send one site what the plan has for it, after taking up what an earlier run left. Returns counts for people.

    Where something newer concerns the pack, the site is planned anew. Raises ReleaseRefused on any day but today; and,
    where a person asked for what they had seen, if other questionnaires would go now.
    """
    refuse_another_day(workspace, plan.as_of)
    with workspace.ledger.sending(wait_seconds=_PATIENCE_SECONDS):
        left = _take_up(workspace, plan, site_id, requested_by)
        asked = plan.find_keys(site_id)
        if left.counts:  # what was taken up changes what is left to send, identifiers too
            plan = _plan_anew(workspace, plan, site_id, left.agreed)
        while (pack := _compose(workspace, plan, site_id, owes_blank=left.owes_blank)) is not None:
            if not plan.is_scheduled and plan.find_keys(site_id) - left.agreed != asked - left.agreed:
                raise ReleaseRefused(
                    "Other questionnaires would go there now than in the plan: something was recorded meanwhile. "
                    "Look at the plan again, and send it with its count."
                )
            if _send(workspace, plan, pack, requested_by):
                return left.counts + _count_pack(pack)
            plan = _plan_anew(workspace, plan, site_id, left.agreed)
        if not plan.is_scheduled and asked - left.agreed:
            raise ReleaseRefused(
                "What was in the plan does not go there any more: something was recorded meanwhile. Look at it again."
            )
    return left.counts


def _compose(workspace: Workspace, plan: ReleasePlan, site_id: str, *, owes_blank: bool) -> PackPlan | None:
    """What a plan has for a site: the pack that was composed with those of the other sites, if it is of that plan."""
    kept = _kept.get(workspace.name)
    if kept is not None and kept.plan is plan and site_id in kept.begun:
        return kept.begun[site_id][0]
    return compose_pack(plan, site_id, is_wanted=owes_blank)


def _write_files(workspace: Workspace, pack: PackPlan) -> PackFiles:
    kept = _kept.get(workspace.name)
    composed, find_files = kept.begun.get(pack.site_id, (None, None)) if kept is not None else (None, None)
    if composed is pack and find_files is not None:
        return find_files()
    return write_pack_files(workspace.study, workspace.instruments, pack, workspace.layout)


def send_blank_pack(workspace: Workspace, site_id: str, as_of: date, requested_by: str) -> PackPlan:
    """Send a site a pack without questionnaires: logs, queries, and new identifiers where it needs them. Gives what
    was sent. Raises ReleaseRefused on any day but today."""
    refuse_another_day(workspace, as_of)
    with workspace.ledger.sending(wait_seconds=_PATIENCE_SECONDS):
        while True:
            plan = draw_up_plan(workspace, as_of, sites=[site_id])
            pack = compose_pack(plan, site_id, is_blank=True)
            if pack is not None and _send(workspace, plan, pack, requested_by):
                return pack


def _plan_anew(
    workspace: Workspace, plan: ReleasePlan, site_id: str, agreed: Collection[tuple[Any, ...]]
) -> ReleasePlan:
    """The same request for one site, from the ledger as it is now."""
    return plan_release(
        workspace.study,
        workspace.read_events(),
        plan.as_of,
        plan.waves,
        [site_id],
        is_scheduled=plan.is_scheduled,
        second_copies=plan.second_copies,
        agreed=agreed,
    )


def _send(workspace: Workspace, plan: ReleasePlan, pack: PackPlan, requested_by: str) -> bool:
    """Claim a pack and deliver it. False, and nothing was claimed, where the plan is out of date.

    The files are kept first, so that a claim never names what cannot be had again.
    """
    study = workspace.study
    data, letters = _write_files(workspace, pack)
    file_name = find_pack_name(pack)
    sha256 = workspace.content.put(data)
    letters_sha256 = workspace.content.put(letters) if letters else ""
    events = derive_claim(study, pack, requested_by, sha256, file_name, letters_sha256)
    with workspace.ledger.writing() as writing:
        newest = writing.newest_seq(
            participant_ids=set(pack.rows["participant_id"]),
            site_ids=[pack.site_id, ""],
            passing_over=STEPS_OF_SENDING,
            after=plan.head.seq,
        )
        if newest > plan.head.seq:
            return False
        answers = writing.append(events)
        if told := [answer.key for answer in answers if answer.answer != "added"]:
            raise ReleaseRefused(
                f"{pack.pack_id}: the ledger holds {len(told)} of what it would claim already. Nothing was claimed. "
                "Report this fault."
            )
    claim = Claim(pack.pack_id, pack.site_id, answers[0].key, answers[0].hash, file_name, sha256, letters_sha256)
    _deliver(workspace, claim, plan.as_of, requested_by, {sha256: data, letters_sha256: letters})
    return True


def _deliver(
    workspace: Workspace, claim: Claim, as_of: date, requested_by: str, at_hand: Mapping[str, bytes] = {}
) -> None:
    """Put the files of a claimed pack into the outbox, the workbook last, and record that they lie there. To do so
    twice changes nothing. `at_hand`: contents by SHA-256; others are read as kept. Raises ReleaseRefused where the
    claim was taken back meanwhile; the files are gone then."""
    box = workspace.drop_box(claim.site_id)
    for name, sha256 in claim.files:
        box.send(name, at_hand[sha256] if sha256 in at_hand else workspace.content.get(sha256))
    if not _record_delivery(workspace, claim, as_of, requested_by):
        for name, sha256 in claim.files:
            box.take_back(name, sha256)
        raise ReleaseRefused(f"The claim of {claim.pack_id} was taken back while it was being delivered.")


def _record_delivery(workspace: Workspace, claim: Claim, as_of: date, requested_by: str) -> bool:
    delivered = PackDelivered(
        occurred_on=as_of, requested_by=requested_by, site_id=claim.site_id, pack_id=claim.pack_id
    )
    with workspace.ledger.writing() as writing:
        stands = writing.find_keys([claim.key]).get(claim.key)
        if stands is None or stands.is_voided or stands.hash != claim.hash:
            return False
        writing.append([delivered])
    return True


# What an earlier run left -------------------------------------------------------------------------------------------


@dataclass
class _Left:
    """What taking up came to: counts, the rows whose claim was taken back (they keep the word that was given for them),
    and whether a pack without questionnaires was among them."""

    counts: Counter[str] = field(default_factory=Counter)
    agreed: set[tuple[Any, ...]] = field(default_factory=set)
    owes_blank: bool = False


def _take_up(workspace: Workspace, plan: ReleasePlan, site_id: str, requested_by: str) -> _Left:
    """Deal with the packs of a site that were claimed and, as far as the ledger knows, not delivered.

    One whose workbook lies in the outbox went out, whatever is known since: the site may have it, and what stopped
    meanwhile gets its stop notice. One of today of which nothing newer is known is put again. Any other is taken back,
    and its rows are planned anew, by what holds today.
    """
    left, as_of = _Left(), plan.as_of
    with workspace.ledger.writing() as writing:
        newest = writing.newest_seq(site_ids=[site_id], kinds=[Voided.kind], after=plan.head.seq)
    events = plan.events if newest <= plan.head.seq else workspace.read_events()
    for row in find_open_claims(events, site_id).to_dict("records"):
        claim = Claim(
            row["pack_id"], site_id, row["key"], row["hash"], row["file_name"], row["sha256"], row["letters_sha256"]
        )
        if workspace.drop_box(site_id).has_sent(claim.file_name, claim.sha256):
            _record_delivery(workspace, claim, as_of, requested_by)
            left.counts["packs found delivered"] += 1
            continue
        rows = find_claimed_rows(events, claim.pack_id)
        n_claimed = 1 + len(rows) + bool(row["n_numbers"])
        is_of_today = row["occurred_on"].date() == as_of
        if is_of_today and _has_no_news(workspace, site_id, set(rows["participant_id"]), row["seq"] + n_claimed - 1):
            _deliver(workspace, claim, as_of, requested_by)
            left.counts["packs put again"] += 1
            continue
        workspace.ledger.append(derive_voids(events, claim.pack_id, as_of, requested_by))
        for name, sha256 in claim.files:
            workspace.drop_box(site_id).take_back(name, sha256)
        left.counts["packs taken back"] += 1
        left.agreed |= set(rows[COPY].itertuples(index=False, name=None))
        left.owes_blank |= rows.empty
    return left


def _has_no_news(workspace: Workspace, site_id: str, participant_ids: set[str], since: int) -> bool:
    """Whether nothing was recorded after a row of the ledger that concerns these people, their site or the study."""
    with workspace.ledger.writing() as writing:
        newest = writing.newest_seq(
            participant_ids=participant_ids, site_ids=[site_id, ""], passing_over=STEPS_OF_SENDING, after=since
        )
    return newest <= since


def _count_pack(pack: PackPlan) -> Counter[str]:
    n_again = int((pack.rows["copy_number"] > 1).sum())
    counts = Counter({"packs": 1, "questionnaires": len(pack.rows) - n_again, "second copies": n_again})
    counts["new identifiers"] = pack.n_numbers
    return counts
