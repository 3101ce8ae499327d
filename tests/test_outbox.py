"""The outbox: what is queued goes out once, or not at all, or a person is asked. Against a real mail server."""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime
from email import message_from_bytes, policy
from pathlib import Path

import pytest

import tasks.mail
from study.events import (
    STEPS_OF_SENDING,
    MessageBounced,
    MessageClaimed,
    MessageQueued,
    MessageTransmitting,
    ObligationChased,
    StudyDayCompleted,
    Voided,
)
from study.messages import derive_messages, find_stopped_addresses
from tasks.ledger import Ledger, SendingBusy
from tasks.mail import FolderTransport, Mail, MailRefused, MailUnavailable, SmtpTransport, write_mail
from tasks.outbox import (
    Letter,
    Outgoing,
    SendingFailed,
    SendingRefused,
    find_transport,
    queue_message,
    read_kept,
    resolve_message,
    send_waiting,
)
from tasks.workspace import Workspace
from tests.mail_servers import MailServer, run_smtp
from tests.outgoing_messages import BY, SITE, make_outgoing, make_step, open_outbox, queue, tell_news, today
from tests.releases import Clock, move_clock

DAY = date(2017, 9, 4)
MARCH = date(2018, 3, 26)  # the first working day of summer time


@pytest.fixture(scope="module", params=["starttls", "tls"])
def any_server(request: pytest.FixtureRequest) -> Iterator[MailServer]:
    with run_smtp(request.param) as server:
        yield server


@pytest.fixture(scope="module")
def only_server() -> Iterator[MailServer]:
    with run_smtp() as server:
        yield server


@pytest.fixture
def server(only_server: MailServer) -> MailServer:
    only_server.empty()
    return only_server


@pytest.fixture
def workspace(tmp_path: Path, ledger_url: str, server: MailServer) -> Iterator[Workspace]:
    """A live study on either database, whose mail goes to the real server."""
    workspace = open_outbox(tmp_path, ledger_url, **server.settings)
    yield workspace
    workspace.ledger.close()


@pytest.fixture
def filed(tmp_path: Path) -> Iterator[Workspace]:
    """A study whose clock stands at a day and whose mail goes to files."""
    workspace = open_outbox(tmp_path, clock=Clock(DAY))
    yield workspace
    workspace.ledger.close()


def states(workspace: Workspace) -> dict[str, str]:
    messages = derive_messages(workspace.read_events(), today(workspace))
    return {
        str(name).rpartition("-")[2]: state
        for name, state in zip(messages["message_id"], messages["state"], strict=True)
    }


def send(workspace: Workspace) -> Counter[str]:
    return send_waiting(workspace, today(workspace), BY)


def delivered(server: MailServer) -> list[str]:
    return [one.address.partition("@")[0].removeprefix("person") for one in server.read_delivered()]


def n_steps(workspace: Workspace) -> int:
    return len(workspace.read_events().frame(ObligationChased))


# ---------------------------------------------------------------- queueing


@pytest.mark.parametrize(
    ("news", "is_queued"),
    [
        ("luton:luton-1-0", False),  # one of its people
        ("luton", False),  # somebody else at its site
        ("tower_hamlets:luton-1-0", False),  # one of its people, told by another site
        ("", False),  # the study
        ("tower_hamlets", True),
    ],
)
def test_nothing_is_queued_after_news(filed: Workspace, news: str, is_queued: bool) -> None:
    head = filed.ledger.head().seq
    tell_news(filed, news)
    before = filed.ledger.head()
    assert queue_message(filed, make_outgoing(1, DAY), head, DAY, BY) is is_queued
    assert (filed.ledger.head() == before) is not is_queued
    assert queue_message(filed, make_outgoing(2, DAY), filed.ledger.head().seq, DAY, BY)


def test_what_other_messages_leave_is_no_news(filed: Workspace) -> None:
    """Nor is it that a step of one was taken back: it changes nothing about who may be written to."""
    head = filed.ledger.head().seq
    queue(filed, 1, 2, 3)
    assert send(filed) == {"sent": 3}
    assert queue_message(filed, make_outgoing(4, DAY), head, DAY, BY)
    rows = filed.ledger.history(kind="obligation_chased")
    filed.ledger.append([Voided(occurred_on=DAY, requested_by=BY, voids=rows["hash"][0], reason="superseded")])
    assert queue_message(filed, make_outgoing(5, DAY), head, DAY, BY)
    assert STEPS_OF_SENDING.isdisjoint({"voided", "message_bounced", "message_resolved", "reply_received"})


