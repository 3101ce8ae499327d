"""People at the sites: who is written to on a day, in whose place, and what is wrong with a contacts file."""

from datetime import date

import pytest

from study.contacts import (
    Contacts,
    Gap,
    compute_address_code,
    find_gaps,
    find_leavers,
    list_roles,
    list_wanted_roles,
    parse_contacts,
)
from study.instruments import DefinitionFaults
from tests.chasing_studies import CHASERS, CONTACTS, NO_FIGURES, make_study, read_contacts
from tests.release_studies import APPROVALS

DAY = date(2017, 9, 4)
DORA = '"dora"'
SECRETS = ("luton.invalid", "@", "Rosa", "Reed", "01582", "Dora")


def person(person_id: str, role: str = "site_researcher", site_id: str = "luton", **fields: str) -> str:
    """An entry of the file; `fields` as TOML."""
    lines = [f'person_id = "{person_id}"', f'name = "{person_id.title()} Name"', f'role = "{role}"']
    lines += [f'email = "{person_id}@luton.invalid"'] if "email" not in fields else []
    lines += [f'site_id = "{site_id}"'] if site_id else []
    return "\n".join(["[[people]]", *lines, *(f"{name} = {value}" for name, value in fields.items()), ""])


def read(*entries: str) -> Contacts:
    return parse_contacts("\n".join(entries).encode(), make_study())


def find_faults(text: str | bytes) -> list[str]:
    with pytest.raises(DefinitionFaults) as raised:
        parse_contacts(text if isinstance(text, bytes) else text.encode(), make_study())
    return raised.value.faults


def find(contacts: Contacts, on: date = DAY, role: str = "site_researcher", **where: str) -> str:
    found = contacts.find_recipient(role, where.get("site_id", "luton"), on, where.get("body_id", ""))
    return found.person_id if found else ""


@pytest.mark.parametrize(
    ("on", "expected"),
    [
        ("2017-06-30", ""),
        ("2017-07-01", "rosa"),  # the first day
        ("2017-08-06", "rosa"),
        ("2017-08-07", "dora"),  # on leave
        ("2017-08-11", "dora"),
        ("2017-08-12", "rosa"),
        ("2017-12-31", "rosa"),  # the last day
        ("2018-01-01", ""),
    ],
)
def test_dates_leave_and_deputies(on: str, expected: str) -> None:
    contacts = read(
        person("rosa", from_on="2017-07-01", until_on="2017-12-31", leave="[[2017-08-07, 2017-08-11]]", deputy_id=DORA),
        person("dora", "site_lead"),
    )
    assert find(contacts, date.fromisoformat(on)) == expected


def test_a_leaver_is_never_written_to_and_neither_is_a_deputy_who_left() -> None:
    away = {"leave": "[[2017-09-01, 2017-09-10]]"}
    gone = person("dora", "site_lead", until_on="2017-08-31", deputy_id='"erik"')
    contacts = read(person("rosa", **away, deputy_id='"dora"'), gone, person("erik", "site_lead"))
    assert contacts.seek("site_researcher", "luton", DAY).why == "away"
    assert find(contacts, role="site_lead") == "erik"
    # a deputy who is away too is stood in for; in a ring nobody is asked twice
    ring = [person("rosa", **away, deputy_id='"dora"'), person("dora", "site_lead", **away, deputy_id='"rosa"')]
    assert find(read(*ring)) == ""
    chain = [ring[0], person("dora", "site_lead", **away, deputy_id='"erik"'), person("erik", "site_lead")]
    found = read(*chain).seek("site_researcher", "luton", DAY)
    assert (found.person and found.person.person_id, found.instead_of) == ("erik", "rosa")


def test_the_first_of_several_then_the_next() -> None:
    first, second = person("anna", until_on="2017-09-04"), person("ben")
    contacts = read(first, second)
    assert [find(contacts, on) for on in (DAY, date(2017, 9, 5))] == ["anna", "ben"]
    assert find(read(person("anna", leave="[[2017-09-04, 2017-09-04]]"), second)) == "ben"


def test_an_address_from_which_mail_came_back() -> None:
    contacts = read(person("rosa", deputy_id='"dora"'), person("dora", "site_lead"))
    stopped = [compute_address_code("trial", "Rosa@Luton.invalid")]
    found = contacts.seek("site_researcher", "luton", DAY, stopped=stopped)
    assert (found.person and found.person.person_id, found.instead_of) == ("dora", "rosa")
    both = [*stopped, compute_address_code("trial", "dora@luton.invalid")]
    assert contacts.seek("site_researcher", "luton", DAY, stopped=both).why == "wrong_address"
    assert contacts.seek("site_lead", "devon", DAY).why == "nobody"
    assert read(person("rosa", email='""')).seek("site_researcher", "luton", DAY).why == "no_address"


