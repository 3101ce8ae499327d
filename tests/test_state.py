"""Folding rows into frames: literal ledgers, read as of a date and as known at a moment."""

from datetime import UTC, date, datetime, timedelta
from typing import Any, cast
from zoneinfo import ZoneInfo

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from study.approval_entries import foresee
from study.configuration import find_in_force
from study.events import (
    ConfigurationAdopted,
    ConsentRecorded,
    DispositionRecorded,
    Event,
    ParticipantAllocated,
    ParticipantScreened,
    QueryClosed,
    QueryRaised,
    ReturnAccepted,
    ReturnFileProcessed,
    Source,
    StudyDayCompleted,
    UnknownKind,
    Voided,
)
from study.state import (
    EMPTY,
    ROW_TYPES,
    Events,
    Head,
    decode_rows,
    derive_dispositions,
    derive_files,
    derive_frame,
    derive_participants,
    derive_queries,
    derive_returns,
    format_moment,
    is_in,
    parse_head,
    parse_moment,
    remembered,
)

LONDON = ZoneInfo("Europe/London")
NOON = datetime(2024, 3, 1, 12, tzinfo=UTC)
A, B = "a" * 64, "b" * 64
WHO = {"requested_by": "Siân Ó Briain", "site_id": "701"}


def on(day: str, kind: type[Event], **fields: Any) -> Event:
    return kind(occurred_on=day, **{**WHO, **fields})


def name_hash(seq: int) -> str:
    return f"{seq:064x}"


def tell(*rows: Event | tuple[Event, datetime]) -> Events:
    """The ledger in which these stand as rows 1, 2, ..., recorded at the given moment or on successive minutes."""
    lines = []
    for seq, told in enumerate(rows, start=1):
        event, moment = told if isinstance(told, tuple) else (told, NOON + timedelta(minutes=seq))
        source = event.source or Source.model_construct(sha256="", sheet="", row=0)
        columns = {
            "seq": seq,
            "key": event.key,
            "hash": name_hash(seq),
            "site_id": event.site_id,
            "participant_id": event.participant_id,
            "occurred_on": event.occurred_on.isoformat(),
            "recorded_at": format_moment(moment),
            "requested_by": event.requested_by,
            "source_sha256": source.sha256,
            "source_sheet": source.sheet,
            "source_row": source.row,
            "kind": event.kind,
            "kind_version": event.kind_version,
            "payload": event.encode_payload(),
        }
        lines.append("\x1f".join(str(columns[name]) for name in ROW_TYPES))
    head = Head(len(rows), name_hash(len(rows)))
    return Events({}).extend([decode_rows("\n".join(lines).encode())] if lines else [], head)


def screened(participant_id: str, day: str = "2024-03-01", **fields: Any) -> Event:
    return on(day, ParticipantScreened, **{"participant_id": participant_id, "cohort": "older_adults", **fields})


def accepted(participant_id: str, version: int, **fields: Any) -> Event:
    record = {"respondent": "self", "wave": "baseline", "instrument": "mmse", "form": "standard", "n_items": 6}
    record |= {"return_id": f"701-{version}", "n_answered": 6, "responses_sha256": A, "version": version}
    return on("2024-03-02", ReturnAccepted, **{"participant_id": participant_id, **record, **fields})


def test_empty_ledger_has_every_frame_with_its_columns() -> None:
    events = tell()
    assert events.count_rows() == 0
    for frame in (
        derive_participants(events),
        derive_returns(events),
        derive_queries(events),
        derive_files(events),
        derive_dispositions(events),
    ):
        assert frame.empty
        assert len(frame.columns) > 10
    assert derive_returns(events)["occurred_on"].dtype == "datetime64[us]"
    assert derive_returns(events)["version"].dtype == "int64"


