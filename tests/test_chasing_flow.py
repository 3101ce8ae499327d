"""The round of chasing as a flow: its tasks, what it leaves to read, and what it says when it fails."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path

import pytest

from flows.chasing import chase_now, chase_sites, list_second_copies, read_mail
from flows.returns import receive_returns_now
from flows.safeguarding import tell_clinicians
from study.events import DispositionRecorded, MessageSent, ObligationChased
from tasks.chasing import chase
from tasks.orchestration import StepFailed
from tasks.safeguarding import acknowledge_alert
from tasks.workspace import Workspace, use_workspace
from tests import test_safeguarding as safeguarding
from tests.chasing_studies import (
    CONTACTS,
    NO_FIGURES,
    joined,
    left,
    list_mail,
    make_study,
    open_chasing,
    raised,
    released,
    set_day,
)
from tests.release_studies import BY, grant, identify
from tests.replays import run_prefect
from tests.test_bad_input import ANN, BEN, TODAY

ONE = identify(1)
LATE = date(2017, 8, 18)
OUT = [*grant("luton", "devon"), *joined(1), *released(1)]


@pytest.fixture
def study(tmp_path: Path) -> Iterator[Workspace]:
    workspace = open_chasing(tmp_path, LATE)
    workspace.ledger.append(OUT)
    yield workspace
    workspace.ledger.close()


@pytest.fixture(scope="module")
def prefect_url() -> Iterator[str]:
    with run_prefect() as url:
        yield url


@pytest.fixture
def run(study: Workspace, prefect_url: str, tmp_path: Path) -> Iterator[Workspace]:
    """The study, with flows of this process on a server of the tests."""
    from prefect.settings import (
        PREFECT_API_URL,
        PREFECT_HOME,
        PREFECT_LOGGING_TO_API_ENABLED,
        temporary_settings,
    )

    settings = {PREFECT_API_URL: prefect_url, PREFECT_HOME: tmp_path, PREFECT_LOGGING_TO_API_ENABLED: False}
    with temporary_settings(settings), use_workspace(study):
        yield study


def test_a_round_by_hand_sends_once(run: Workspace) -> None:
    assert all(state.is_completed() for state in chase_now("trial", BY, as_of=LATE))
    assert [path.suffix for path in list_mail(run)] == [".eml"]
    chase_now("trial", BY, as_of=LATE)
    assert len(list_mail(run)) == 1


def test_a_day_that_is_over_chases_nobody_and_says_so(run: Workspace) -> None:
    chased = chase_sites("trial", LATE - timedelta(days=1), BY)
    assert (chased.states, chased.failures) == ([], [])
    assert chased.note == "Nobody was chased: a chaser belongs to its own day, and today is Friday 18 August 2017."
    assert read_mail("trial", LATE, BY).failures == []
    assert list_mail(run) == []


def test_a_site_whose_files_could_not_be_read_is_asked_for_nothing(run: Workspace) -> None:
    run.ledger.append([*joined(1, site_id="devon"), *released(1, site_id="devon")])
    chased = chase_sites("trial", LATE, BY, not_at=["luton"])
    assert (chased.counts, chased.failures) == (Counter(digests=1, chased=1, sent=1), [])
    assert run.read_events().frame(ObligationChased)["site_id"].tolist() == ["devon"]


def test_a_faulty_contacts_file_fails_the_round_without_quoting_it(run: Workspace) -> None:
    path = run.folder / "contacts.toml"
    path.write_text(CONTACTS.replace('"rosa@luton.invalid"', '"rosa luton.invalid"'), encoding="utf-8")
    chased = chase_sites("trial", LATE, BY)
    (failure, *_) = chased.failures
    assert failure.startswith('Nobody could be chased: contacts.toml: people "rosa": email must be one e-mail address')
    assert "luton.invalid" not in "".join(chased.failures)
    with pytest.raises(StepFailed):
        chase_now("trial", BY, as_of=LATE)
    path.write_text(CONTACTS, encoding="utf-8")
    assert chase_sites("trial", LATE, BY).counts["sent"] == 1


def test_second_copies_that_a_ladder_encloses(run: Workspace) -> None:
    fieldwork = NO_FIGURES.replace('template = "return_overdue"', 'template = "return_overdue"\nencloses_copy = true')
    run.study = make_study(fieldwork)
    assert list_second_copies("trial", LATE).to_dict("records") == [
        {"participant_id": ONE, "respondent": "self", "wave": "baseline"}
    ]
    assert list_second_copies("trial", LATE - timedelta(days=1)).empty
    chase(run, LATE, BY)
    assert list_second_copies("trial", LATE).empty


# Safeguarding alerts --------------------------------------------------------------------------------------------------


def test_what_is_received_by_hand_tells_the_clinician_at_once(run: Workspace, tmp_path: Path) -> None:
    post = safeguarding.begin(tmp_path / "data", safeguarding.make_config(tmp_path / "config"))
    with use_workspace(post.workspace):
        post.put(post.make(safeguarding.concern(ANN)))
        states = receive_returns_now("cdisc_pilot", BY, as_of=TODAY)
        assert [state.name for state in states] == ["Completed", "Completed"]
        assert not any(str(safeguarding.LEVEL) in state.model_dump_json() for state in states)
        assert safeguarding.list_addressees(post) == ["Cleo Clinician"]
        post.put(post.make(safeguarding.concern(BEN), sending_number=2))
        safeguarding.write_contacts(post, "")
        with pytest.raises(StepFailed):
            receive_returns_now("cdisc_pilot", BY, as_of=TODAY)
        _, failures = tell_clinicians("cdisc_pilot", BY)
        assert failures[0].startswith("Safeguarding alerts: Nobody could be told of 702-S0002")
        for alert in ("702-S0001", "702-S0002"):
            acknowledge_alert(post.workspace, alert, "safeguarding_clinician", "email", BY, on=TODAY)
        assert tell_clinicians("cdisc_pilot", BY) == ([], [])
    post.workspace.ledger.close()


# Stop notices, whatever rests -----------------------------------------------------------------------------------------


def test_stop_notices_go_first_on_the_day_whatever_rests(tmp_path: Path) -> None:
    christmas = date(2017, 12, 21)
    workspace = open_chasing(tmp_path, christmas)
    workspace.ledger.append([*grant("luton"), *joined(1, 2, on="2017-12-01"), *released(1, 2, on="2017-12-01")])
    workspace.ledger.append([left(1, christmas), raised(2, "2017-12-04")])
    assert chase(workspace, christmas, BY) == {"stop_notices": 2, "chased": 1, "sent": 2}
    assert chase(workspace, christmas, BY) == {}
    mails = [path.read_text(encoding="utf-8") for path in list_mail(workspace)]
    assert sorted(mail.partition("To: ")[2].partition("\n")[0] for mail in mails) == [
        "Lena Lamb <lena@luton.invalid>", "Rosa Reed <rosa@luton.invalid>",
    ]  # fmt: skip
    assert not any(ONE in line for mail in mails for line in mail.splitlines() if line.startswith("Subject:"))
    (notice,) = (path for path in tmp_path.rglob("stop-*.txt"))
    text = notice.read_text(encoding="utf-8")
    assert notice.parent.name == "outbox"
    assert ONE in text
    assert "Rosa" not in text
    assert "died" not in text.lower()
    # a second person on the same day: another letter
    workspace.ledger.append([left(2, christmas, "questionnaires", "withdrew")])
    assert chase(workspace, christmas, BY)["stop_notices"] == 2
    assert workspace.read_events().frame(MessageSent)["message_id"].tolist()[-1].endswith("-2")
    workspace.ledger.close()


def test_a_stop_notice_without_anybody_to_write_to_lies_in_the_outbox(tmp_path: Path) -> None:
    day = date(2017, 8, 10)
    workspace = open_chasing(tmp_path, day, CONTACTS.replace('site_id = "luton"', 'site_id = "devon"'))
    workspace.ledger.append([*OUT, left(1, day)])
    assert isinstance(left(1, day), DispositionRecorded)
    counts = chase(workspace, day, BY)
    assert (counts["stop_notices"], counts["digests"], counts["sent"]) == (0, 1, 1)  # the manager is told
    assert list(tmp_path.rglob("stop-*.txt"))
    chased = workspace.read_events().frame(ObligationChased)
    assert chased.loc[chased["about"] == "stop_notice", "channel"].tolist() == ["outbox"]
    set_day(workspace, date(2017, 8, 11))
    assert chase(workspace, date(2017, 8, 11), BY) == {}
    workspace.ledger.close()
