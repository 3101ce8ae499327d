"""The mailbox: real bounces, delays and absence notices of real mail servers, and the forms of other makers' ones."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from email.message import EmailMessage
from pathlib import Path
from textwrap import dedent

import pytest

from study.events import ReplyReceived
from study.messages import compute_message_code, derive_messages, derive_replies, find_stopped_addresses
from tasks.mailbox import Bounce, MailboxUnavailable, Received, Reply, classify, read_mailbox, read_mails, record_mails
from tasks.orchestration import StepFailed
from tasks.outbox import send_waiting
from tasks.workspace import Workspace
from tests.conftest import give_up
from tests.outgoing_messages import BY, make_outgoing, open_outbox, queue, today
from tests.post_office import PostOffice, run_post_office
from tests.releases import Clock, move_clock
from tests.services import ServiceMissing

DAY = date(2017, 9, 4)
NOON = datetime(2017, 9, 4, 12, tzinfo=UTC)
OURS = "study@summative.example"
CODE = compute_message_code("ipc", f"digest-luton-{DAY}-1")
OUR_ID = f"<summative.{CODE}.1@summative.example>"
ELSEWHERE = f"<summative.{compute_message_code('other', 'm')}.1@summative.example>"


# ---------------------------------------------------------------- real servers


@pytest.fixture(scope="module")
def running() -> Iterator[PostOffice]:
    service = run_post_office()
    try:
        office = service.__enter__()
    except ServiceMissing as reason:
        give_up(reason)
    try:
        yield office
    finally:
        service.__exit__(None, None, None)


@pytest.fixture
def office(running: PostOffice) -> PostOffice:
    running.empty()
    return running


@pytest.fixture
def live(tmp_path: Path, ledger_url: str, office: PostOffice) -> Iterator[Workspace]:
    workspace = open_outbox(tmp_path, ledger_url, **office.settings)
    yield workspace
    workspace.ledger.close()


def states(workspace: Workspace) -> dict[str, tuple[str, str]]:
    messages = derive_messages(workspace.read_events(), today(workspace))
    numbers = [name.rpartition("-")[2] for name in messages["message_id"]]
    return dict(zip(numbers, zip(messages["state"], messages["status"], strict=True), strict=True))


def test_what_real_servers_send_back(live: Workspace, office: PostOffice) -> None:
    """One arrives, one is returned, one is late, one is answered by a program, and one by Anna."""
    people = ["anna@luton.example", "nobody@luton.example", "someone@far.example", "absent@luton.example"]
    for number, address in enumerate(people, start=1):
        queue(live, number, address=address)
    day = today(live)
    assert send_waiting(live, day, BY) == {"sent": 4}
    (letter,) = office.wait_for_mail("anna", 1)
    answer = EmailMessage()
    answer["From"] = "Anna <anna@luton.example>"
    answer["Message-ID"] = "<answer@luton.example>"
    answer["In-Reply-To"] = letter["Message-ID"]
    answer.set_content("Two people have moved away.")
    office.drop(answer)
    office.wait_for_mail("study", 4)
    before = [(mail["Message-ID"], mail.as_bytes()) for mail in office.read_mail("study")]

    assert read_mailbox(live, day, BY) == {"bounced": 1, "delayed": 1, "automatic": 1, "answered": 1}
    assert states(live) == {"1": ("sent", ""), "2": ("bounced", "5.0.0"), "3": ("delayed", "4.0.0"), "4": ("sent", "")}
    assert find_stopped_addresses(live.read_events()) == {make_outgoing(2, day, address=people[1]).address_code}
    replies = derive_replies(live.read_events(), day).set_index("person_id")
    assert replies["is_automatic"].to_dict() == {"person1": False, "person4": True}
    assert replies["message_id"].to_dict() == {name: f"digest-luton-{day}-{name[-1]}" for name in replies.index}

    # Reading again adds nothing, and nothing was touched: no mail is marked as read, moved or gone.
    head = live.ledger.head()
    assert set(read_mailbox(live, day, BY)) == {"known"}
    assert live.ledger.head() == head
    assert [(mail["Message-ID"], mail.as_bytes()) for mail in office.read_mail("study")] == before
    flagged = [path.name for path in (office.mailbox / "cur").iterdir() if not path.name.endswith(":2,")]
    assert flagged == []
    text = live.ledger.history().to_string()
    assert "moved away" not in text
    assert "luton.example" not in text


def test_a_mailbox_that_refuses(tmp_path: Path, office: PostOffice) -> None:
    for changes, said in (
        ({"imap_password": "wrong"}, "refuses the login or has no folder INBOX"),
        ({"mail_folder": "Nowhere"}, "has no folder Nowhere"),
        ({"mail_authority": ""}, "certificate that is not trusted"),
        ({"imap_url": f"imaps://study@localhost:{office.closed_port}"}, "cannot be reached"),
    ):
        workspace = open_outbox(tmp_path, **{**office.settings, **changes})
        with pytest.raises(MailboxUnavailable, match=said) as told:
            read_mailbox(workspace, today(workspace), BY)
        assert office.password not in str(told.value)
        workspace.ledger.close()


def test_only_recent_mail_is_fetched(live: Workspace, office: PostOffice) -> None:
    """Servers give up after days, people answer within weeks: what is older was read long ago."""
    for subject, age in (("old", 40), ("recent", 20)):
        mail = EmailMessage()
        mail["From"], mail["Subject"], mail["Message-ID"] = "b@c.example", subject, f"<{subject}@c.example>"
        mail.set_content("x")
        office.drop(mail)
        path = max((office.mailbox / "new").iterdir(), key=lambda path: path.name)
        moment = (datetime.now(UTC) - timedelta(days=age)).timestamp()
        os.utime(path, (moment, moment))
    assert read_mailbox(live, today(live), BY) == {"unmatched": 1}
    (received_on,) = derive_replies(live.read_events(), today(live))["received_on"]
    assert (today(live) - received_on.date()).days == 20


# ---------------------------------------------------------------- forms of mail


def write(text: str) -> bytes:
    """A mail from its lines; OUR_ID stands for the Message-ID of ours."""
    return dedent(text).lstrip().replace("OUR_ID", OUR_ID).replace("ELSEWHERE", ELSEWHERE).encode()


def report(action: str, status: str, returned: str = "message/rfc822", own: str = "OUR_ID", more: str = "") -> bytes:
    return write(
        f"""
        From: postmaster@nhs.example
        Subject: Undeliverable
        Message-ID: <report@nhs.example>
        Content-Type: multipart/report; report-type=delivery-status; boundary=b
        {more}
        --b
        Content-Type: text/plain

        Words.
        --b
        Content-Type: message/delivery-status

        Reporting-MTA: dns; nhs.example

        Final-Recipient: rfc822; anna@nhs.example
        Action: {action}
        Status: {status}
        --b
        Content-Type: {returned}

        From: {OURS}
        Message-ID: {own}
        Subject: What is owed

        Text
        --b--
        """
    )


QMAIL = """
    Return-Path: <>
    From: MAILER-DAEMON@luton.example
    Subject: failure notice

    Hi. This is the qmail-send program at luton.example.
    <anna@luton.example>:
    {words}

    --- Below this line is a copy of the message.

    Message-ID: OUR_ID
    Subject: 4.2.2 of our own
    """
HUMAN = """
    From: Anna <anna@luton.example>
    Subject: {subject}
    Message-ID: <answer@luton.example>
    {more}

    Text with {quoted}
    """


def human(subject: str = "Re: What is owed", more: str = "In-Reply-To: OUR_ID", quoted: str = "nothing") -> bytes:
    return write(HUMAN.format(subject=subject, more=more, quoted=quoted))


@pytest.mark.parametrize(
    ("mail", "found"),
    [
        (report("failed", "5.1.1"), Bounce(CODE, "permanent", "5.1.1")),
        (report("failed", "5.1.10 (unknown)"), Bounce(CODE, "permanent", "5.1.10")),
        (report("delayed", "4.4.7"), Bounce(CODE, "temporary", "4.4.7")),
        (report("failed", "4.4.7"), Bounce(CODE, "permanent", "4.4.7")),  # it has given up, whatever the code
        (report("failed", ""), Bounce(CODE, "permanent", "")),
        (report("Failed", "5.1.1", "text/rfc822-headers"), Bounce(CODE, "permanent", "5.1.1")),
        (report("failed", "5.1.1", own="OUR_ID".lower()), None),
        (report("failed", "5.1.1", own="<x@y>", more="References: OUR_ID\n"), Bounce(CODE, "permanent", "5.1.1")),
        (report("delivered", "2.0.0"), None),
        (report("relayed", "2.0.0"), None),
        (report("failed", "5.1.1", own="<somebody@else.example>"), None),
        (write(QMAIL.format(words="550 No such user")), Bounce(CODE, "permanent", "550")),
        (write(QMAIL.format(words="550-5.1.1 No such user")), Bounce(CODE, "permanent", "5.1.1")),
        (write(QMAIL.format(words="451 4.2.2 Mailbox full")), Bounce(CODE, "temporary", "4.2.2")),
        (write(QMAIL.format(words="I will keep trying.")), Bounce(CODE, "temporary", "")),
        (write(QMAIL.format(words="No such user")), Bounce(CODE, "permanent", "")),
        (write(QMAIL.format(words="550 x").replace("OUR_ID", "<a@b>")), None),
    ],
)
def test_reports(mail: bytes, found: Bounce | None) -> None:
    assert classify(mail, OURS) == found


@pytest.mark.parametrize(
    ("mail", "codes", "is_automatic"),
    [
        (human(), (CODE,), False),
        (human(more="References: <a@b> OUR_ID"), (CODE,), False),
        (human(more="References: ELSEWHERE OUR_ID"), (CODE, ELSEWHERE[11:35]), False),
        (human(more="X-Nothing: x", quoted="OUR_ID"), (), False),  # a text that quotes us says nothing
        (human(more="Auto-Submitted: no"), (), False),
        (human(more="Auto-Submitted: auto-replied; owner"), (), True),
        (human(more="Auto-Submitted: auto-generated"), (), True),
        (human(more="Precedence: auto_reply"), (), True),
        (human(more="X-Auto-Response-Suppress: All"), (), True),
        (human(subject="Automatic reply: What is owed"), (CODE,), True),
        (human(subject="Out of the office until Monday"), (CODE,), True),
        (human(subject="Out of paper"), (CODE,), False),
        (human(more='Content-Type: multipart/report; report-type=disposition-notification; boundary="b"'), (), True),
        (human(subject="=?utf-8?b?UmU6IGTDvA==?="), (CODE,), False),
    ],
)
def test_answers(mail: bytes, codes: tuple[str, ...], is_automatic: bool) -> None:
    found = classify(mail, OURS)
    assert isinstance(found, Reply)
    assert (found.codes, found.is_automatic) == (codes, is_automatic)
    assert found.address == "anna@luton.example"


def test_our_own_mail_is_passed_over() -> None:
    mail = write(f"From: Us <{OURS}>\nX-Summative-Message: {CODE}.1\nMessage-ID: OUR_ID\n\nText\n")
    assert classify(mail, OURS) is None
    assert classify(mail, "another@address.example") is not None


def test_a_reply_without_an_id_is_known_by_its_bytes() -> None:
    one, same, other = (classify(write(f"From: a@b.example\n\n{text}\n"), OURS) for text in ("Text", "Text", "Another"))
    assert one == same != other


# ---------------------------------------------------------------- what is recorded


@pytest.fixture
def filed(tmp_path: Path) -> Iterator[Workspace]:
    workspace = open_outbox(tmp_path, clock=Clock(DAY), mail_from=OURS)
    queue(workspace, 1, address="anna@luton.example")
    queue(workspace, 2)
    send_waiting(workspace, DAY, BY)
    yield workspace
    workspace.ledger.close()


def record(workspace: Workspace, *mails: bytes, at: datetime = NOON) -> Counter[str]:
    return record_mails(workspace, [Received(mail, at) for mail in mails], today(workspace), BY)


@pytest.mark.parametrize(
    ("mail", "word", "message_id", "person_id"),
    [
        (human(), "answered", f"digest-luton-{DAY}-1", "person1"),
        (human(more="References: ELSEWHERE OUR_ID"), "answered", f"digest-luton-{DAY}-1", "person1"),
        (human(more="X: y"), "answered", "", "person1"),  # by the sender's address
        (human(more="X: y").replace(b"anna@", b"ANNA@"), "answered", "", "person1"),
        (human(more="X: y").replace(b"anna@", b"other@"), "unmatched", "", ""),
        (human(subject="Automatic reply: x"), "automatic", f"digest-luton-{DAY}-1", "person1"),
    ],
)
def test_whose_answer_it_is(filed: Workspace, mail: bytes, word: str, message_id: str, person_id: str) -> None:
    assert record(filed, mail, mail) == Counter({word: 1, "known": 1})
    (row,) = filed.read_events().frame(ReplyReceived).to_dict("records")
    assert (row["message_id"], row["person_id"]) == (message_id, person_id)
    assert row["site_id"] == ("luton" if person_id else "")


@pytest.mark.parametrize("mail", [human(more="In-Reply-To: ELSEWHERE"), report("failed", "5.1.1", own="ELSEWHERE")])
def test_mail_about_another_study_is_left_alone(filed: Workspace, mail: bytes) -> None:
    head = filed.ledger.head()
    assert record(filed, mail) == {"passed_over": 1}
    assert filed.ledger.head() == head


def test_a_forged_report_silences_nobody(filed: Workspace) -> None:
    """It names the address, but no message of ours."""
    assert record(filed, report("failed", "5.1.1", own="<guessed@summative.example>")) == {"passed_over": 1}
    assert find_stopped_addresses(filed.read_events()) == frozenset()


def test_one_report_told_twice_is_one_bounce(filed: Workspace) -> None:
    mails = [report("delayed", "4.4.7"), report("delayed", "4.4.7"), report("failed", "5.1.1")]
    assert record(filed, *mails) == {"delayed": 1, "known": 1, "bounced": 1}
    assert states(filed)["1"] == ("bounced", "5.1.1")


def test_a_date_in_the_future_is_today(filed: Workspace) -> None:
    assert record(filed, human(), at=NOON + timedelta(days=900)) == {"answered": 1}
    assert derive_replies(filed.read_events(), DAY)["received_on"].dt.date.tolist() == [DAY]
    move_clock(filed, date(2017, 9, 5))
    assert record(filed, human(), at=NOON + timedelta(days=900)) == {"known": 1}


@pytest.mark.parametrize(
    "mail",
    [
        b"",
        b"\xff\xfe\x00",
        b"From: \xff\xfe <a@b\nContent-Type: multipart/mixed; boundary=\n\n",
        b"Content-Type: multipart/report; report-type=delivery-status; boundary=b\n\n--b\n"
        b"Content-Type: message/delivery-status\n\n\xff\n--b\nContent-Type: message/rfc822\n\n",
        b"Content-Type: text/plain; charset=no-such\nContent-Transfer-Encoding: base64\n\n!!!!",
        b"Message-ID: =?x?q?=?=\nSubject: =?utf-8?b?/////?=\nFrom: mailer-daemon\nX-Failed-Recipients: x\n\n"
        + b"a" * 9999,
    ],
)
def test_hostile_mail_stops_nothing(filed: Workspace, mail: bytes) -> None:
    counts = record(filed, mail, human())
    assert counts["answered"] == 1
    assert sum(counts.values()) == 2


def test_a_replay_reads_nobodys_mailbox(tmp_path: Path, filed: Workspace) -> None:
    filed.settings = filed.settings.model_copy(update={"imap_url": f"maildir:{tmp_path}/nowhere"})
    assert read_mailbox(filed, DAY, BY) == {}


# ---------------------------------------------------------------- a Maildir folder


def test_a_maildir_is_read_and_left_as_it_is(tmp_path: Path) -> None:
    folder = tmp_path / "Maildir"
    for part in ("new", "cur", "tmp"):
        (folder / part).mkdir(parents=True)
    workspace = open_outbox(tmp_path, imap_url=f"maildir:{folder}", mail_from=OURS)
    day = today(workspace)
    queue(workspace, 1)
    send_waiting(workspace, day, BY)
    own_id = f"<summative.{compute_message_code('ipc', f'digest-luton-{day}-1')}.1@x>"
    (folder / "new" / "2").write_bytes(human().replace(OUR_ID.encode(), own_id.encode()))
    (folder / "cur" / "1:2,S").write_bytes(report("failed", "5.1.1", own=own_id))
    (folder / "tmp" / "3").write_bytes(b"half")
    old = folder / "new" / "0"
    old.write_bytes(human(more="X: y"))
    os.utime(old, (0, 0))
    assert read_mailbox(workspace, day, BY) == {"bounced": 1, "answered": 1}
    assert read_mailbox(workspace, day, BY) == {"known": 2}
    assert sorted(path.name for path in folder.rglob("*") if path.is_file()) == ["0", "1:2,S", "2", "3"]
    with pytest.raises(StepFailed, match="it holds what came until now"):
        read_mailbox(workspace, day - timedelta(days=1), BY)
    workspace.ledger.close()


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("maildir:nowhere", "is no Maildir that can be read"),
        ("imap://a@localhost", "is no mailbox"),
        ("imaps://localhost", "is no mailbox"),
        ("imaps://a:secret@localhost", "is no mailbox"),
    ],
)
def test_a_url_that_is_no_mailbox(tmp_path: Path, url: str, said: str) -> None:
    workspace = open_outbox(tmp_path, imap_url=url)
    with pytest.raises(MailboxUnavailable, match=said) as told:
        list(read_mails(workspace.settings, NOON))
    assert "secret" not in str(told.value)
    workspace.ledger.close()
