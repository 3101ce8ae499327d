"""What has gone wrong with reminders elsewhere, each as a test: through the round itself, its ledger and its outbox."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest

from study.calendar import LONDON, london_day
from study.chasing import derive_chasers
from study.events import MessageQueued, MessageSent, ObligationChased
from tasks import chasing
from tasks.chasing import chase, draw_up
from tasks.outbox import SendingRefused
from tasks.workspace import Workspace
from tests.chasing_studies import (
    accepted,
    chased,
    joined,
    lapsed,
    left,
    list_mail,
    open_chasing,
    paused,
    released,
    resumed,
    set_day,
    who,
)
from tests.release_studies import BY, grant, identify, open_trial

ONE, TWO, THREE = (identify(number) for number in (1, 2, 3))
OUT = [*grant("luton", "devon"), *joined(1), *released(1)]
LATE, CALL, LAST = date(2017, 8, 18), date(2017, 8, 30), date(2017, 9, 13)


@pytest.fixture
def study(tmp_path: Path) -> Iterator[Workspace]:
    """One person's baseline is out since 1 August and due on the 15th."""
    workspace = open_chasing(tmp_path, date(2017, 8, 1))
    workspace.ledger.append(OUT)
    yield workspace
    workspace.ledger.close()


def run(workspace: Workspace, day: date) -> Counter[str]:
    """The day's round of chasing."""
    set_day(workspace, day)
    return chase(workspace, day, BY)


def read_mail(workspace: Workspace) -> list[EmailMessage]:
    letters = [message_from_bytes(path.read_bytes(), policy=policy.default) for path in list_mail(workspace)]
    return sorted(letters, key=lambda letter: (str(letter["Date"]), str(letter["To"])))


def list_letters(workspace: Workspace) -> list[str]:
    """To whom letters went, by the ledger: "2017-08-18 rosa"."""
    events = workspace.read_events()
    queued = events.frame(MessageQueued)
    sent = queued[queued["message_id"].isin(events.frame(MessageSent)["message_id"])]
    assert len(read_mail(workspace)) == len(sent)
    return [f"{row['occurred_on']:%Y-%m-%d} {row['person_id']}" for row in sent.to_dict("records")]


def list_chased(workspace: Workspace) -> list[str]:
    return workspace.read_events().frame(ObligationChased)["key"].tolist()


def list_text(letter: EmailMessage) -> str:
    body = letter.get_body(("plain",))
    assert body is not None
    return str(body.get_content())


def test_no_reminder_after_completion(study: Workspace) -> None:
    study.ledger.append([accepted(1, LATE)])
    for day in (LATE, CALL, LAST):
        assert run(study, day) == {}
    assert list_letters(study) == []


@pytest.mark.parametrize(
    ("scope", "reason"), [("study", "died"), ("study", "withdrew"), ("questionnaires", "withdrew")]
)
def test_no_reminder_to_a_withdrawn_or_dead_participant(study: Workspace, scope: str, reason: str) -> None:
    assert run(study, LATE)["digests"] == 1
    study.ledger.append([left(1, date(2017, 8, 25), scope, reason)])
    for day in (date(2017, 8, 25), CALL, LAST):
        run(study, day)
    of_return = [key for key in list_chased(study) if key.startswith("chase:return")]
    assert of_return == [f"chase:return:{ONE}:self:baseline:late"]
    # whoever still has the pack is told to pull it, on the day
    stops = [key for key in list_chased(study) if key.startswith("stop_notice:")]
    assert len(stops) == 1
    assert {line for line in list_letters(study) if "08-25" in line} == {"2017-08-25 lena", "2017-08-25 rosa"}


def test_not_twice_on_one_day(study: Workspace) -> None:
    assert run(study, LATE) == {"digests": 1, "chased": 1, "sent": 1}
    assert run(study, LATE) == {}
    # what becomes due later that day waits for tomorrow: one letter a day
    study.ledger.append([*joined(2, on="2017-07-25"), *released(2, on="2017-07-25")])
    assert run(study, LATE) == {}
    assert [letter.split()[0] for letter in list_letters(study)] == ["2017-08-18"]
    assert run(study, date(2017, 8, 21))["digests"] == 1
    assert len(set(list_chased(study))) == len(list_chased(study)) == 2