def test_a_message_is_queued_once_and_a_step_taken_once(filed: Workspace) -> None:
    queue(filed, 1)
    head = filed.ledger.head()
    assert not queue_message(filed, make_outgoing(1, DAY), head.seq, DAY, BY)
    other = make_outgoing(1, DAY, message_id="escalation-1", obligations=())
    taken = make_step("escalation-1", "luton-1-0", DAY)
    free = make_step("escalation-1", "luton-9-0", DAY)
    assert not queue_message(filed, replace(other, obligations=(free, taken)), head.seq, DAY, BY)
    assert filed.ledger.head() == head
    assert queue_message(filed, replace(other, obligations=(free,)), head.seq, DAY, BY)


@pytest.mark.parametrize("as_of", [date(2017, 9, 3), date(2017, 9, 5)])
def test_a_message_belongs_to_its_day(filed: Workspace, as_of: date) -> None:
    with pytest.raises(SendingRefused, match="a message belongs to its day"):
        queue_message(filed, make_outgoing(1, as_of), 0, as_of, BY)
    with pytest.raises(SendingRefused, match="today is 2017-09-04"):
        send_waiting(filed, as_of, BY)
    assert filed.ledger.head().seq == 0


@pytest.mark.parametrize(
    ("moment", "day"),
    [
        (datetime(2018, 3, 25, 23, 30, tzinfo=UTC), MARCH),  # half past midnight, in summer time since this morning
        (datetime(2018, 10, 28, 23, 30, tzinfo=UTC), date(2018, 10, 28)),  # and no more since this one
        (datetime(2017, 12, 31, 23, 59, tzinfo=UTC), date(2017, 12, 31)),
    ],
)
def test_today_is_londons(tmp_path: Path, moment: datetime, day: date) -> None:
    workspace = open_outbox(tmp_path, clock=lambda: moment)
    assert queue_message(workspace, make_outgoing(1, day), 0, day, BY)
    assert send_waiting(workspace, day, BY) == {"sent": 1}
    (path,) = (workspace.folder / "outbox_mail").glob("*.eml")
    dated = message_from_bytes(path.read_bytes(), policy=policy.default)["Date"].datetime
    assert dated.date() == day
    workspace.ledger.close()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"letter": Letter("About luton-1-0", "x", "x")}, "subject line of digest names a participant"),
        ({"letter": Letter("Two\nlines", "x", "x")}, "mail cannot carry"),
        ({"name": "A\r\nBcc: x@y.example"}, "mail cannot carry"),
        ({"obligations": (make_step("other", "P1", DAY),)}, "names another message"),
        ({"role": "a: b"}, "no code that the ledger can keep as its role"),
    ],
)
def test_what_no_mail_can_be_made_of_is_refused(filed: Workspace, changes: dict[str, object], said: str) -> None:
    with pytest.raises((SendingRefused, MailRefused), match=said) as told:
        queue_message(filed, make_outgoing(1, DAY, **changes), 0, DAY, BY)
    assert "@" not in str(told.value)
    assert told.value.__context__ is None
    assert filed.ledger.head().seq == 0


def test_a_participant_whose_id_is_part_of_a_word_may_stand_in_a_subject(filed: Workspace) -> None:
    letter = Letter("17 returns are due", "x", "x")
    assert queue_message(filed, make_outgoing(1, DAY, letter=letter, participant_ids=("1",)), 0, DAY, BY)


# ---------------------------------------------------------------- what goes out