def test_frame_has_envelope_and_payload_as_told() -> None:
    source = Source(sha256=B, sheet='Log, "NA"', row=7)
    events = tell(
        on(
            "2024-02-29",
            ConsentRecorded,
            participant_id="P1",
            form_version="NA",
            scopes=("b", "a"),
            basis="signed",
            source=source,
        )
    )
    [row] = events.frame(ConsentRecorded).to_dict("records")
    assert row == {
        "seq": 1,
        "key": "consent:P1:NA",
        "hash": name_hash(1),
        "site_id": "701",
        "participant_id": "P1",
        "occurred_on": pd.Timestamp("2024-02-29"),
        "recorded_at": pd.Timestamp("2024-03-01T12:01", tz="UTC"),
        "requested_by": "Siân Ó Briain",
        "source_sha256": B,
        "source_sheet": 'Log, "NA"',
        "source_row": 7,
        "form_version": "NA",
        "scopes": "a;b",
        "basis": "signed",
        **dict.fromkeys(("renewal", "route", "taken_by", "capacity", "sixteen_in", "copy_filed", "form"), ""),
    }


def test_date_that_was_left_out_is_missing() -> None:
    common = {"size_bytes": 1, "outcome": "accepted"}
    files = derive_files(
        tell(
            on("2024-03-01", ReturnFileProcessed, sha256=A, **common),
            on("2024-03-01", ReturnFileProcessed, sha256=B, posted_on="2024-02-29", **common),
        )
    )
    assert files["posted_on"].isna().tolist() == [True, False]
    assert files["return_id"].tolist() == ["", ""]


# Row 3 voids row 1, and row 4 tells it again with the right date; row 2 is a late date, told last of all.
CORRECTED = (
    (screened("P1", "2024-03-05"), datetime(2024, 3, 6, 9, tzinfo=UTC)),
    (screened("P2", "2024-03-10"), datetime(2024, 3, 10, 9, tzinfo=UTC)),
    (on("2024-03-12", Voided, voids=name_hash(1), reason="wrong_date"), datetime(2024, 3, 12, 9, tzinfo=UTC)),
    (screened("P1", "2024-03-04"), datetime(2024, 3, 12, 9, 0, 0, 1, tzinfo=UTC)),
    (screened("P3", "2024-03-01"), datetime(2024, 3, 20, 9, tzinfo=UTC)),
)


@pytest.mark.parametrize(
    ("as_of", "known_at", "believed"),
    [
        (None, None, {"P1": "2024-03-04", "P2": "2024-03-10", "P3": "2024-03-01"}),
        ("2024-02-29", None, {}),
        ("2024-03-01", None, {"P3": "2024-03-01"}),
        ("2024-03-03", None, {"P3": "2024-03-01"}),
        ("2024-03-04", None, {"P1": "2024-03-04", "P3": "2024-03-01"}),
        ("2024-03-09", None, {"P1": "2024-03-04", "P3": "2024-03-01"}),
        ("2024-03-10", None, {"P1": "2024-03-04", "P2": "2024-03-10", "P3": "2024-03-01"}),
        (None, "2024-03-06T08:59:59.999999Z", {}),
        (None, "2024-03-06T09:00:00.000000Z", {"P1": "2024-03-05"}),
        (None, "2024-03-12T08:59:59.999999Z", {"P1": "2024-03-05", "P2": "2024-03-10"}),
        (None, "2024-03-12T09:00:00.000000Z", {"P2": "2024-03-10"}),
        (None, "2024-03-12T09:00:00.000001Z", {"P1": "2024-03-04", "P2": "2024-03-10"}),
        ("2024-03-04", "2024-03-11T00:00:00.000000Z", {}),
        ("2024-03-05", "2024-03-11T00:00:00.000000Z", {"P1": "2024-03-05"}),
        # Row 1 was never true, although the void's own date is later than as_of.
        ("2024-03-05", "2024-03-12T09:00:00.000000Z", {}),
    ],
)
def test_what_was_believed(as_of: str | None, known_at: str | None, believed: dict[str, str]) -> None:
    day = date.fromisoformat(as_of) if as_of else None
    for events in (
        tell(*CORRECTED).select(as_of=day, known_at=known_at),
        tell(*CORRECTED).select(as_of=day).select(known_at=known_at),
        tell(*CORRECTED).select(known_at=known_at).select(as_of=day),
        tell(*CORRECTED).select(as_of=day, known_at=parse_moment(known_at).astimezone(LONDON) if known_at else None),
    ):
        people = derive_participants(events)
        assert dict(zip(people["participant_id"], people["screened_on"].astype(str), strict=True)) == believed