def test_a_role_of_the_study_team_and_an_office_of_a_body() -> None:
    contacts = read(
        person("mona", "project_manager", ""),
        person("cleo", "site_lead", ""),
        person("lena", "site_lead"),
        person("olaf", "approving_office", "", body_id='"luton_council"'),
    )
    assert find(contacts, role="project_manager") == "mona"
    assert find(contacts, role="site_lead") == "lena"
    assert find(contacts, role="site_lead", site_id="devon") == "cleo"  # of the team, for all sites
    assert find(contacts, role="approving_office", body_id="luton_council") == "olaf"
    assert find(contacts, role="approving_office", body_id="devon_council", site_id="devon") == ""
    assert find(contacts, role="approving_office") == ""


def test_one_person_in_two_roles() -> None:
    contacts = read_contacts()
    assert find(contacts, role="site_researcher", site_id="devon") == "ravi"
    assert find(contacts, role="site_lead", site_id="devon") == "ravi"


def test_codes_of_addresses() -> None:
    code = compute_address_code("trial", "rosa@luton.invalid")
    assert code == compute_address_code("trial", " ROSA@luton.invalid")
    assert len({code, compute_address_code("ipc", "rosa@luton.invalid"), compute_address_code("trial", "b@c.de")}) == 3
    assert "rosa" not in code


# Faults ---------------------------------------------------------------------------------------------------------------


def test_every_fault_at_once_and_no_address_or_name_in_them() -> None:
    text = CONTACTS + "\n".join([
        person("rosa"),
        person("x1", "site_reseacher"),
        person("x2", site_id="lutonn"),
        person("x3", email='"x3 luton.invalid"'),
        person("x4", from_on="2017-09-01", until_on="2017-08-01"),
        person("x5", deputy_id='"nobody"'),
        person("x6", deputy_id='"x6"'),
        person("x7", leave="[[2017-09-10, 2017-09-01]]"),
        person("x8", body_id='"devon_council"'),
        person("x9", mobile='"01582 111111"'),
        '[[people]]\nperson_id = "x10"\nemail = "someone@luton.invalid"\n',
        person("x11", from_on='"2017-09-01"'),
    ])  # fmt: skip
    faults = find_faults(text)
    assert [fault.split(":")[1].split()[1].strip('"') for fault in faults] == [
        *("x3", "x9", "x10", "x10", "x11", "rosa", "x1", "x2", "x4", "x5", "x6", "x7", "x8"),
    ]  # fmt: skip
    told = "\n".join(faults)
    assert not [secret for secret in (*SECRETS, "111111", "someone") if secret in told]
    for words in (
        'role "site_reseacher" is none that the study names. Correct it. Did you mean "site_researcher"?',
        'site_id names no site of the study. Correct it. Did you mean "luton"?',
        "email must be one e-mail address in quotes. Correct it.",
        "until_on (2017-08-01) is before from_on (2017-09-01)",
        "deputy_id names nobody in this file",
        "deputy_id is the person themselves",
        "leave ends (2017-09-01) before it begins (2017-09-10)",
        'body_id names no body of that site. Did you mean "luton_council"?',
        "mobile is no setting here",
        "role is missing. Add role = a role such as site_researcher, in quotes.",
        'person_id "rosa" is there 2 times',
    ):
        assert words in told


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"\xff", "line 1 is not UTF-8"),
        ('[[people]]\nemail = rosa@luton.invalid"\n', "cannot be read as TOML (at line 2, column 9)"),
        ('people = "rosa@luton.invalid"', "people are not a list"),
        ("[settings]\nx = 1\n" + person("rosa"), '"settings" is no section here'),
        ('"rosa@luton.invalid" = 1\n', '"" is no section here'),
    ],
)
def test_a_file_that_cannot_be_read_is_not_quoted(text: str | bytes, expected: str) -> None:
    (fault,) = find_faults(text)
    assert expected in fault
    assert "luton.invalid" not in fault


def test_a_byte_order_mark_and_an_empty_file_are_fine() -> None:
    assert parse_contacts(b"\xef\xbb\xbf" + person("rosa").encode(), make_study()).people[0].person_id == "rosa"
    assert parse_contacts(b"", make_study()).people == ()


# Who is missing -------------------------------------------------------------------------------------------------------


def test_roles_that_nobody_holds() -> None:
    study = make_study(NO_FIGURES, APPROVALS + CHASERS.replace("project_manager", "approving_office", 1))
    assert {"site_researcher", "site_lead", "approving_office", "project_manager", "fieldwork_coordinator"} <= set(
        list_roles(study)
    )
    gaps = find_gaps(study, read_contacts(), list_wanted_roles(study), DAY)
    assert gaps == [
        Gap("approving_office", "devon", "devon_council", "nobody"),
        Gap("approving_office", "luton", "luton_council", "nobody"),
    ]


def test_leavers() -> None:
    contacts = read(person("anna", until_on="2017-09-30"), person("ben", until_on="2017-10-03"), person("cleo"))
    assert [one.person_id for one in find_leavers(contacts, DAY)] == ["anna"]
    assert [one.person_id for one in find_leavers(contacts, date(2017, 9, 5))] == ["anna", "ben"]