def test_what_arrives_is_what_was_queued(tmp_path: Path, any_server: MailServer) -> None:
    workspace = open_outbox(tmp_path, mail_from_name="IPC evaluation", mail_reply_to="team@summative.example",
                            **any_server.settings)  # fmt: skip
    queue(workspace, 1, n_steps=3)
    assert send(workspace) == {"sent": 1}
    assert send(workspace) == {}
    assert states(workspace) == {"1": "sent"}
    (one,) = any_server.read_delivered()
    assert (one.sender, one.address) == ("study@summative.example", "person1@luton.example")
    mail = message_from_bytes(one.message.as_bytes(), policy=policy.default)
    assert mail["Subject"] == "What is owed – today"
    assert str(mail["From"]) == "IPC evaluation <study@summative.example>"
    assert str(mail["To"]) == "Zoë Person 1 <person1@luton.example>"
    assert str(mail["Reply-To"]) == "team@summative.example"
    assert mail["Auto-Submitted"] == "auto-generated"
    assert mail["Message-ID"].startswith("<summative.")
    assert mail["Message-ID"].endswith(".1@summative.example>")
    assert mail["X-Summative-Message"] in mail["Message-ID"]
    assert abs((mail["Date"].datetime - workspace.clock()).total_seconds()) < 60
    text, html = mail.iter_parts()
    assert text.get_content() == "Dear Zoë\n.a line\nWe wait for ['luton-1-0', 'luton-1-1', 'luton-1-2'].\n"
    assert (html.get_content_type(), html.get_content()) == ("text/html", "<p>Dear Zoë</p>\n")
    assert all(len(line) <= 998 and line.isascii() for line in one.message.as_bytes().splitlines())
    workspace.ledger.close()


def test_neither_wording_nor_address_is_in_the_ledger(filed: Workspace) -> None:
    queue(filed, 1)
    send(filed)
    text = filed.ledger.history().to_string()
    assert "Zo" not in text
    assert "luton.example" not in text
    (sha256,) = filed.read_events().frame(MessageQueued)["content_sha256"]
    kept = read_kept(filed, sha256)
    assert (kept.name, kept.address, kept.participant_ids) == (
        "Zoë Person 1", "person1@luton.example", ("luton-1-0",),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("title", "read"),
    [
        ("Cohort: a study", "Cohort: a study"),
        (
            "Cohort: a study of services in seventeen areas, with four groups of people and two arms",
            "Cohort a study of services in seventeen areas with four groups of people and two arms",
        ),
    ],
)
def test_a_sender_with_a_long_title_stays_one_address(workspace: Workspace, title: str, read: str) -> None:
    mail = Mail("a1", 1, "Ann Example", "ann@luton.invalid", "Words", "Words", "<p>Words</p>", datetime.now(UTC))
    written = message_from_bytes(write_mail(mail, workspace.settings, title), policy=policy.default)
    (sender,) = written["From"].addresses
    assert (sender.display_name, sender.addr_spec) == (read, workspace.settings.mail_from)


def test_the_same_message_is_the_same_file(tmp_path: Path) -> None:
    found = []
    for place in ("one", "other"):
        workspace = open_outbox(tmp_path / place, clock=Clock(DAY))
        queue(workspace, 1, 2)
        send(workspace)
        folder = workspace.folder / "outbox_mail"
        found.append({path.name: path.read_bytes() for path in folder.iterdir()})
        workspace.ledger.close()
    assert found[0] == found[1]
    assert sorted(found[0]) == ["digest-luton-2017-09-04-1.1.eml", "digest-luton-2017-09-04-2.1.eml"]


def test_a_rehearsal_writes_to_a_folder_whatever_is_set(tmp_path: Path, server: MailServer) -> None:
    assert isinstance(find_transport(open_outbox(tmp_path, **server.settings)), SmtpTransport)
    assert isinstance(find_transport(open_outbox(tmp_path)), FolderTransport)
    live = open_outbox(tmp_path, **server.settings)
    assert isinstance(find_transport(live, to_folder=True), FolderTransport)
    live.name = "ipc.rehearsal"
    assert isinstance(find_transport(live), FolderTransport)
    assert isinstance(find_transport(open_outbox(tmp_path, clock=Clock(DAY), **server.settings)), FolderTransport)


# ---------------------------------------------------------------- looked at again before it goes


@pytest.mark.parametrize("news", ["luton:luton-1-0", "luton", "tower_hamlets:luton-1-0", ""])
def test_news_takes_a_waiting_message_back(filed: Workspace, news: str) -> None:
    queue(filed, 1, n_steps=2)
    tell_news(filed, news)
    assert send(filed) == {"overtaken": 1}
    assert states(filed) == {}
    assert n_steps(filed) == 0
    queue(filed, 1, n_steps=2)  # decided anew, under the same id and with the same steps
    assert send(filed) == {"sent": 1}
    assert [path.name for path in (filed.folder / "outbox_mail").iterdir()] == ["digest-luton-2017-09-04-1.1.eml"]


def test_news_of_another_site_takes_nothing_back(filed: Workspace) -> None:
    queue(filed, 1)
    tell_news(filed, "tower_hamlets")
    assert send(filed) == {"sent": 1}