def test_view_only_narrows() -> None:
    events = tell(*CORRECTED).select(as_of=date(2024, 3, 4), known_at="2024-03-13T00:00:00.000000Z")
    wider = events.select(as_of=date(2024, 3, 31), known_at="2024-03-31T00:00:00.000000Z")
    assert derive_participants(wider)["participant_id"].tolist() == ["P1"]


def test_moment_needs_a_zone() -> None:
    with pytest.raises(ValueError, match="has no time zone"):
        tell().select(known_at=datetime(2024, 3, 1))  # noqa: DTZ001 (the fault on trial)


# On 31 March 2024 clocks go from 01:00 GMT to 02:00 BST; on 27 October 01:30 comes twice.
@pytest.mark.parametrize(
    ("moment", "text"),
    [
        (datetime(2024, 3, 31, 0, 59, 59, tzinfo=LONDON), "2024-03-31T00:59:59.000000Z"),
        (datetime(2024, 3, 31, 2, 0, tzinfo=LONDON), "2024-03-31T01:00:00.000000Z"),
        (datetime(2024, 10, 27, 1, 30, tzinfo=LONDON, fold=0), "2024-10-27T00:30:00.000000Z"),
        (datetime(2024, 10, 27, 1, 30, tzinfo=LONDON, fold=1), "2024-10-27T01:30:00.000000Z"),
    ],
)
def test_moments_of_clock_changes(moment: datetime, text: str) -> None:
    assert format_moment(moment) == text
    assert parse_moment(text) == moment.astimezone(UTC)


def test_hour_that_comes_twice_is_told_apart() -> None:
    first, second = (datetime(2024, 10, 27, 1, 30, tzinfo=LONDON, fold=fold) for fold in (0, 1))
    events = tell((screened("P1", "2024-10-27"), first), (screened("P2", "2024-10-27"), second))
    assert derive_participants(events.select(known_at=first))["participant_id"].tolist() == ["P1"]
    assert derive_participants(events.select(known_at=second))["participant_id"].tolist() == ["P1", "P2"]


def test_participants() -> None:
    consent = {"scopes": ("interview",), "basis": "signed"}
    events = tell(
        on("2024-03-09", DispositionRecorded, participant_id="P1", scope="treatment", reason="adverse_event"),
        screened("P2", "2024-03-02"),
        screened("P1", "2024-03-01"),
        on("2024-03-08", ConsentRecorded, participant_id="P1", form_version="2", **consent),
        on(
            "2024-03-02", ConsentRecorded, participant_id="P1", form_version="1", scopes=("interview",), basis="assumed"
        ),
        on("2024-03-05", ParticipantAllocated, participant_id="P1", arm="placebo"),
        on("2024-03-03", DispositionRecorded, participant_id="P2", scope="study", reason="screen_failure"),
        on("2024-03-09", DispositionRecorded, participant_id="P1", scope="questionnaires", reason="withdrew"),
        on("2024-03-20", DispositionRecorded, participant_id="P2", scope="questionnaires", reason="withdrew"),
        on("2024-03-05", ParticipantAllocated, participant_id="P0", arm="high_dose", site_id="702"),
    )
    people = derive_participants(events).astype(object)
    shown = people.where(people.notna(), None).to_numpy().tolist()
    day = {n: pd.Timestamp(f"2024-03-0{n}") for n in range(1, 10)}
    assert shown == [
        ["P0", "702", None, None, None, None, "high_dose", day[5], None, None, None],
        [
            "P1",
            "701",
            "older_adults",
            day[1],
            day[2],
            "assumed",
            "placebo",
            day[5],
            "withdrew",
            "questionnaires",
            day[9],
        ],
        ["P2", "701", "older_adults", day[2], None, None, None, None, "screen_failure", "study", day[3]],
    ]
    assert len(derive_dispositions(events)) == 4


