"""What a fieldwork coordinator has to do today: one list, the most urgent first, each with its next step.

Nothing is decided here. Each entry is what another rule says (what may go out, what is held, who is chased, which
message is uncertain), bundled by site so that a person can work it off.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from typing import Any, NamedTuple

import pandas as pd

from study.calendar import format_day, format_short_day
from study.chasing import derive_chasers, find_kind
from study.events import ActivityReported
from study.held_files import derive_held_files, describe_kinds
from study.holds import HOLDS
from study.messages import derive_addresses, derive_messages, derive_replies
from study.protocol import Study
from study.releasing import HELD, WAITS, WORDS, find_open_claims, plan_release
from study.safeguarding import find_open_alerts
from study.state import Events

_BY = '--by "Your Name"'
KIND_WORDS = {
    "safeguarding": "Safeguarding alert",
    "file_held": "File held",
    "uncertain": "Message uncertain",
    "undelivered": "Pack not delivered",
    "reply": "Reply waiting",
    "address": "Wrong address",
    "call": "Call due",
    "release": "Ready to send",
    "held": "Held",
    "overdue": "Overdue",
    "figures": "Figures differ",
}
"""Every kind of entry, the most urgent first."""


class Work(NamedTuple):
    """Something to do: what it is about, how many, since when (None: no day), what to do. `site_id` may be blank."""

    kind: str
    site_id: str
    text: str
    action: str
    n: int
    since: date | None = None


def derive_work_list(study: Study, events: Events, as_of: date, name: str = "") -> list[Work]:
    """Everything that waits for the coordinator on a day, by kind and then by the oldest. `name`: how commands call the
    study; left out, by its id."""
    name = name or study.study_id
    order = {kind: place for place, kind in enumerate(KIND_WORDS)}
    entries = [
        *_list_alerts(study, events, as_of, name),
        *_list_held_files(name, events, as_of),
        *_list_messages(name, events, as_of),
        *_list_calls(study, events, as_of, name),
        *_list_releases(study, events, as_of, name),
        *_list_overdue(study, events, as_of),
        *_list_differing_figures(study, events, as_of),
    ]
    return sorted(entries, key=lambda work: (order[work.kind], work.since or as_of, work.site_id, work.text))


def _list_alerts(study: Study, events: Events, as_of: date, name: str) -> Iterator[Work]:
    rule = study.fieldwork.safeguarding_rule
    if rule is None:
        return
    alerts: list[Any] = list(find_open_alerts(study, events, as_of).itertuples(index=False))
    for row in alerts:
        roles = [(rule.clinician, row.told_on), (rule.escalates_to, row.escalated_on)]
        told = [f"the {_name(role)} ({format_short_day(on.date())})" for role, on in roles if not pd.isna(on)]
        text = f"Alert {row.alert_id} is not acknowledged. Told: {' and '.join(told) or 'nobody yet'}"
        command = f"summative safeguarding acknowledge {name} {row.alert_id} telephone --role {rule.clinician} {_BY}"
        yield Work("safeguarding", row.site_id, text, f"Telephone; then `{command}`.", 1, _to_day(row.raised_on))


def _list_held_files(name: str, events: Events, as_of: date) -> Iterator[Work]:
    held = derive_held_files(events.select(as_of=as_of))
    waiting: list[Any] = list(held[held["state"] == "waiting"].itertuples(index=False))
    for row in waiting:
        text = f"File {row.held_id} was not read: it may hold {describe_kinds(row.identifiers)}"
        action = (
            f"See where: `summative held-files show {name} {row.held_id}`; then `summative held-files release` or "
            "`summative held-files erase`."
        )
        yield Work("file_held", row.site_id, text, action, 1, _to_day(row.held_on))


def _list_messages(name: str, events: Events, as_of: date) -> Iterator[Work]:
    messages = derive_messages(events, as_of)
    for row in messages[messages["state"] == "uncertain"].itertuples(index=False):
        text = f"It is not known whether the {_name(row.category)} to the {_name(row.role)} went out"
        command = f"summative messages resolve {name} {row.message_id} --was-sent {_BY}"
        action = f"Look among what was sent, or ask; then `{command}`, or the same with `--was-not-sent`."
        yield Work("uncertain", str(row.site_id), text, action, 1, _to_day(row.queued_on))
    claims = find_open_claims(events.select(as_of=as_of))
    for row in claims.itertuples(index=False):
        text = f"Pack {row.pack_id} was made up and is not in the outbox yet"
        yield Work("undelivered", str(row.site_id), text, "The next round delivers it; nothing to do.", 1, as_of)
    replies = derive_replies(events, as_of)
    replies = replies[~replies["is_handled"] & ~replies["is_automatic"]]
    for site_id, own in replies.groupby("site_id", sort=False):
        first = _to_day(own["received_on"].min())
        action = f"Read in the mailbox; then `summative messages handled {name} {own['reply_code'].iloc[0]} {_BY}`."
        yield Work("reply", str(site_id), _count(len(own), "reply", "replies"), action, len(own), first)
    addresses = derive_addresses(events)
    stopped = addresses[addresses["state"] == "stopped"].merge(
        messages[["message_id", "site_id", "role"]], on="message_id", how="left"
    )
    for row in stopped.itertuples(index=False):
        role = f"the {_name(row.role)}" if isinstance(row.role, str) else "somebody"
        action = "Correct the address in the contacts file: nothing is sent there any more."
        site_id = row.site_id if isinstance(row.site_id, str) else ""
        yield Work("address", site_id, f"Mail to {role} came back", action, 1, _to_day(row.since))


def _list_calls(study: Study, events: Events, as_of: date, name: str) -> Iterator[Work]:
    chasers = derive_chasers(study, events, as_of)
    calls = chasers[(chasers["state"] == "due") & (chasers["channel"] == "telephone")]
    for (site_id, role), own in calls.groupby(["site_id", "to"], sort=False):
        about = _join_counts(own["about"])
        kinds = ",".join(dict.fromkeys(own["about"].map(find_kind)))
        action = f"Telephone, then log it: `summative chasing call {name} {site_id} {kinds} reached {_BY}`."
        text = f"Call the {_name(role)} about {about}"
        yield Work("call", str(site_id), text, action, len(own), _to_day(own["due_on"].min()))


def _list_releases(study: Study, events: Events, as_of: date, name: str) -> Iterator[Work]:
    rows = plan_release(study, events, as_of, is_scheduled=True).rows
    labels = {wave.id: wave.label for wave in study.waves}
    waiting = rows[rows["decision"] == WAITS]
    for (site_id, wave), own in waiting.groupby(["site_id", "wave"], sort=False):
        why = " ".join(WORDS[code] for code in WORDS if own["word"].str.split(";").map(lambda c, x=code: x in c).any())
        text = f"{labels[str(wave)]}: {_count(len(own), 'questionnaire')} can go out. {why}"
        action = f"See what would go: `summative waves release {name} --wave {wave} --site {site_id}`."
        yield Work("release", str(site_id), text, action, len(own), _to_day(own["release_from"].min()))
    held = rows[rows["decision"] == HELD]
    held = held.assign(hold=held["holds"].str.split(";").str[0])
    for (site_id, wave, hold), own in held.groupby(["site_id", "wave", "hold"], sort=False):
        known = HOLDS[str(hold)]
        if known.by:
            text = (
                f"{labels[str(wave)]}, {_count(len(own), 'questionnaire')}: {known.words[0].lower()}{known.words[1:]}"
            )
            yield Work("held", str(site_id), text, f"{known.to_do}.", len(own), _to_day(own["release_from"].min()))


def _list_overdue(study: Study, events: Events, as_of: date) -> Iterator[Work]:
    chasers = derive_chasers(study, events, as_of)
    owed = chasers[(chasers["about"] == "return") & (chasers["channel"] == "email") & (chasers["state"] == "resting")]
    for (site_id, because), own in owed.groupby(["site_id", "rests_because"], sort=False):
        text = f"{_count(len(own), 'return')} would be chased, but chasing rests: {because}"
        action = (
            "Wait for that day, or call again." if str(because).startswith("Promised") else
            "Nothing, if that is right; else end the pause."
        )  # fmt: skip
        yield Work("overdue", str(site_id), text, action, len(own))


def _list_differing_figures(study: Study, events: Events, as_of: date) -> Iterator[Work]:
    """One entry for each site and figure, whatever the months: that both counts differ is no fault, since each has
    rules of its own, and how each is counted is asked once."""
    for (site_id, name), own in derive_differing_figures(events, as_of).groupby(["site_id", "figure"]):
        figure, last = study.fieldwork.find_figure(str(name)), own.sort_values("month").iloc[-1]
        months = f"{len(own)} months, the last " if len(own) > 1 else ""
        text = (
            f"{figure.label if figure else name}, {months}{last['month']}: {last['evaluation']:,} told to us, "
            f"{last['nhs_england']:,} to NHS England"
        )
        action = "Both may be right. Ask the site once how it counts each, and keep the answer for the analysis."
        yield Work("figures", str(site_id), text, action, len(own), _to_day(own["on"].min()))


def derive_differing_figures(events: Events, as_of: date) -> pd.DataFrame:
    """Activity figures that a site told the evaluation otherwise than NHS England: site_id, figure, month, evaluation,
    nhs_england (the latest version of each), on (the day of the later telling)."""
    reported = events.select(as_of=as_of).frame(ActivityReported)
    keys = ["site_id", "figure", "month"]
    latest = reported.sort_values("version").drop_duplicates([*keys, "reported_to"], keep="last")
    counts = latest.pivot_table(index=keys, columns="reported_to", values="count", aggfunc="last")
    counts = counts.reindex(columns=["evaluation", "nhs_england"]).dropna()
    counts = counts[counts["evaluation"] != counts["nhs_england"]].astype("int64")
    on = latest.groupby(keys)["occurred_on"].max().rename("on")
    return counts.join(on).reset_index().rename_axis(columns=None)


def _name(code: object) -> str:
    return str(code).replace("_", " ")


def _count(n: int, one: str, many: str = "") -> str:
    return f"{n:,} {one if n == 1 else many or one + 's'}"


def _join_counts(about: pd.Series[Any]) -> str:
    """ "3 returns and 1 query"."""
    many = {"query": "queries", "consent_copy": "consent copies", "activity_figures": "activity figures"}
    parts = [_count(int(n), _name(code), many.get(str(code), "")) for code, n in about.value_counts().items()]
    return f"{', '.join(parts[:-1])} and {parts[-1]}" if len(parts) > 1 else parts[0]


def _to_day(stamp: Any) -> date | None:
    return None if pd.isna(stamp) else pd.Timestamp(stamp).date()


def format_since(work: Work) -> str:
    """Since when, as people write it; "" where there is no day."""
    return format_day(work.since) if work.since else ""