def test_one_message_that_is_taken_back_takes_no_other_with_it(filed: Workspace) -> None:
    """Two people of one site are written to; of one, a participant at another site has news."""
    queue(filed, 1, 2)
    tell_news(filed, "tower_hamlets:luton-1-0")
    assert send(filed) == {"overtaken": 1, "sent": 1}


def test_news_between_claim_and_handing_over(workspace: Workspace, server: MailServer) -> None:
    """The connection is made before the claim; what comes after it is seen as well."""
    queue(workspace, 1)
    seen = []

    class Interrupted(SmtpTransport):
        def prepare(self) -> None:
            super().prepare()
            seen.append("prepared")
            tell_news(workspace, "luton")

    with Interrupted(workspace.settings) as transport:
        assert send_waiting(workspace, today(workspace), BY, transport) == {"overtaken": 1}
    assert seen == ["prepared"]
    assert server.read_delivered() == []


def test_a_day_that_is_over_takes_its_messages_with_it(filed: Workspace) -> None:
    queue(filed, 1, 2)
    move_clock(filed, date(2017, 9, 5))
    queue(filed, 3)
    assert send(filed) == {"expired": 2, "sent": 1}
    assert states(filed) == {"3": "sent"}
    assert n_steps(filed) == 1


def test_midnight_ends_a_run(tmp_path: Path) -> None:
    workspace = open_outbox(tmp_path, clock=Clock(DAY))
    queue(workspace, 1, 2, 3)

    class Slow(FolderTransport):
        def prepare(self) -> None:
            if list(self.folder.glob("*.eml")):
                move_clock(workspace, date(2017, 9, 5))

    transport = Slow(workspace.folder / "outbox_mail")
    assert send_waiting(workspace, DAY, BY, transport) == {"sent": 2}  # the second was on its way
    assert states(workspace)["3"] == "queued"
    assert send(workspace) == {"expired": 1}
    workspace.ledger.close()


def test_stop_notices_go_first(workspace: Workspace, server: MailServer) -> None:
    queue(workspace, 1, 2)
    queue(workspace, 3, category="stop_notice")
    assert send(workspace) == {"sent": 3}
    assert delivered(server) == ["3", "1", "2"]


def test_who_has_left_is_not_written_to(filed: Workspace) -> None:
    """The contacts are asked again when a message goes out: they may have changed since it was queued."""
    queue(filed, 1, 2, 3, 4)
    people = [
        ("person1", "person1@luton.example", ""),
        ("person2", "person2@luton.example", "until_on = 2017-09-03"),
        ("person3", "another@luton.example", ""),
    ]
    filed.folder.joinpath("contacts.toml").write_text("".join(
        f'[[people]]\nperson_id = "{name}"\nname = "Zoë"\nemail = "{email}"\nrole = "site_researcher"\n'
        f'site_id = "luton"\n{more}\n'
        for name, email, more in people
    ))  # fmt: skip
    assert send(filed) == {"sent": 1, "overtaken": 3}


def test_a_message_whose_wording_is_gone_is_decided_anew(filed: Workspace) -> None:
    queue(filed, 1, 2)
    sha256 = filed.read_events().frame(MessageQueued)["content_sha256"][0]
    (path,) = (filed.folder / "files").rglob(sha256)
    path.write_bytes(b"other")
    assert send(filed) == {"lost": 1, "sent": 1}
    queue(filed, 1)
    assert send(filed) == {"sent": 1}


# ---------------------------------------------------------------- servers that fail


def test_one_in_ten_is_refused_and_the_others_are_served(workspace: Workspace, server: MailServer) -> None:
    queue(workspace, *range(1, 31))
    server.show_faults(refused="person.?0@", refused_for_now="person.?5@")
    assert send(workspace) == {"sent": 24, "refused": 3, "put_off": 3}
    found = states(workspace)
    assert {number for number, state in found.items() if state == "failed"} == {"10", "20", "30"}
    assert {number for number, state in found.items() if state == "queued"} == {"5", "15", "25"}
    # Nobody was chased by what was refused; the address is not written to any more.
    assert n_steps(workspace) == 27
    codes = {make_outgoing(n, today(workspace)).address_code for n in (10, 20, 30)}
    assert find_stopped_addresses(workspace.read_events()) == codes
    server.show_faults()
    assert send(workspace) == {"sent": 3}
    assert sorted(Counter(delivered(server)).values()) == [1] * 27
    again = [one.message_id for one in server.read_delivered() if one.address == "person5@luton.example"]
    assert ".2@" in again[0]
    assert send(workspace) == {}