def test_newest_standing_version_of_a_return_is_current() -> None:
    events = tell(
        accepted("P1", 1),
        accepted("P1", 2),
        accepted("P1", 10),
        accepted("P2", 1),
        accepted("P1", 1, wave="week_4"),
        (on("2024-03-03", Voided, voids=name_hash(3), reason="wrong_participant"), datetime(2024, 3, 3, tzinfo=UTC)),
    )
    before = derive_returns(events.select(known_at="2024-03-02T23:59:59.999999Z"))
    assert before["is_current"].tolist() == [False, False, True, True, True]
    after = derive_returns(events)
    assert after["version"].tolist() == [1, 2, 1, 1]
    assert after["is_current"].tolist() == [False, True, True, True]


def test_queries_open_and_close() -> None:
    def raised(number: int, **fields: Any) -> Event:
        query = {"query_id": f"701-{number}", "rule": "out_of_range", "severity": "hard", "subject": "file:1"}
        return on("2024-03-02", QueryRaised, **{**query, "episode": number, **fields})

    events = tell(
        on("2024-03-09", QueryClosed, query_id="701-2", reason="mended"),
        raised(1),
        raised(2),
        raised(3),
        on("2024-03-08", QueryClosed, query_id="701-3", reason="withdrawn"),
        on("2024-03-09", Voided, voids=name_hash(5), reason="entered_in_error"),
    )
    columns = ["query_id", "status", "raised_on", "closed_on", "close_reason"]
    queries = derive_queries(events)[columns].astype(str).fillna("").to_numpy().tolist()
    assert queries == [
        ["701-1", "open", "2024-03-02", "", ""],
        ["701-2", "closed", "2024-03-02", "2024-03-09", "mended"],
        ["701-3", "open", "2024-03-02", "", ""],
    ]
    assert derive_queries(events.select(as_of=date(2024, 3, 8)))["status"].tolist() == ["open"] * 3


@pytest.mark.parametrize(
    ("day", "protocol"),
    [("2024-02-29", None), ("2024-03-01", "a"), ("2024-03-04", "a"), ("2024-03-05", "c"), ("2024-12-31", "c")],
)
def test_configuration_of_the_day(day: str, protocol: str | None) -> None:
    def adopted(on_day: str, digit: str, follows: str = "", **fields: str) -> Event:
        part = {"part": "protocol", "name": "ipc", "sha256": digit * 64, "follows": follows * 64, "site_id": ""}
        return on(on_day, ConfigurationAdopted, **{**part, **fields})

    events = tell(
        adopted("2024-03-05", "b", "a"),
        adopted("2024-03-05", "c", "b"),
        adopted("2024-03-01", "a"),  # learned of last: what was in force is decided by its date
        adopted("2024-02-01", "d", part="site", name="luton"),
    )
    configuration = find_in_force(events.frame(ConfigurationAdopted), date.fromisoformat(day))
    hashes = dict(zip(configuration["part"], configuration["sha256"].str[0], strict=True))
    assert hashes == {"site": "d", **({"protocol": protocol} if protocol else {})}
    assert configuration["part"].is_monotonic_increasing


def test_rows_may_come_in_any_order_and_in_many_parts() -> None:
    whole = tell(*(screened(f"P{n:03d}") for n in range(250)))
    [table] = whole.tables.values()
    parts = [{"participant_screened": table.slice(n, 1)} for n in reversed(range(250))]
    joined = Events({}).extend(parts, whole.head)
    assert joined.frame(ParticipantScreened).equals(whole.frame(ParticipantScreened))
    assert joined.tables["participant_screened"]["seq"].num_chunks < 100


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda line: line + b"\x1fmore", "A row of the ledger cannot be read"),
        (lambda line: line.replace(b"2024-03-01\x1f", b"2024-02-30\x1f"), "A row of the ledger cannot be read"),
        (lambda line: line.replace(b'{"cohort"', b'{"cohort'), "A payload of kind"),
        (lambda line: line.replace(b'"cohort"', b'"comment"'), "A payload of kind"),
        (lambda line: line.replace(b'{"cohort":"older_adults"}', b"{}"), "version 1 lack cohort: the kind needs an"),
        (lambda line: line.replace(b"participant_screened", b"seance_held"), "does not know"),
    ],
)
def test_row_that_cannot_be_read_is_never_passed_over(spoil: Any, message: str) -> None:
    columns = dict.fromkeys(ROW_TYPES, "x") | {"seq": 1, "source_row": 0, "kind_version": 1}
    columns |= {"kind": "participant_screened", "payload": '{"cohort":"older_adults"}'}
    columns |= {"occurred_on": "2024-03-01", "recorded_at": format_moment(NOON)}
    line = "\x1f".join(str(value) for value in columns.values()).encode()
    assert len(decode_rows(line)["participant_screened"]) == 1
    with pytest.raises((ValueError, UnknownKind), match=message):
        decode_rows(spoil(line))


