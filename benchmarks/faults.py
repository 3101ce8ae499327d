"""SIGKILL at random moments over a daily round that sends packs to an S3 server and messages through an SMTP server.

Run it with `python -m benchmarks.faults`. A round releases what is due at every site, queues a message to each, and
sends what waits. It is killed again and again, each time started anew, until it comes to its end; then a fresh study
begins, until there were so many kills. Of every study it is checked, against what the two servers have:

- intended without uncertain is contained in delivered, and delivered in intended;
- nothing is delivered twice;
- at most one message is uncertain for each kill;
- each outbox has the packs that the ledger says, once, as they were kept; the ledger's chain is whole.

The servers are real ones, each in a process of its own, and are not killed.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import select
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import date
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

from rich.console import Console
from rich.table import Table

from study.contacts import compute_address_code
from study.events import (
    ApprovalGranted,
    ApprovalSubmitted,
    ConsentRecorded,
    Event,
    ObligationChased,
    PackClaimed,
    PackDelivered,
    ParticipantScreened,
    ReturnReleased,
)
from study.identifiers import compute_identifier
from study.messages import compute_message_code, derive_messages
from study.protocol import Site
from tasks.mail import SmtpTransport
from tasks.outbox import Letter, Outgoing, queue_message, send_waiting
from tasks.releasing import draw_up_plan, release_packs
from tasks.workspace import Workspace
from tests.mail_servers import MailServer, run_smtp
from tests.release_studies import BY, FIELDWORK, RULE, open_trial, write_definitions
from tests.services import PostgreSQLServer, S3Server, run_postgresql, run_s3
from tests.test_protocol import LUTON

ROOT = Path(__file__).resolve().parent.parent
JOINED, DAY = date(2017, 7, 3), date(2017, 7, 10)
AUTOMATIC = FIELDWORK.replace('mode = "on_request"', 'mode = "automatic"').replace("at_once = 5", "at_once = 1000")
N_SITES, N_KILLS = 500, 200
LEDGERS = ("SQLite", "PostgreSQL")
SPAN = 3.0  # seconds of work within which a round is killed
DELAY = 0.03  # seconds that the mail server thinks about a message, so that kills fall into that too
_CODE = re.compile(r"<summative\.([0-9a-f]+)\.")


@dataclass
class Outcome:
    """What the kills came to. `faults`: what was found that must not be."""

    n_kills: int = 0
    n_studies: int = 0
    n_intended: int = 0
    n_delivered: int = 0
    n_uncertain: int = 0
    n_packs: int = 0
    faults: list[str] = field(default_factory=list)


# ---------------------------------------------------------------- the study and its round


def write_sites(folder: Path, n_sites: int) -> None:
    """The small study of the tests with as many sites as are wanted."""
    write_definitions(folder, AUTOMATIC)
    place = folder / "sites_config" / "trial" / "sites"
    for number in range(n_sites - 2):
        code = "A" + chr(65 + number // 26) + chr(65 + number % 26)
        text = LUTON.replace("luton", f"area_{number:03}").replace("LUT", code).replace("Luton", f"Area {number}")
        (place / f"area_{number:03}.toml").write_text(text, encoding="utf-8")


def enrol(workspace: Workspace) -> None:
    """Every site is open, and one participant at each has consented."""
    events: list[Event] = []
    for site in workspace.study.sites:
        about: dict[str, Any] = {"requested_by": BY, "site_id": site.site_id}
        light: dict[str, Any] = {**about, "occurred_on": date(2017, 6, 1), "approval": "green_light"}
        person = {**about, "occurred_on": JOINED, "participant_id": compute_identifier(RULE, site.code, 1)}
        events += [
            ApprovalSubmitted(**light, route="check"),
            ApprovalGranted(**light),
            ParticipantScreened(**person, cohort="younger"),
            ConsentRecorded(
                **person, form_version="1.0", scopes=("questionnaires",), basis="signed", route="self",
                copy_filed="yes",
            ),
        ]  # fmt: skip
    workspace.ledger.append(events)


def make_message(site: Site, number: int) -> Outgoing:
    message_id = f"digest-{site.site_id}-{DAY}-{number}"
    address = f"person{number}@{site.site_id.replace('_', '-')}.example"
    person = compute_identifier(RULE, site.code, 1)
    step = ObligationChased(
        occurred_on=DAY, requested_by=BY, site_id=site.site_id, participant_id=person, about="return", step="overdue",
        chase=f"chase:{message_id}:{person}", message_id=message_id, channel="email", due_on=DAY,
    )  # fmt: skip
    return Outgoing(
        message_id, "digest", site.site_id, f"person{number}", "site_researcher", "digest", "Zoë", address,
        compute_address_code("trial", address), Letter("What is owed", "Text\n" * 40, "<p>Text</p>\n" * 40), (step,),
        (person,),
    )  # fmt: skip


def run_round(folder: Path, settings: dict[str, Any], n_messages: int) -> bool:
    """One daily round; whether everything went. Says "works" when it begins to send."""
    workspace = open_trial(folder, DAY, **settings)
    plan = draw_up_plan(workspace, DAY, is_scheduled=True)
    sys.stdout.write("works\n")
    sys.stdout.flush()
    released = release_packs(workspace, plan, BY)
    events = workspace.read_events()
    standing = set(derive_messages(events, DAY)["message_id"])
    messages = [make_message(site, number) for site in workspace.study.sites for number in range(n_messages)]
    for message in messages:
        if message.message_id not in standing:
            queue_message(workspace, message, events.head.seq, DAY, BY)
    counts = send_waiting(workspace, DAY, BY, SmtpTransport(workspace.settings))
    return not released.failures and not counts["put_off"] + counts["overtaken"]


def fork_rounds() -> None:
    """Import once, and give each round a process of its own that can be killed like any other."""
    for line in sys.stdin:
        order = json.loads(line)
        child = os.fork()
        if child == 0:
            try:
                is_done = run_round(Path(order["folder"]), order["settings"], order["n_messages"])
            except BaseException:
                import traceback

                traceback.print_exc()
                os._exit(99)
            os._exit(0 if is_done else 1)
        sys.stdout.write(f"pid {child}\n")
        sys.stdout.flush()
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        sys.stdout.write(f"ended {status}\n")
        sys.stdout.flush()


class Rounds:
    """Runs rounds one after another, and kills them."""

    def __init__(self, process: subprocess.Popen[bytes], moments: random.Random, span: float) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._orders, self._answers = process.stdin, process.stdout
        self._moments, self._span = moments, span

    def run(self, order: dict[str, Any], *, is_killed: bool) -> int:
        """How the round ended: -9 if it was killed in time. One in ten is killed before it has begun to send."""
        self._orders.write(json.dumps(order).encode() + b"\n")
        self._orders.flush()
        said = ""
        pid, ended = 0, ""
        waits_for_work = self._moments.random() > 0.1
        moment = self._moments.uniform(0.0, self._span)
        while not ended and not (is_killed and pid and (said == "works" or not waits_for_work)):
            said = self._read()
            pid, ended = (int(said[4:]), ended) if said.startswith("pid") else (pid, said * said.startswith("ended"))
        if not ended and not select.select([self._answers], [], [], moment)[0]:
            os.kill(pid, 9)
        while not ended:
            said = self._read()
            ended = said * said.startswith("ended")
        return int(ended.split()[1])

    def _read(self) -> str:
        line = self._answers.readline()
        if not line:
            raise SystemExit("The process that forks the rounds has ended; its error stands above.")
        return line.decode().strip()


@contextmanager
def open_rounds(moments: random.Random, span: float) -> Iterator[Rounds]:
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.faults", "--fork"],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0,
    )  # fmt: skip
    try:
        yield Rounds(process, moments, span)
    finally:
        if process.stdin is not None:
            process.stdin.close()
        process.wait(timeout=600)
        if process.stdout is not None:
            process.stdout.close()


# ---------------------------------------------------------------- what is checked


def check(workspace: Workspace, server: MailServer, n_messages: int, n_kills: int, outcome: Outcome) -> None:
    """Hold what the servers have against what was intended and what the ledger says."""
    events, sites = workspace.read_events(), workspace.study.sites
    faults = list(workspace.ledger.verify().faults)
    messages = derive_messages(events, DAY).set_index("message_id")["state"]
    name = workspace.name
    intended = {compute_message_code(name, make_message(s, n).message_id) for s in sites for n in range(n_messages)}
    uncertain = {compute_message_code(name, str(one)) for one in messages.index[messages == "uncertain"]}
    found = [_CODE.match(one.message_id) for one in server.read_delivered()]
    delivered = Counter(match[1] for match in found if match)
    for what, wrong in {
        "messages that were intended and did not arrive": intended - uncertain - set(delivered),
        "messages that arrived and were not intended": set(delivered) - intended,
        "messages that arrived twice": {code for code, n in delivered.items() if n > 1},
        "messages neither sent nor uncertain": set(messages.index[~messages.isin(["sent", "uncertain"])]),
    }.items():
        faults += [f"{len(wrong)} {what}"] * bool(wrong)
    if len(uncertain) > n_kills:
        faults.append(f"{len(uncertain)} messages are uncertain after {n_kills} kills")
    if len(events.frame(ObligationChased)) != len(intended):
        faults.append(f"{len(events.frame(ObligationChased))} steps stand instead of {len(intended)}")
    faults += _check_packs(workspace)
    outcome.n_studies += 1
    outcome.n_intended += len(intended)
    outcome.n_delivered += delivered.total()
    outcome.n_uncertain += len(uncertain)
    outcome.n_packs += len(events.frame(PackDelivered))
    outcome.faults += faults


def _check_packs(workspace: Workspace) -> Iterator[str]:
    events = workspace.read_events()
    claims, delivered, released = (events.frame(kind) for kind in (PackClaimed, PackDelivered, ReturnReleased))
    n_sites = len(workspace.study.sites)
    if sorted(claims["site_id"]) != sorted(site.site_id for site in workspace.study.sites):
        yield f"{len(claims)} packs are claimed instead of one for each of {n_sites} sites"
    if sorted(delivered["pack_id"]) != sorted(claims["pack_id"]):
        yield f"{len(delivered)} packs are recorded as delivered instead of {len(claims)}"
    if released.duplicated(["participant_id", "respondent", "wave", "copy_number"]).any():
        yield "a questionnaire was released twice"
    for row in claims.to_dict("records"):
        box = workspace.drop_box(str(row["site_id"]))
        if not box.has_sent(str(row["file_name"]), str(row["sha256"])):
            yield f"{row['pack_id']} does not lie in the outbox as it was kept"
        names = [stored.key.rpartition("/")[2] for stored in workspace.area.list(f"sites/{row['site_id']}/outbox/")]
        if sum(name.endswith(".xlsx") for name in names) != 1:
            yield f"{row['site_id']} has {len(names)} files in its outbox"


def run_faults(
    folder: Path,
    server: MailServer,
    fresh: Callable[[], AbstractContextManager[dict[str, str]]],
    *,
    n_sites: int,
    n_messages: int,
    n_kills: int,
    seed: int,
    span: float = SPAN,
) -> Outcome:
    """Kill rounds until there were so many kills; each study is then brought to its end and checked.

    `fresh` gives the product's settings for one study: its ledger and its files, which lie in nobody else's place.
    """
    outcome, moments = Outcome(), random.Random(seed)  # noqa: S311 - moments, no secrets
    with open_rounds(moments, span) as rounds:
        while outcome.n_kills < n_kills:
            place = folder / f"study_{outcome.n_studies}"
            server.empty()
            server.show_faults(delay=DELAY)
            write_sites(place, n_sites)
            with ExitStack() as stack:
                own = {**server.settings, **stack.enter_context(fresh())}
                workspace = open_trial(place, DAY, **own)
                stack.callback(workspace.ledger.close)
                enrol(workspace)
                order = {"folder": str(place), "settings": own, "n_messages": n_messages}
                n_own, status = 0, -9
                while status == -9:
                    status = rounds.run(order, is_killed=outcome.n_kills + n_own < n_kills)
                    n_own += status == -9
                if status:
                    outcome.faults.append(f"a round ended with {status}; its error stands above")
                outcome.n_kills += n_own
                check(workspace, server, n_messages, n_own, outcome)
                if outcome.faults:
                    return outcome
    return outcome


@contextmanager
def open_places(server: S3Server, databases: PostgreSQLServer | None) -> Iterator[dict[str, str]]:
    """A bucket of its own and, if there is a server, a database; else the ledger is a file. Both go at the end."""
    with server.fresh_bucket() as bucket, ExitStack() as stack:
        yield {
            "database_url": stack.enter_context(databases.fresh_database()) if databases else "",
            "files": f"s3://{bucket}/studies",
            "s3_endpoint": server.endpoint_url,
            "s3_region": server.region,
            "s3_access_key": server.access_key,
            "s3_secret_key": server.secret_key,
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--fork", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--kills", type=int, default=N_KILLS)
    parser.add_argument("--sites", type=int, default=N_SITES)
    parser.add_argument("--seed", type=int, default=20170710)
    parser.add_argument("--ledger", choices=LEDGERS, action="append", help="only this one; both share the kills")
    options = parser.parse_args()
    if options.fork:
        fork_rounds()
        return
    table = Table("ledger", "kills", "studies", "packs", "intended", "delivered", "uncertain", "minutes", "faults")
    is_sound = True
    with ExitStack() as stack:
        server, s3 = stack.enter_context(run_smtp()), stack.enter_context(run_s3())
        databases = stack.enter_context(run_postgresql())
        ledgers = options.ledger or LEDGERS
        for ledger in ledgers:
            fresh = partial(open_places, s3, databases if ledger == "PostgreSQL" else None)
            started = perf_counter()
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            outcome = run_faults(
                folder, server, fresh, n_sites=options.sites, n_messages=1, n_kills=options.kills // len(ledgers),
                seed=options.seed,
            )  # fmt: skip
            table.add_row(
                ledger, f"{outcome.n_kills:,}", f"{outcome.n_studies:,}", f"{outcome.n_packs:,}",
                f"{outcome.n_intended:,}", f"{outcome.n_delivered:,}", f"{outcome.n_uncertain:,}",
                f"{(perf_counter() - started) / 60:.1f}", f"{len(outcome.faults):,}",
            )  # fmt: skip
            for fault in outcome.faults[:20]:
                Console().print(f"{ledger}: {fault}", highlight=False)
            is_sound = is_sound and not outcome.faults
    Console(width=120).print(table)
    if not is_sound:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