@pytest.mark.parametrize(
    "address", ["a@b.example\nBcc: c@d.example", "zoë@b.example", "nobody", "a..b@c.example", "a b@c.example", "@c.org"]
)
def test_an_address_that_is_none_stops_nobody_else(workspace: Workspace, server: MailServer, address: str) -> None:
    queue(workspace, 1, address=address)
    queue(workspace, 2)
    assert send(workspace) == {"refused": 1, "sent": 1}
    assert send(workspace) == {}
    assert states(workspace) == {"1": "failed", "2": "sent"}
    assert n_steps(workspace) == 1
    assert find_stopped_addresses(workspace.read_events()) == {make_outgoing(1, DAY, address=address).address_code}
    assert delivered(server) == ["2"]


def test_an_address_goes_by_what_stands_on_the_wire(workspace: Workspace, server: MailServer) -> None:
    queue(workspace, 1, address="o'hara+ipc@bücher.example")
    assert send(workspace) == {"sent": 1}
    assert server.read_delivered()[0].address == "o'hara+ipc@xn--bcher-kva.example"


def test_put_off_until_midnight_only(filed: Workspace, server: MailServer) -> None:
    server.show_faults(refused_for_now="person")
    queue(filed, 1)
    with SmtpTransport(open_outbox(filed.folder, **server.settings).settings) as transport:
        assert send_waiting(filed, DAY, BY, transport) == {"put_off": 1}
        assert send_waiting(filed, DAY, BY, transport) == {"put_off": 1}
        move_clock(filed, date(2017, 9, 5))
        server.show_faults()
        assert send_waiting(filed, date(2017, 9, 5), BY, transport) == {"expired": 1}
    assert server.read_delivered() == []


def test_what_is_refused_for_its_content_stops_no_address(workspace: Workspace, server: MailServer) -> None:
    queue(workspace, 1, 2)
    server.show_faults(rejected="person1@")
    assert send(workspace) == {"refused": 1, "sent": 1}
    assert states(workspace) == {"1": "failed", "2": "sent"}
    assert find_stopped_addresses(workspace.read_events()) == frozenset()


@pytest.mark.parametrize("fault", ["no_sender", "no_relay"])
def test_a_server_that_refuses_us_stops_nobody(workspace: Workspace, server: MailServer, fault: str) -> None:
    queue(workspace, *range(1, 6))
    server.show_faults(**{fault: True})
    with pytest.raises(SendingFailed, match="does not let us send") as told:
        send(workspace)
    assert told.value.counts == {"put_off": 1}
    assert set(states(workspace).values()) == {"queued"}
    assert find_stopped_addresses(workspace.read_events()) == frozenset()
    server.show_faults()
    assert send(workspace) == {"sent": 5}


def test_a_server_that_refuses_the_login(workspace: Workspace, server: MailServer) -> None:
    queue(workspace, 1, 2)
    server.show_faults(no_login=True)
    with pytest.raises(SendingFailed, match=r"refuses the login \(535\)") as told:
        send(workspace)
    assert "@" not in str(told.value)
    assert set(states(workspace).values()) == {"queued"}
    assert workspace.read_events().frame(MessageClaimed).empty
    server.show_faults()
    assert send(workspace) == {"sent": 2}


def test_a_server_that_is_down_and_comes_back(workspace: Workspace, server: MailServer) -> None:
    queue(workspace, 1, 2)
    server.end()
    try:
        with pytest.raises(SendingFailed, match=r"localhost:\d+ cannot be reached \(Connection refused\)") as told:
            send(workspace)
    finally:
        server.start()
    assert told.value.counts == {}
    assert states(workspace) == {"1": "queued", "2": "queued"}
    assert send(workspace) == {"sent": 2}


def test_a_certificate_that_nobody_vouches_for(tmp_path: Path, any_server: MailServer) -> None:
    workspace = open_outbox(tmp_path, **{**any_server.settings, "mail_authority": ""})
    queue(workspace, 1)
    with pytest.raises(SendingFailed, match="certificate that is not trusted"):
        send(workspace)
    workspace.ledger.close()