def test_heads_are_published_as_text() -> None:
    head = Head(17, A)
    assert str(head) == f"17:{A}"
    assert parse_head(f" {head}\n") == head
    assert parse_head(str(EMPTY)) == EMPTY


@pytest.mark.parametrize("text", ["", "17", A, f"x:{A}", f"17:{A[:-1]}", f"17:{A[:-1]}g", f"-1:{A}"])
def test_what_is_no_head(text: str) -> None:
    with pytest.raises(ValueError, match="is not a ledger head"):
        parse_head(text)


# Folds that are remembered -------------------------------------------------------------------------------------------


FIRST_DAY = date(2018, 3, 1)


def test_a_remembered_fold_stands_until_what_it_read_changes() -> None:
    """It is computed anew for new rows of a kind that it read, itself or by another fold, and after a void."""
    computed: list[str] = []

    @remembered
    def list_screened(study: Any, events: Events, as_of: date) -> pd.DataFrame:
        computed.append("screened")
        return events.select(as_of=as_of).frame(ParticipantScreened)

    @remembered
    def list_days(study: Any, events: Events, as_of: date) -> pd.DataFrame:
        computed.append("days")
        return list_screened(study, events, as_of)[["occurred_on"]]

    @remembered
    def count_everything(study: Any, events: Events, as_of: date) -> pd.DataFrame:
        computed.append("everything")
        return pd.DataFrame({"n": [events.count_rows()]})

    def add(events: Events, *told: Event) -> Events:
        computed.clear()
        more = foresee(events, told)
        for fold in (list_screened, list_days, count_everything):
            fold(study, more, FIRST_DAY)
        return more

    study: Any = object()
    about: dict[str, Any] = {"occurred_on": FIRST_DAY, "requested_by": "Anna Price"}
    screened = ParticipantScreened(**about, site_id="luton", participant_id="LUT-P00001", cohort="mental_health")
    events = add(Events({}), screened)
    assert computed == ["screened", "days", "everything"]
    events = add(events, StudyDayCompleted(**about))
    assert computed == ["everything"]
    other = screened.model_copy(update={"participant_id": "LUT-P00002"})
    events = add(events, other)
    assert computed == ["screened", "days", "everything"]
    assert len(list_days(study, events, FIRST_DAY)) == 2
    row = events.frame(ParticipantScreened)["hash"].iloc[0]
    events = add(events, Voided(**about, voids=row, reason="entered_in_error"))
    assert computed == ["screened", "days", "everything"]
    assert len(list_days(study, events, FIRST_DAY)) == 1
    assert len(list_days(study, events, FIRST_DAY - timedelta(days=1))) == 0


def test_of_a_large_result_only_the_last_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("study.state._MANY", 1)
    computed: list[date] = []

    @remembered
    def count_twice(study: Any, events: Events, as_of: date) -> pd.DataFrame:
        computed.append(as_of)
        return pd.DataFrame({"n": [events.count_rows()] * 2})

    study, events, next_day = cast(Any, object()), Events({}), date(2018, 3, 2)
    for on in (FIRST_DAY, FIRST_DAY, next_day, next_day, FIRST_DAY):
        assert len(count_twice(study, events, on)) == 2
    assert computed == [FIRST_DAY, next_day, FIRST_DAY]