def test_a_change_after_planning_is_heeded(study: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is scheduled ahead; and what comes in between deciding and queueing stops the letter."""
    set_day(study, date(2017, 8, 1))
    assert derive_chasers(study.study, study.read_events(), date(2017, 8, 1))["state"].tolist() == ["coming"]
    word, told = chasing.word_letter, []

    def word_and_hear(*given: Any) -> Any:
        if not told:
            told.append(study.ledger.append([accepted(1, LATE)]))
        return word(*given)

    monkeypatch.setattr(chasing, "word_letter", word_and_hear)
    assert run(study, LATE) == {"undecided": 1}
    assert list_letters(study) == []


def test_news_between_queueing_and_sending_stops_the_letter(study: Workspace) -> None:
    set_day(study, LATE)
    assert chasing.queue_letters(study, LATE, BY)["digests"] == 1
    study.ledger.append([left(1, LATE)])
    counts = chase(study, LATE, BY)
    assert counts["overtaken"] == 1
    assert [key for key in list_chased(study) if key.startswith("chase:return")] == []
    assert all("return" not in list_text(letter).split("REHEARSAL")[0] for letter in read_mail(study))


def test_a_date_in_the_past_sends_nothing_at_once(study: Workspace) -> None:
    """A pack that goes out after its day, and a round for a day that is over."""
    study.ledger.append([*joined(2, on="2017-07-03"), *released(2, on=LATE)])
    run(study, LATE)
    assert list_chased(study) == [f"chase:return:{ONE}:self:baseline:late"]
    with pytest.raises(SendingRefused, match="Nothing is sent as of 2017-08-17"):
        chase(study, LATE - timedelta(days=1), BY)
    with pytest.raises(SendingRefused, match="Nothing is sent as of 2017-08-19"):
        chase(study, LATE + timedelta(days=1), BY)


def test_an_alert_ends_with_its_condition(study: Workspace) -> None:
    """A site whose approval lapsed, one that is paused, and then again one that is not."""
    run(study, LATE)
    study.ledger.append([paused("2017-08-29", "luton")])
    assert run(study, CALL) == {}
    study.ledger.append([resumed("2017-08-31", "luton")])
    assert run(study, date(2017, 8, 31)) == {"digests": 1, "chased": 1, "sent": 1}  # the coordinator, of the call
    study.ledger.append([lapsed("2017-09-12")])
    assert run(study, LAST) == {}
    assert [line.split()[1] for line in list_letters(study)] == ["rosa", "cora"]


@pytest.mark.parametrize("change", [date(2017, 10, 29), date(2018, 3, 25)])
def test_not_an_hour_off_at_a_clock_change(tmp_path: Path, change: date) -> None:
    """What is due on the Monday after goes out from its midnight in London on, and not an hour before."""
    workspace = open_chasing(tmp_path, change)
    begun = change - timedelta(days=18)  # due on the Wednesday before
    workspace.ledger.append([*grant("devon"), *joined(1, on=begun, site_id="devon")])
    workspace.ledger.append(released(1, on=begun, site_id="devon"))
    monday = datetime.combine(change + timedelta(days=1), datetime.min.time(), LONDON).astimezone(UTC)
    sent = []
    for minutes in (-1500, -91, -61, -31, -1, 0, 29, 61, 1439, 1440):
        moment = monday + timedelta(minutes=minutes)
        workspace.clock = workspace.ledger.clock = lambda at=moment: at  # type: ignore[misc]  # bound at once
        day = london_day(moment)
        sent += [minutes] * chase(workspace, day, BY)["sent"]
        for other in (day - timedelta(days=1), day + timedelta(days=1)):
            with pytest.raises(SendingRefused):
                chase(workspace, other, BY)
    assert sent == [0]
    assert list_letters(workspace) == [f"{change + timedelta(days=1)} ravi"]
    workspace.ledger.close()


def test_the_hour_that_comes_twice_runs_the_schedule_twice(tmp_path: Path) -> None:
    """At 01:30 summer time and at 01:30 winter time of one night."""
    day = date(2017, 10, 29)
    workspace = open_chasing(tmp_path, day)
    # queries know no weekend; raised so that its chaser is due on the Friday before
    workspace.ledger.append([*grant("luton"), *joined(1, on="2017-10-02"), *released(1, on="2017-10-02")])
    workspace.ledger.append([paused("2017-10-20", until="2017-10-28")])
    counts = []
    for moment in (datetime(2017, 10, 29, 0, 30, tzinfo=UTC), datetime(2017, 10, 29, 1, 30, tzinfo=UTC)):
        assert moment.astimezone(LONDON).strftime("%H:%M") == "01:30"
        workspace.clock = workspace.ledger.clock = lambda at=moment: at  # type: ignore[misc]  # bound at once
        counts.append(chase(workspace, day, BY)["sent"])
    assert counts == [1, 0]
    workspace.ledger.close()


def test_two_workers_run_the_same_round(study: Workspace, tmp_path: Path) -> None:
    others = [open_chasing(tmp_path, LATE) for _ in range(2)]
    set_day(study, LATE)
    with ThreadPoolExecutor(3) as pool:
        counts = list(pool.map(lambda workspace: chase(workspace, LATE, BY), [study, *others]))
    assert sum(found["sent"] for found in counts) == 1
    assert list_letters(study) == ["2017-08-18 rosa"]
    assert list_chased(study) == [f"chase:return:{ONE}:self:baseline:late"]
    for workspace in others:
        workspace.ledger.close()


@pytest.mark.parametrize("n", range(6))
def test_a_crash_between_any_two_records(study: Workspace, tmp_path: Path, n: int) -> None:
    """The round dies before its n-th record; the next one takes up what was begun, and no letter goes out twice."""
    study.ledger.append([*joined(2, site_id="devon"), *released(2, site_id="devon")])
    set_day(study, LATE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tasks.ledger.Writing.append", die_before(n))
        with pytest.raises(Died):
            chase(study, LATE, BY)
    study.ledger.close()
    again = open_chasing(tmp_path, LATE)
    chase(again, LATE, BY)
    assert sorted(list_letters(again)) == ["2017-08-18 ravi", "2017-08-18 rosa"]
    assert len(list_chased(again)) == len(set(list_chased(again))) == 2
    again.ledger.close()


class Died(BaseException):
    """The program was ended."""


def die_before(n: int) -> Callable[..., Any]:
    from tasks.ledger import Writing

    append, done = Writing.append, []

    def append_or_die(writing: Writing, events: Any) -> Any:
        if len(done) == n:
            raise Died
        done.append(1)
        return append(writing, events)

    return append_or_die


def test_imported_records_are_chased_and_start_no_flood(tmp_path: Path) -> None:
    """A history that is told all at once, long after: one letter, by the step of today, for each that is owed."""
    day = date(2017, 9, 15)
    workspace = open_chasing(tmp_path, day)
    workspace.ledger.append([*OUT, *joined(2), *released(2), accepted(2, "2017-08-20")])
    counts = run(workspace, day)
    assert counts["digests"] == 2  # to the lead, and to the manager who is told
    keys = list_chased(workspace)
    assert keys == [
        f"chase:return:{ONE}:self:baseline:last",
        f"chase:return:{ONE}:self:baseline:last:told:project_manager",
    ]
    workspace.ledger.close()


def test_duplicates_in_the_list_of_people_give_one_message(study: Workspace) -> None:
    """The same person screened, consented and released again, by another sending and in another pack."""
    study.ledger.append([*joined(1), *released(1), *released(1, on="2017-08-02", copy=2)])
    run(study, LATE)
    (letter,) = read_mail(study)
    assert list_text(letter).count(ONE) == 1
    assert len(list_chased(study)) == 1


def test_a_withdrawal_dated_before_consent_holds(study: Workspace) -> None:
    study.ledger.append([left(1, date(2017, 7, 20), "study", "withdrew")])
    for day in (LATE, CALL, LAST):
        run(study, day)
    assert [key for key in list_chased(study) if key.startswith("chase:return")] == []


def test_reminders_sent_never_exceed_those_eligible(study: Workspace) -> None:
    study.ledger.append([*joined(2, 3), *released(2, 3), accepted(2, "2017-08-21")])
    for n in range(45):
        day = date(2017, 8, 14) + timedelta(days=n)
        set_day(study, day)
        drawn = draw_up(study, day)
        eligible = drawn.rungs[(drawn.rungs["state"] == "due")]["key"].tolist()
        before = set(list_chased(study))
        chase(study, day, BY)
        new = set(list_chased(study)) - before
        assert new <= set(eligible)
    ladder = Counter(key.split(":")[2] for key in list_chased(study) if "told" not in key)
    assert ladder == {ONE: 3, TWO: 2, THREE: 3}  # soon, late and last; the call is on the coordinator's list


def test_a_letter_names_nobody_in_its_subject_and_who_left_gets_none(tmp_path: Path) -> None:
    contacts = open_trial(tmp_path / "x", LATE)
    contacts.ledger.close()
    workspace = open_chasing(tmp_path, LATE, CONTACTS_OF_LEAVER)
    workspace.ledger.append([*OUT, *chased(f"chase:return:{ONE}:self:baseline:soon")])
    counts = run(workspace, LATE)
    assert counts["unreachable"] == 1
    (letter,) = read_mail(workspace)
    assert "mona@study.invalid" in str(letter["To"])  # the manager is told that nobody is there
    assert ONE not in str(letter["Subject"])
    assert who(1, LATE)["participant_id"] not in list_text(letter)
    workspace.ledger.close()


CONTACTS_OF_LEAVER = """
[[people]]
person_id = "rosa"
name = "Rosa Reed"
email = "rosa@luton.invalid"
role = "site_researcher"
site_id = "luton"
until_on = 2017-08-17

[[people]]
person_id = "mona"
name = "Mona Mann"
email = "mona@study.invalid"
role = "project_manager"
"""