@pytest.mark.parametrize(
    "url", ["localhost", "smtp://", "http://localhost:25", "smtp://a:secret@localhost", "smtp://localhost:99999"]
)
def test_a_url_that_is_no_mail_server(tmp_path: Path, url: str) -> None:
    workspace = open_outbox(tmp_path, smtp_url=url)
    with pytest.raises(MailUnavailable, match="is no mail server") as told:
        send_waiting(workspace, today(workspace), BY)
    assert "secret" not in str(told.value)
    workspace.ledger.close()


def test_a_server_that_closes_amid_messages(workspace: Workspace, server: MailServer) -> None:
    """One message in ten does not get through; the others do, over a new connection, and the next run mends."""
    long = Letter(
        "Long", "A line of a message that is longer than what is on its way at once.\n" * 80_000, "<p>Long</p>"
    )
    queue(workspace, 10, letter=long)
    queue(workspace, *range(1, 10))
    server.show_faults(closed_within="person10@")
    assert send(workspace) == {"sent": 9, "put_off": 1}
    server.show_faults()
    assert send(workspace) == {"sent": 1}
    assert sorted(Counter(delivered(server)).values()) == [1] * 10


def test_a_server_that_always_closes_is_left_alone(workspace: Workspace, server: MailServer) -> None:
    """A short message is on its way as a whole before the end of the connection is noticed, or not: then nobody knows
    whether the server has it."""
    queue(workspace, *range(1, 11))
    server.show_faults(closed_within="person")
    with pytest.raises(SendingFailed, match="breaks off") as told:
        send(workspace)
    n_uncertain = told.value.counts["uncertain"]
    assert told.value.counts["put_off"] + n_uncertain == 3
    server.show_faults()
    assert send(workspace) == Counter(sent=10 - n_uncertain, uncertain=n_uncertain)
    assert len(server.read_delivered()) == 10 - n_uncertain


def test_accepted_and_closed_before_the_answer(workspace: Workspace, server: MailServer) -> None:
    """Nobody can know of it here: it is uncertain, and no run ever sends it again."""
    queue(workspace, *range(1, 21))
    server.show_faults(closed_after="person7@")
    assert send(workspace) == {"sent": 19, "uncertain": 1}
    server.show_faults()
    assert send(workspace) == {"uncertain": 1}
    assert states(workspace)["7"] == "uncertain"
    assert sorted(Counter(delivered(server)).values()) == [1] * 20


def test_a_slow_server_is_waited_for(workspace: Workspace, server: MailServer, monkeypatch: pytest.MonkeyPatch) -> None:
    workspace.settings = workspace.settings.model_copy(update={"mail_seconds": 1})
    queue(workspace, 1)
    server.show_faults(delay=1.5)
    assert send(workspace) == {"sent": 1}
    # But not for ever: who never answers may have taken the message.
    monkeypatch.setattr(tasks.mail, "_ACCEPTING", 1)
    queue(workspace, 2)
    assert send(workspace) == {"uncertain": 1}


def test_a_connection_that_was_closed_meanwhile_is_made_anew(workspace: Workspace, server: MailServer) -> None:
    queue(workspace, 1, 2, 3)
    made = []

    class Closed(SmtpTransport):
        def prepare(self) -> None:
            super().prepare()
            made.append(self._connection)
            if len(made) == 3 and self._connection and self._connection.sock:  # before the second message
                self._connection.sock.shutdown(socket.SHUT_RDWR)

    assert send_waiting(workspace, today(workspace), BY, Closed(workspace.settings)) == {"sent": 3}
    assert len(set(made)) == 2
    assert delivered(server) == ["1", "2", "3"]


# ---------------------------------------------------------------- senders that die


def step(workspace: Workspace, kind: type[MessageClaimed] | type[MessageTransmitting], attempt: int = 1) -> None:
    """What a sender that died has left."""
    more = {"way": "smtp"} if kind is MessageTransmitting else {}
    told = kind(
        occurred_on=today(workspace), requested_by=BY, site_id=SITE, attempt=attempt,
        message_id=f"digest-luton-{today(workspace)}-1", **more,
    )  # fmt: skip
    workspace.ledger.append([told])


def test_a_message_that_was_only_claimed_goes_out_as_the_next_attempt(workspace: Workspace, server: MailServer) -> None:
    queue(workspace, 1)
    step(workspace, MessageClaimed)
    assert states(workspace) == {"1": "claimed"}
    assert send(workspace) == {"sent": 1}
    assert ".2@" in server.read_delivered()[0].message_id