def test_rows_of_a_site_are_those_of_the_table_whatever_the_view() -> None:
    early, late = (datetime(2024, 3, day, 9, tzinfo=UTC) for day in (4, 11))
    events = tell(
        (screened("P1", "2024-03-01", site_id="b"), early),
        (screened("P2", "2024-03-02", site_id="a"), early),
        (screened("P3", "2024-03-09", site_id="b"), late),
    )
    for view in (events, events.select(as_of=date(2024, 3, 5)), events.select(known_at=early)):
        table = view.table(ParticipantScreened)
        for site_id in ("a", "b", "c"):
            own = [row for row in table.to_pylist() if row["site_id"] == site_id]
            assert view.table_of_site(ParticipantScreened, site_id).to_pylist() == own
    assert events.table_of_site(ParticipantScreened, "b")["participant_id"].to_pylist() == ["P1", "P3"]


def test_what_was_looked_at_is_looked_at_anew_once_there_are_new_rows_or_a_void() -> None:
    rows = (
        screened("P1"), screened("P2"), accepted("P1", 1),
        on("2024-03-02", Voided, voids=name_hash(1), reason="entered_in_error", site_id=""),
        screened("P3"),
    )  # fmt: skip
    whole = tell(*rows)
    parts = {kind: table.to_pylist() for kind, table in whole.tables.items()}

    def step(events: Events, seq: int) -> Events:
        new = {
            kind: table.filter(pc.equal(table["seq"], pa.scalar(seq)))
            for kind, table in whole.tables.items()
            if any(row["seq"] == seq for row in parts[kind])
        }
        return events.extend([new], Head(seq, name_hash(seq)))

    def list_people(events: Events) -> list[str]:
        found: list[str] = events.frame(ParticipantScreened)["participant_id"].tolist()
        assert events.table(ParticipantScreened)["participant_id"].to_pylist() == found
        assert events.table_of_site(ParticipantScreened, rows[0].site_id)["participant_id"].to_pylist() == found
        return found

    events, seen = Events({}), []
    for seq in range(1, len(rows) + 1):
        events = step(events, seq)
        seen.append(list_people(events))
        own = events.frame(ParticipantScreened)
        own["participant_id"] = "changed"  # a caller's frame is the caller's own
        assert list_people(events) == seen[-1]
    assert seen == [["P1"], ["P1", "P2"], ["P1", "P2"], ["P2"], ["P2", "P3"]]


def test_a_kind_without_news_is_looked_at_once_for_all_days_that_hide_nothing_of_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    known = [screened("P1", "2024-03-01"), screened("P2", "2024-03-05")]
    events, later = tell(*known), tell(*known, screened("P3", "2024-03-20"))
    n_made: list[int] = []

    def count(table: pa.Table) -> pd.DataFrame:
        n_made.append(len(table))
        return derive_frame(table)

    monkeypatch.setattr("study.state.derive_frame", count)

    def list_people(events: Events, day: int) -> list[str]:
        return events.select(as_of=date(2024, 3, day)).frame(ParticipantScreened)["participant_id"].tolist()

    assert [list_people(events, day) for day in (5, 6, 7, 31)] == [["P1", "P2"]] * 4
    assert n_made == [2]
    assert [list_people(events, day) for day in (4, 1)] == [["P1"]] * 2  # a day that hides something stands for itself
    assert n_made == [2, 1, 1]
    new = {kind: table.slice(2) for kind, table in later.tables.items()}
    events = events.extend([new], later.head)
    assert [list_people(events, day) for day in (4, 19, 20, 31)] == [["P1"], ["P1", "P2"], *[["P1", "P2", "P3"]] * 2]


def test_membership_of_text_is_that_of_pandas() -> None:
    texts = pd.Series(["a", "b", None, "a", ""], index=[5, 3, 1, 0, 9], dtype="str")
    for among in (["a"], [], ["c", ""], pd.Series(["b", "a"], dtype="str"), pd.Series([], dtype="str")):
        assert is_in(texts, among).equals(texts.isin(among))