@pytest.mark.parametrize("outcome", ["was_sent", "was_not_sent"])
def test_a_message_that_was_being_handed_over_waits_for_a_person(
    workspace: Workspace, server: MailServer, outcome: str
) -> None:
    queue(workspace, 1, 2)
    step(workspace, MessageClaimed)
    step(workspace, MessageTransmitting)
    assert send(workspace) == {"sent": 1, "uncertain": 1}
    assert send(workspace) == {"uncertain": 1}
    assert delivered(server) == ["2"]
    message_id = f"digest-luton-{today(workspace)}-1"
    with pytest.raises(SendingRefused, match="is no uncertain message"):
        resolve_message(workspace, message_id.replace("-1", "-2"), "was_sent", BY)
    resolve_message(workspace, message_id, "was_sent" if outcome == "was_sent" else "was_not_sent", BY)
    assert send(workspace) == {}
    with pytest.raises(SendingRefused, match="is no uncertain message"):
        resolve_message(workspace, message_id, "was_sent", BY)
    if outcome == "was_sent":
        assert (states(workspace), n_steps(workspace)) == ({"1": "sent", "2": "sent"}, 2)
    else:
        assert (states(workspace), n_steps(workspace)) == ({"2": "sent"}, 1)
        queue(workspace, 1)  # due again, and decided again
        assert send(workspace) == {"sent": 1}
        assert ".2@" in server.read_delivered()[-1].message_id


def test_an_uncertain_message_of_yesterday_stays_uncertain(filed: Workspace, server: MailServer) -> None:
    queue(filed, 1)
    step(filed, MessageClaimed)
    step(filed, MessageTransmitting)
    move_clock(filed, date(2017, 9, 5))
    assert send(filed) == {"uncertain": 1}
    assert states(filed) == {"1": "uncertain"}


@pytest.mark.parametrize("has_file", [True, False])
def test_a_file_that_was_being_written_is_looked_for(filed: Workspace, has_file: bool) -> None:
    """With a folder nothing stays uncertain, and the history is the one of a run that nobody killed."""
    queue(filed, 1)
    before = filed.ledger.head().seq
    step(filed, MessageClaimed)
    message_id = "digest-luton-2017-09-04-1"
    filed.ledger.append(
        [MessageTransmitting(occurred_on=DAY, requested_by=BY, site_id=SITE, message_id=message_id, way="folder")]
    )
    transport = FolderTransport(filed.folder / "outbox_mail")
    if has_file:
        transport.hand_over(f"{message_id}.1", "", b"there")
    assert send(filed) == {"sent": 1}
    (path,) = transport.folder.iterdir()
    assert (path.read_bytes() == b"there") is has_file
    assert filed.ledger.head().seq == before + 3


@pytest.mark.parametrize(("about", "outcome"), [("devon", "overtaken"), ("hampshire", "sent")])
def test_a_digest_about_several_sites_is_overtaken_by_news_of_any_of_them(
    filed: Workspace, about: str, outcome: str
) -> None:
    day = today(filed)

    def make(number: int) -> Outgoing:
        message_id = f"digest-{day}-{number}"
        steps = tuple(make_step(message_id, f"{site}-{number}", day, site) for site in ("luton", "devon"))
        message = make_outgoing(number, day, message_id=message_id, obligations=steps, participant_ids=())
        return replace(message, site_id="")

    head = filed.ledger.head().seq
    assert queue_message(filed, make(1), head, day, BY)
    head = filed.ledger.head().seq
    tell_news(filed, about)
    assert queue_message(filed, make(2), head, day, BY) is (outcome == "sent")
    assert send(filed)[outcome] == (2 if outcome == "sent" else 1)


def test_an_overtaken_sender_does_not_hand_over(workspace: Workspace, server: MailServer) -> None:
    """Should the lock of sending be lost, another run may have claimed the message: the first one sees it in time."""
    queue(workspace, 1)

    class Overtaken(SmtpTransport):
        def prepare(self) -> None:
            super().prepare()
            step(workspace, MessageClaimed, 1)
            step(workspace, MessageClaimed, 2)

    with Overtaken(workspace.settings) as transport:
        assert send_waiting(workspace, today(workspace), BY, transport) == {}
    assert server.read_delivered() == []


def test_two_runs_at_once_send_everything_once(tmp_path: Path, ledger_url: str, server: MailServer) -> None:
    one, other = (open_outbox(tmp_path, ledger_url, **server.settings) for _ in range(2))
    queue(one, *range(1, 21))
    counts: list[Counter[str]] = []
    runs = [threading.Thread(target=lambda own=own: counts.append(send(own))) for own in (one, other)]
    for run in runs:
        run.start()
    for run in runs:
        run.join()
    assert sum(counts, Counter()) == {"sent": 20}
    assert sorted(Counter(delivered(server)).values()) == [1] * 20
    one.ledger.close()
    other.ledger.close()


def test_two_runs_at_once_queue_everything_once(tmp_path: Path, ledger_url: str) -> None:
    workspaces = [open_outbox(tmp_path, ledger_url) for _ in range(2)]
    answers: list[bool] = []

    def decide(workspace: Workspace) -> None:
        for number in range(10):
            answers.append(queue_message(workspace, make_outgoing(number, today(workspace)), 0, today(workspace), BY))

    runs = [threading.Thread(target=decide, args=(workspace,)) for workspace in workspaces]
    for run in runs:
        run.start()
    for run in runs:
        run.join()
    assert sorted(answers) == [False] * 10 + [True] * 10
    assert len(states(workspaces[0])) == n_steps(workspaces[0]) == 10
    assert workspaces[0].ledger.verify().is_clean
    for workspace in workspaces:
        workspace.ledger.close()


# ---------------------------------------------------------------- one sender at a time


def _hold(url: str, ready: object) -> None:
    with Ledger.open(url, "ipc") as ledger, ledger.sending():
        ready.set()  # type: ignore[attr-defined]  # an Event of another process
        time.sleep(600)


def test_sending_is_for_one_process_and_ends_with_it(ledger_url: str) -> None:
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    process = context.Process(target=_hold, args=(ledger_url, ready))
    process.start()
    try:
        assert ready.wait(60)
        with Ledger.open(ledger_url, "ipc") as ledger:
            with pytest.raises(SendingBusy, match="Another run is sending"), ledger.sending():
                pass
            # Others may write meanwhile, and another study may send.
            ledger.append([StudyDayCompleted(occurred_on=DAY, requested_by=BY)])
            with Ledger.open(ledger_url, "other") as second, second.sending():
                pass
            assert process.pid is not None
            os.kill(process.pid, signal.SIGKILL)
            process.join(30)
            with ledger.sending(wait_seconds=10), pytest.raises(SendingBusy), ledger.sending():
                pass
            with ledger.sending():
                pass
    finally:
        process.kill()
        process.join(30)


def test_a_run_that_finds_another_sending_says_so(filed: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.outbox._WAIT_SECONDS", 0.0)
    monkeypatch.setattr("tasks.outbox._MOMENT_SECONDS", 0.0)
    queue(filed, 1)
    with filed.ledger.sending():
        with pytest.raises(SendingRefused, match="Another run is sending"):
            send(filed)
        with pytest.raises(SendingRefused, match="Another run is sending"):
            resolve_message(filed, "digest-luton-2017-09-04-1", "was_sent", BY)
    assert send(filed) == {"sent": 1}


def test_a_bounce_that_came_meanwhile_holds_the_next_message_back(filed: Workspace) -> None:
    queue(filed, 1, 2)
    code = make_outgoing(1, DAY).address_code
    bounced = MessageBounced(
        occurred_on=DAY, requested_by=BY, site_id=SITE, message_id="x", persistence="permanent", address_code=code
    )
    filed.ledger.append([bounced])
    assert send(filed) == {"overtaken": 2}


def test_a_server_that_ends_amid_a_run(workspace: Workspace, server: MailServer) -> None:
    """What it has not taken waits, and goes out when it is back; of one message nobody may know."""
    queue(workspace, *range(1, 11))
    server.show_faults(delay=0.1)

    def end() -> None:
        while len(list((server.folder / "accepted").glob("*.eml"))) < 3:
            time.sleep(0.01)
        server.end()

    ender = threading.Thread(target=end)
    ender.start()
    try:
        with pytest.raises(SendingFailed, match=r"cannot be reached|breaks off|broke off"):
            send(workspace)
    finally:
        ender.join()
        server.start()
    server.show_faults()
    counts = send(workspace)
    uncertain = {number for number, state in states(workspace).items() if state == "uncertain"}
    assert len(uncertain) == counts["uncertain"] <= 1
    assert counts["sent"] >= 5
    got = delivered(server)
    assert len(got) == len(set(got))
    assert {str(n) for n in range(1, 11)} - uncertain <= set(got)
