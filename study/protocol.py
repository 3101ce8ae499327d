"""A study's protocol and its sites: what may be stated, and every fault of the statement found at once.

A study is a folder of TOML: `study.toml`, one file per site under `sites/`, `approvals.toml` (the pathway of its
approvals; a study without it may do nothing that a gate asks about) and `fieldwork.toml` (what is released, chased and
counted; a study without it releases and chases nothing). `parse_study` turns their bytes into a
frozen `Study`, or raises `DefinitionFaults` with one sentence per fault: place, fault, expectation, next step. It reads
bytes and nothing else, so a study as it stood in March is rebuilt from the files that were in force in March.

Three judgement calls:

- A faulty entry still counts as declared. A wave with a bad date is one fault, not one more wherever the wave is named.
- Windows are checked by the calendar, not by comparing numbers: "1 month" and "30 days" come in either order, depending
  on the month.
- Loss is kept apart from exclusion by the study team (CONSORT 2025; What Works Clearinghouse Handbook 4.1), so every
  reason for leaving states which of the two it is.
"""

from __future__ import annotations

import re
import tomllib
import warnings
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from functools import cached_property, lru_cache
from itertools import pairwise
from typing import Annotated, Any, Literal, TypeVar, get_args

from pydantic import AfterValidator, Field, StrictBool, StringConstraints, ValidationError

from study.calendar import (
    HolidayCalendar,
    Period,
    WeekendRule,
    add_period,
    find_holidays,
    move_to_working_day,
)
from study.definition_fields import (
    CODE_IN_QUOTES,
    CODE_WORDS,
    DAY_WORDS,
    LINE_WORDS,
    PERIOD_WORDS,
    BodyKind,
    Code,
    Day,
    DefinitionModel,
    Line,
    PeriodText,
)
from study.fieldwork import FIELDWORK_SECTIONS, Fieldwork, find_fieldwork_faults
from study.instruments import DefinitionFaults, find_suggestion
from study.pathway import PATHWAY_SECTIONS, Pathway, find_pathway_faults

STUDY_FILE = "study.toml"
PATHWAY_FILE = "approvals.toml"
FIELDWORK_FILE = "fieldwork.toml"
SITES_FOLDER = "sites"
SOURCES_FOLDER = "sources"
ANCHORS = ("screened", "consented", "allocated")
EARLIEST_YEAR, LATEST_YEAR = 1950, 2100  # anything else is a slip of the hand

Respondent = Literal["self", "proxy", "carer", "manager"]
Form = Literal["standard", "easy_read"]
Scope = Literal["treatment", "questionnaires", "linkage", "post", "data", "study"]
Allocation = Literal["randomised", "matched", "waiting_list", "neighbouring_area", "none"]

SiteId = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_]{0,39}$")]
_ADDRESS = re.compile(r"[^\s@]+@[^\s@]+\.[^\s@]+")


class Arm(DefinitionModel):
    """One of the groups that are compared."""

    id: Code = Field(description=CODE_IN_QUOTES)
    label: Line = Field(description=LINE_WORDS)
    role: Literal["intervention", "comparison"] = Field(description='"intervention" or "comparison"')


class Cohort(DefinitionModel):
    """A kind of people that the study reports apart, such as people with learning disabilities."""

    id: Code = Field(description=CODE_IN_QUOTES)
    label: Line = Field(description=LINE_WORDS)


class Window(DefinitionModel):
    """When a return may be collected, as distances from the wave's day; several waves may share one window.

    A return before `opens` is early, after `closes` late, after `late_until` out of window. `due` starts the chasing.
    """

    id: Code = Field(description=CODE_IN_QUOTES)
    opens: PeriodText = Field(description=PERIOD_WORDS)
    optimum_from: PeriodText | None = Field(default=None, description=PERIOD_WORDS)
    optimum_to: PeriodText | None = Field(default=None, description=PERIOD_WORDS)
    due: PeriodText = Field(description=PERIOD_WORDS)
    closes: PeriodText = Field(description=PERIOD_WORDS)
    late_until: PeriodText = Field(description=PERIOD_WORDS)
    weekends: WeekendRule = Field(
        description='"none", "earlier" or "later" (where a date on a weekend or bank holiday moves)'
    )


@dataclass(frozen=True, slots=True)
class WindowDates:
    """The dates of one wave for one participant. `is_truncated`: it would open after data collection ends."""

    opens_on: date
    optimum_from: date | None
    optimum_to: date | None
    due_on: date
    closes_on: date
    late_until: date
    is_truncated: bool


class Wave(DefinitionModel):
    """An occasion on which questionnaires are collected, counted from an event of the participant.

    A wave that an amendment added has a day, `applies_from`, and says to whom it applies: to those whose window opens
    on or after that day ("opening"), or to those who joined the study on or after it ("joining": consented, or where
    no consent is kept, screened). One that `ends_with_treatment` is a visit of the treatment: of whoever stopped that
    by the day on which the wave is due nothing is expected, though what comes in all the same is taken.
    """

    id: Code = Field(description=CODE_IN_QUOTES)
    label: Line = Field(description=LINE_WORDS)
    aliases: tuple[Line, ...] = Field(default=(), description="a list of other names for it, in quotes")
    role: Literal["screening", "baseline", "follow_up"] = Field(description='"screening", "baseline" or "follow_up"')
    anchor: Code = Field(description=f"{', '.join(ANCHORS)} or the id of an earlier wave, in quotes")
    offset: PeriodText = Field(description=PERIOD_WORDS)
    window: Code = Field(description="the id of a window, in quotes")
    applies_from: Day | None = Field(default=None, description=DAY_WORDS)
    applies_to: Literal["opening", "joining"] = Field(default="opening", description='"opening" or "joining"')
    ends_with_treatment: StrictBool = Field(default=False, description="true or false, without quotes")


class ScheduledInstrument(DefinitionModel):
    """Who answers an instrument, on which forms, at which waves. No cohorts named: all of them."""

    instrument: Code = Field(description="the name of a folder in instruments/, in quotes")
    respondent: Respondent = Field(description='"self", "proxy", "carer" or "manager"')
    forms: tuple[Form, ...] = Field(min_length=1, description='a list of "standard" and "easy_read", at least one')
    waves: tuple[Code, ...] = Field(min_length=1, description="a list of ids of waves, at least one")
    cohorts: tuple[Code, ...] = Field(default=(), description="a list of ids of cohorts")


class ConsentScope(DefinitionModel):
    """Something that a person agrees to, or doesn't, apart from the rest."""

    id: Code = Field(description=CODE_IN_QUOTES)
    label: Line = Field(description=LINE_WORDS)


class ConsentForm(DefinitionModel):
    """A version of the consent form: what it asks for, and from when to when it may be signed."""

    version: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,19}$",
        description='a version in quotes, such as "1" or "2.1" (letters, digits, dots, dashes)',
    )
    label: Line = Field(description=LINE_WORDS)
    in_force_from: Day = Field(description=DAY_WORDS)
    in_force_until: Day | None = Field(default=None, description=DAY_WORDS)
    scopes: tuple[Code, ...] = Field(min_length=1, description="a list of ids of consent_scopes, at least one")

    @property
    def id(self) -> str:
        return self.version


class DispositionReason(DefinitionModel):
    """A way of leaving the study, or a part of it, and what it counts as in the flow of participants."""

    id: Code = Field(description=CODE_IN_QUOTES)
    label: Line = Field(description=LINE_WORDS)
    kind: Literal["completion", "loss", "exclusion", "death"] = Field(
        description='"completion", "loss" (the person left), "exclusion" (the study team took them out) or "death"'
    )
    scopes: tuple[Scope, ...] = Field(
        min_length=1,
        description='a list of what may end for this reason: "treatment", "questionnaires", "linkage", "post" (letters '
        'to the person), "data" (use of what was given already), "study"',
    )
    is_ineligibility: StrictBool = Field(
        default=False,
        description="true or false, without quotes (the person should never have been in the study; nothing more is "
        "expected of them)",
    )
    is_never_received: StrictBool = Field(
        default=False,
        description="true or false, without quotes (whoever left the treatment for this reason never received it)",
    )


class MainAnalysis(DefinitionModel):
    """Whom the flow of participants counts as analysed: who answered at a wave, and is left out by no rule below.

    `instruments`: any of them (none named: any). `needs_baseline`: without a baseline in time nobody is analysed.
    `in_time`: answers after the last day on which the wave is taken do not count.
    """

    label: Line = Field(description=LINE_WORDS)
    wave: Code = Field(description="the id of a wave, in quotes")
    respondents: tuple[Respondent, ...] = Field(
        min_length=1, description='a list of "self", "proxy", "carer", "manager", at least one (whose answers count)'
    )
    instruments: tuple[Code, ...] = Field(default=(), description="a list of names of folders in instruments/")
    needs_baseline: StrictBool = Field(description="true or false, without quotes")
    in_time: StrictBool = Field(description="true or false, without quotes")


class PowerValue(DefinitionModel):
    """A figure that the sample size rests on, and where it comes from."""

    value: Annotated[float, Field(gt=-1)]
    source: Line


_POWER_WORDS = '{ value = <number>, source = "<where it comes from>" }'


def _between(low: float, high: float) -> AfterValidator:
    def check(given: PowerValue) -> PowerValue:
        if not low <= given.value < high:
            raise ValueError(f"must be at least {low} and below {high}")
        return given

    return AfterValidator(check)


class PowerBasis(DefinitionModel):
    """What the detectable effect on one outcome is computed from: the score of a scale at a wave, its standard
    deviation, the intracluster correlation of sites, the correlation of the score with its baseline, the power and the
    two-sided alpha. Each has a source."""

    id: Code = Field(description=CODE_IN_QUOTES)
    label: Line = Field(description=LINE_WORDS)
    instrument: Code = Field(description="the name of a folder in instruments/, in quotes")
    scale: Code = Field(description="the id of a scale of that instrument, in quotes")
    respondents: tuple[Respondent, ...] = Field(
        min_length=1, description='a list of "self", "proxy", "carer", "manager", at least one (whose scores count)'
    )
    wave: Code = Field(description="the id of a wave, in quotes")
    sd: Annotated[PowerValue, _between(1e-9, 1e9)] = Field(description=f"{_POWER_WORDS}, above 0")
    icc: Annotated[PowerValue, _between(0, 1)] = Field(description=f"{_POWER_WORDS}, 0 or more and below 1")
    baseline_correlation: Annotated[PowerValue, _between(-0.999, 1)] = Field(
        description=f"{_POWER_WORDS}, above -1 and below 1"
    )
    power: Annotated[PowerValue, _between(0.5, 1)] = Field(description=f"{_POWER_WORDS}, 0.5 or more and below 1")
    alpha: Annotated[PowerValue, _between(1e-6, 0.5)] = Field(description=f"{_POWER_WORDS}, above 0 and below 0.5")


class PlannedInstrument(DefinitionModel):
    """An instrument that the protocol already names and nobody has defined yet."""

    id: Code = Field(description=CODE_IN_QUOTES)
    label: Line = Field(description=LINE_WORDS)


class Assumption(DefinitionModel):
    """Something taken as given that no record holds. `declared_in`: the file that holds the value used."""

    id: Code = Field(description=CODE_IN_QUOTES)
    text: Line = Field(description=LINE_WORDS)
    declared_in: str | None = Field(
        default=None,
        pattern=r"^[A-Za-z0-9_]+(/[A-Za-z0-9_]+)*\.toml$",
        description='the path of a TOML file in this repository, such as "rehearsal/assumptions.toml"',
    )


class Body(DefinitionModel):
    """An organisation at a site that must approve for itself. `confirmed`: the site has said that it is one of them."""

    id: Code = Field(description=CODE_IN_QUOTES)
    name: Line = Field(description=LINE_WORDS)
    kind: BodyKind = Field(description='"council", "ccg", "icb", "nhs_trust", "clinic", "university" or "other"')
    confirmed: StrictBool = Field(description="true or false, without quotes")


def _default_code(fields: dict[str, Any]) -> str:
    return str(fields.get("site_id", ""))


class Site(DefinitionModel):
    """A place that takes part. `code` is how participant identifiers and queries name it (default: the site_id)."""

    site_id: SiteId = Field(description="the file's name without .toml, in quotes")
    name: Line = Field(description=LINE_WORDS)
    code: str = Field(
        default_factory=_default_code,
        pattern=r"^[A-Za-z0-9_]{1,40}$",
        description='a short code in quotes, such as "LUT" (letters, digits, underscores)',
    )
    role: Literal["both", "intervention", "comparison"] = Field(
        description='"both", "intervention" or "comparison" (which arms its participants can be in)'
    )
    type: Code | None = Field(default=None, description=CODE_IN_QUOTES)
    joined: str | None = Field(
        default=None,
        pattern=r"^(19|20)\d\d-(0[1-9]|1[0-2])$",
        description='a month in quotes, such as "2016-12"',
    )
    allocation: Allocation | None = Field(
        default=None, description='"randomised", "matched", "waiting_list", "neighbouring_area" or "none"'
    )
    bodies: tuple[Body, ...]


class _StudySection(DefinitionModel):
    """The table [study] of study.toml."""

    study_id: Code = Field(description=f"the folder's name, in quotes ({CODE_WORDS})")
    title: Line = Field(description=LINE_WORDS)
    protocol_version: Line = Field(description='the version of the protocol, in quotes, such as "1.0"')
    allocation: Allocation = Field(
        description='"randomised", "matched", "waiting_list", "neighbouring_area" or "none" (how people come to an arm)'
    )
    blinding: Literal["open", "assessor_blind", "single_blind", "double_blind"] = Field(
        description='"open", "assessor_blind", "single_blind" or "double_blind"'
    )
    starts_on: Day = Field(description=DAY_WORDS)
    data_collection_starts_on: Day = Field(description=DAY_WORDS)
    data_collection_ends_on: Day = Field(description=DAY_WORDS)
    ends_on: Day = Field(description=DAY_WORDS)
    bank_holidays: HolidayCalendar = Field(description='"england" or "none"')
    participant_id_pattern: Line = Field(
        description="a regular expression in single quotes, such as '(?P<site>[A-Z]{3})-P\\d{5}'"
    )
    participant_id_example: Line = Field(description="an identifier in quotes that fits participant_id_pattern")
    respondents: tuple[Respondent, ...] = Field(
        min_length=1, description='a list of "self", "proxy", "carer" and "manager", at least one'
    )
    forms: tuple[Form, ...] = Field(min_length=1, description='a list of "standard" and "easy_read", at least one')
    instruments: tuple[Code, ...] = Field(description="a list of names of folders in instruments/ (may be empty: [])")
    consent_basis: Literal["signed", "assumed"] = Field(
        description='"signed" (dates of consent come from signed forms) or "assumed" (a replay supplies them)'
    )
    accepts_unscheduled: StrictBool = Field(
        description="true or false, without quotes (whether returns of visits that are no wave are taken)"
    )


class Study(_StudySection):
    """A study: its protocol and its sites, in the order of the files."""

    arms: tuple[Arm, ...]
    cohorts: tuple[Cohort, ...]
    windows: tuple[Window, ...]
    waves: tuple[Wave, ...]
    schedule: tuple[ScheduledInstrument, ...]
    consent_scopes: tuple[ConsentScope, ...]
    consent_forms: tuple[ConsentForm, ...]
    disposition_reasons: tuple[DispositionReason, ...]
    planned_instruments: tuple[PlannedInstrument, ...]
    assumptions: tuple[Assumption, ...]
    power: tuple[PowerBasis, ...] = ()
    main_analysis: tuple[MainAnalysis, ...] = ()
    sites: tuple[Site, ...]
    pathway: Pathway = Pathway()
    fieldwork: Fieldwork = Fieldwork()

    def find_wave(self, text: str) -> Wave | None:
        """The wave with this id, label or alias, whatever the case; None for an unscheduled occasion."""
        return self._waves_by_text.get(_fold(text))

    def find_arm(self, text: str) -> Arm | None:
        """The arm with this id or label, whatever the case."""
        return _find_by_text(self.arms, text)

    def find_cohort(self, text: str) -> Cohort | None:
        """The cohort with this id or label, whatever the case."""
        return _find_by_text(self.cohorts, text)

    def find_disposition_reason(self, text: str) -> DispositionReason | None:
        """The reason with this id or label, whatever the case."""
        return _find_by_text(self.disposition_reasons, text)

    def find_site(self, site_id: str) -> Site | None:
        return next((site for site in self.sites if site.site_id == site_id), None)

    def find_window(self, wave: Wave) -> Window:
        return next(window for window in self.windows if window.id == wave.window)

    def find_consent_form(self, version: str) -> ConsentForm | None:
        return next((form for form in self.consent_forms if form.version == version), None)

    def find_scheduled(self, wave_id: str, cohort_id: str | None = None) -> tuple[ScheduledInstrument, ...]:
        """What is expected at a wave, of everybody or of one cohort. May name planned instruments."""
        return tuple(
            entry
            for entry in self.schedule
            if wave_id in entry.waves and (cohort_id is None or not entry.cohorts or cohort_id in entry.cohorts)
        )

    def find_arms_at(self, site: Site) -> tuple[Arm, ...]:
        """The arms that participants of this site can be in, by the site's role."""
        return tuple(arm for arm in self.arms if site.role in ("both", arm.role))

    @property
    def baseline(self) -> Wave:
        return next(wave for wave in self.waves if wave.role == "baseline")

    @property
    def is_randomised(self) -> bool:
        """Whether people come to an arm by chance at every site: differential attrition is judged only then."""
        return all((site.allocation or self.allocation) == "randomised" for site in self.sites)

    def is_participant_id(self, text: str) -> bool:
        return self._identifier.fullmatch(text) is not None

    def participant_site(self, participant_id: str) -> str | None:
        """The site_id that an identifier carries; None if it names no site of the study, or the pattern has no site."""
        found = self._identifier.fullmatch(participant_id)
        if found is None or "site" not in self._identifier.groupindex:
            return None
        return self._site_ids_by_code.get(found["site"])

    def compute_window_dates(self, wave: Wave, anchor_on: date) -> WindowDates:
        """A participant's dates for a wave, from the day of the event that the wave counts from.

        The wave's day is the anchor plus the offset, months clipped to the month's end; each date counts from that day
        and then moves as the window says about weekends and bank holidays.
        """
        return _compute_window_dates(
            self.find_window(wave), wave.offset, anchor_on, self.bank_holidays, self.data_collection_ends_on
        )

    @cached_property
    def _waves_by_text(self) -> dict[str, Wave]:
        return {_fold(text): wave for wave in self.waves for text in (wave.id, wave.label, *wave.aliases)}

    @cached_property
    def _site_ids_by_code(self) -> dict[str, str]:
        return {site.code: site.site_id for site in self.sites}

    @cached_property
    def _identifier(self) -> re.Pattern[str]:
        return re.compile(self.participant_id_pattern)


@lru_cache(maxsize=65_536)
def _compute_window_dates(
    window: Window, offset: Period, anchor_on: date, calendar: HolidayCalendar, ends_on: date
) -> WindowDates:
    holidays = find_holidays(calendar)
    target = add_period(anchor_on, offset)

    def compute_day(period: Period) -> date:
        return move_to_working_day(add_period(target, period), window.weekends, holidays)

    opens_on = compute_day(window.opens)
    return WindowDates(
        opens_on=opens_on,
        optimum_from=None if window.optimum_from is None else compute_day(window.optimum_from),
        optimum_to=None if window.optimum_to is None else compute_day(window.optimum_to),
        due_on=compute_day(window.due),
        closes_on=compute_day(window.closes),
        late_until=compute_day(window.late_until),
        is_truncated=opens_on > ends_on,
    )


def _fold(text: str) -> str:
    return text.strip().casefold()


_Labelled = TypeVar("_Labelled", Arm, Cohort, DispositionReason)


def _find_by_text(entries: Iterable[_Labelled], text: str) -> _Labelled | None:
    return next((entry for entry in entries if _fold(text) in (_fold(entry.id), _fold(entry.label))), None)


def parse_study(files: Mapping[str, bytes], folder_name: str | None = None) -> Study:
    """Parse a study's folder: `study.toml`, `sites/<site_id>.toml`, and, where there are, `approvals.toml` and
    `fieldwork.toml`.

    `files` is paths to contents; other files are left alone.

    `folder_name` is held against the study_id; None if the bytes come from a store. Raises `DefinitionFaults` with
    every fault found, each beginning with the path `sites_config/<study>/<file>`.
    """
    reader = _Reader(files, folder_name)
    study = reader.read()
    if reader.faults or study is None:
        raise DefinitionFaults(reader.faults)
    return study


# section: (model, the field that names an entry, must there be one)
_SECTIONS: dict[str, tuple[type[DefinitionModel], str, bool]] = {
    "arms": (Arm, "id", True),
    "cohorts": (Cohort, "id", True),
    "windows": (Window, "id", True),
    "waves": (Wave, "id", True),
    "schedule": (ScheduledInstrument, "", False),
    "consent_scopes": (ConsentScope, "id", True),
    "consent_forms": (ConsentForm, "version", True),
    "disposition_reasons": (DispositionReason, "id", True),
    "planned_instruments": (PlannedInstrument, "id", False),
    "assumptions": (Assumption, "id", False),
    "power": (PowerBasis, "id", False),
    "main_analysis": (MainAnalysis, "", False),
}
# Sections whose labels stand in drop-downs and are read back: no two entries may share one.
_LABELLED = ("arms", "cohorts", "waves", "disposition_reasons", "consent_scopes")


class _Reader:
    """Reads one study's files and keeps going after a fault: the author is told everything in one go."""

    def __init__(self, files: Mapping[str, bytes], folder_name: str | None) -> None:
        self.files = files
        self.folder_name = folder_name
        self.file = STUDY_FILE  # the file that the sections are read from
        self.sections = _SECTIONS
        self.faults: list[str] = []
        self.folder = f"sites_config/{folder_name or '?'}"
        self.raw: dict[str, Any] = {}
        self.section: _StudySection | None = None
        self.entries: dict[str, list[tuple[str, Any]]] = {}  # section -> (path, model); faulty entries are not in it
        self.sites: list[tuple[str, Site]] = []
        self.document_ids: list[str] = []

    def read(self) -> Study | None:
        if STUDY_FILE not in self.files:
            self.faults.append(f"{self.folder}/{STUDY_FILE}: the file is missing. Add it, or run `summative new`.")
        else:
            raw = self.parse_toml(STUDY_FILE)
            if raw is not None:
                if self.folder_name is None and isinstance(raw.get("study"), dict):
                    self.folder = f"sites_config/{raw['study'].get('study_id', '?')}"
                self.raw = raw
                self.read_study()
        self.read_sites()
        if self.raw:
            self.check_study()
            self.check_waves()
            self.check_schedule()
            self.check_consent()
            self.check_power()
            self.check_main_analysis()
        self.check_sites()
        pathway = self.read_pathway()
        fieldwork = self.read_fieldwork()
        if self.faults or self.section is None:
            return None
        models = {section: tuple(model for _, model in entries) for section, entries in self.entries.items()}
        # Validated entry by entry above; construct once more as a whole so that Study's own types hold too.
        return Study.model_validate(
            {
                **dict(self.section),
                **models,
                "sites": tuple(site for _, site in self.sites),
                "pathway": pathway,
                "fieldwork": fieldwork,
            },
        )

    def read_pathway(self) -> Pathway:
        """The pathway, as far as it can be read; an empty one if the study has no file for it."""
        if PATHWAY_FILE not in self.files:
            return Pathway()
        reader = _PathwayReader(self.files, self.folder_name)
        reader.folder = self.folder
        entries = reader.read_entries({body.id for _, site in self.sites for body in site.bodies})
        self.document_ids = reader.find_declared("documents")
        self.faults += reader.faults
        return Pathway.model_validate(entries)

    def read_fieldwork(self) -> Fieldwork:
        """The rules of the fieldwork, as far as they can be read; none if the study has no file for them."""
        if FIELDWORK_FILE not in self.files:
            return Fieldwork()
        reader = _FieldworkReader(self.files, self.folder_name)
        reader.folder = self.folder
        entries = reader.read_entries(self)
        self.faults += reader.faults
        return Fieldwork.model_validate(entries)

    # Reading --------------------------------------------------------------------------------------------------------

    def fault(self, text: str, file: str = "") -> None:
        self.faults.append(f"{self.folder}/{file or self.file}: {text}")

    def parse_toml(self, file: str) -> dict[str, Any] | None:
        try:
            # Notepad writes a byte order mark, which TOML does not know.
            text = self.files[file].decode("utf-8-sig")
        except UnicodeDecodeError as error:
            line = self.files[file][: error.start].count(b"\n") + 1
            self.fault(f"line {line} is not UTF-8 text. Save the file with the encoding UTF-8.", file)
            return None
        try:
            raw = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            self.fault(f"cannot be read as TOML: {error}. Correct that line; the rest is checked after.", file)
            return None
        for path, value in _walk(raw):
            if isinstance(value, str) and _ADDRESS.search(value):
                self.fault(
                    f"{path} holds an e-mail address. People's addresses belong in a file of yours, outside these "
                    "folders. Remove it here.",
                    file,
                )
        return raw

    def parse_entry(self, model: type[DefinitionModel], raw: Mapping[str, Any], path: str, file: str) -> Any:
        """The model, or None after a message for each fault of the entry."""
        try:
            return model.model_validate(raw)
        except ValidationError as error:
            for found in error.errors(include_url=False):
                self.explain(model, raw, path, file, found["type"], found["loc"], found["input"])
        return None

    def explain(
        self,
        model: type[DefinitionModel],
        raw: Mapping[str, Any],
        path: str,
        file: str,
        kind: str,
        loc: tuple[int | str, ...],
        value: object,
    ) -> None:
        key = str(loc[0])
        known = model.model_fields
        where = f"{path}.{key}" if path else key
        if kind == "extra_forbidden":
            hint = find_suggestion(key, known) or f" Known: {', '.join(known)}."
            self.fault(f"{where} is no setting here. Remove it or correct its name.{hint}", file)
            return
        expectation = known[key].description
        if kind == "missing":
            self.fault(f"{where} is missing. Add {key} = {expectation}.", file)
            return
        entry = f" (entry {loc[1] + 1})" if len(loc) > 1 and isinstance(loc[1], int) else ""
        choices = re.findall(r'"([a-z_]+)"', expectation or "")
        hint = find_suggestion(value, choices) if isinstance(value, str) and kind == "literal_error" else ""
        self.fault(f"{where}{entry} is {_show(value)}. It must be {expectation}. Correct it.{hint}", file)

    def read_study(self) -> None:
        self.check_top_level(["study", *self.sections])
        table = self.raw.get("study")
        if not isinstance(table, dict):
            self.fault("the section [study] is missing. Add it at the top of the file.")
        else:
            self.section = self.parse_entry(_StudySection, table, "study", STUDY_FILE)
        self.read_sections()

    def check_top_level(self, known: list[str]) -> None:
        for key in self.raw:
            if key not in known:
                hint = find_suggestion(key, known) or f" Known: {', '.join(known)}."
                self.fault(f"[{key}] is no section here. Remove it or correct its name.{hint}")

    def read_sections(self) -> None:
        for section, (model, id_field, is_required) in self.sections.items():
            self.entries[section] = []
            for n, raw in enumerate(self.find_raw_entries(section), start=1):
                path = _name_entry(section, raw, id_field, n)
                entry = self.parse_entry(model, raw, path, self.file)
                if entry is not None:
                    self.entries[section].append((path, entry))
            if is_required and not self.raw.get(section):
                self.fault(f"there are no {section}. Add at least one [[{section}]].")
            self.check_unique(section, id_field)

    def find_raw_entries(self, section: str) -> list[dict[str, Any]]:
        raw = self.raw.get(section, [])
        if isinstance(raw, list) and all(isinstance(entry, dict) for entry in raw):
            return raw
        self.entries.setdefault(section, [])
        message = (
            f"{section} is {_show(raw)}. Write each entry under its own heading [[{section}]], in double brackets."
        )
        if not any(fault.endswith(message) for fault in self.faults):
            self.fault(message)
        return []

    def check_unique(self, section: str, id_field: str) -> None:
        ids: set[str] = set()
        owners: dict[str, str] = {}  # what people may type for an entry, without regard to capitals -> its id
        for raw in self.find_raw_entries(section):
            id_ = raw.get(id_field) if id_field else None
            if not isinstance(id_, str):
                continue
            if id_ in ids:
                self.fault(f'{section} has "{id_}" twice. Give each entry its own {id_field}, or remove one.')
                continue
            ids.add(id_)
            label = raw.get("label")
            texts = [id_, label] if section in _LABELLED and isinstance(label, str) else [id_]
            aliases = raw.get("aliases", [])
            texts += [alias for alias in aliases if isinstance(alias, str)] if isinstance(aliases, list) else []
            others = {owners.setdefault(_fold(text), id_) for text in texts} - {id_}
            for other in sorted(others):
                self.fault(
                    f'{section}: "{id_}" and "{other}" have an id or label in common (capitals do not count). '
                    "Give them different ones: people choose by label."
                )

    def find_declared(self, section: str) -> list[str]:
        """The ids that a section declares, those of faulty entries among them."""
        id_field = self.sections[section][1]
        return [raw[id_field] for raw in self.find_raw_entries(section) if isinstance(raw.get(id_field), str)]

    def check_known(self, words: Iterable[str], section: str, where: str, called: str) -> None:
        """A fault for each word that a section of study.toml does not declare."""
        known = self.find_declared(section)
        for word in words:
            if word not in known:
                hint = find_suggestion(word, known) or f" Known: {', '.join(known) or 'none'}."
                self.fault(
                    f'{where} names {called} "{word}", which is not under [[{section}]]. Add or correct it.{hint}'
                )

    def read_sites(self) -> None:
        for file in sorted(self.files):
            folder, _, name = file.rpartition("/")
            if folder != SITES_FOLDER or not name.endswith(".toml"):
                continue
            raw = self.parse_toml(file)
            if raw is None:
                continue
            bodies: list[Body] = []
            raw_bodies = raw.pop("bodies", None)
            is_list = isinstance(raw_bodies, list) and all(isinstance(body, dict) for body in raw_bodies)
            if raw_bodies is not None and not is_list:
                self.fault(f"bodies is {_show(raw_bodies)}. Write each body under its own heading [[bodies]].", file)
            elif not raw_bodies:
                self.fault("the site has no bodies. Add a [[bodies]] for each organisation that must approve.", file)
            else:
                ids: set[str] = set()
                for n, raw_body in enumerate(raw_bodies, start=1):
                    path = _name_entry("bodies", raw_body, "id", n)
                    body = self.parse_entry(Body, raw_body, path, file)
                    if raw_body.get("id") in ids:
                        self.fault(f"{path} is there twice. Give each body its own id, or remove one.", file)
                    ids.add(str(raw_body.get("id")))
                    if body is not None:
                        bodies.append(body)
            site = self.parse_entry(Site, {**raw, "bodies": tuple(bodies)}, "", file)
            stem = name.removesuffix(".toml")
            if isinstance(raw.get("site_id"), str) and raw["site_id"] != stem:
                self.fault(
                    f'site_id is "{raw["site_id"]}", but the file is called {name}. Rename the file to '
                    f'{raw["site_id"]}.toml or set site_id = "{stem}".',
                    file,
                )
            if site is not None:
                self.sites.append((file, site))

    # What must fit together -----------------------------------------------------------------------------------------

    def check_study(self) -> None:
        section = self.section
        if section is None:
            return
        if self.folder_name is not None and section.study_id != self.folder_name:
            self.fault(
                f'study.study_id is "{section.study_id}", but the folder is called {self.folder_name}. Rename the '
                f'folder or set study_id = "{self.folder_name}".'
            )
        dates = ("starts_on", "data_collection_starts_on", "data_collection_ends_on", "ends_on")
        for earlier, later in pairwise(dates):
            if getattr(section, earlier) > getattr(section, later):
                self.fault(
                    f"study.{later} ({getattr(section, later)}) is before {earlier} ({getattr(section, earlier)}). "
                    "Correct one of them."
                )
        for field in dates:
            if not EARLIEST_YEAR <= getattr(section, field).year <= LATEST_YEAR:
                self.fault(
                    f"study.{field} is {getattr(section, field)}. It must be in the years {EARLIEST_YEAR} to "
                    f"{LATEST_YEAR}. Correct the year."
                )
        for field in ("respondents", "forms", "instruments"):
            for word in _find_repeated(getattr(section, field)):
                self.fault(f'study.{field} has "{word}" twice. Remove one.')
        planned = self.find_declared("planned_instruments")
        for word in section.instruments:
            if word in planned:
                self.fault(f"planned_instruments.{word} is also in study.instruments. Remove it from one of the two.")
        self.check_identifiers(section)
        n_arms = len(self.find_declared("arms"))
        if section.allocation != "none" and n_arms == 1:
            self.fault(
                f'study.allocation is "{section.allocation}", but there is one arm. Add the arm that it is compared '
                'with, or set allocation = "none".'
            )
        if section.allocation == "none" and n_arms > 1:
            self.fault(
                f'study.allocation is "none", but there are {n_arms} arms. Say how people come to an arm, '
                "or keep one arm."
            )

    def check_identifiers(self, section: _StudySection) -> None:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")  # what Python will read otherwise one day is no sound pattern
                pattern = re.compile(section.participant_id_pattern)
        except (re.error, FutureWarning) as error:
            self.fault(
                f"study.participant_id_pattern is no regular expression: {error}. Correct it; a simple one is "
                "'(?P<site>[A-Z]{3})-P\\d{5}'."
            )
            return
        if pattern.fullmatch(""):
            self.fault("study.participant_id_pattern fits an empty cell. Make it require at least one character.")
            return
        found = pattern.fullmatch(section.participant_id_example)
        if found is None:
            self.fault(
                f'study.participant_id_example is "{section.participant_id_example}", which does not fit '
                f"participant_id_pattern '{section.participant_id_pattern}'. Correct one of them."
            )
        elif "site" in pattern.groupindex:
            codes = [site.code for _, site in self.sites]
            if codes and found["site"] not in codes:
                hint = find_suggestion(str(found["site"]), codes)
                self.fault(
                    f'study.participant_id_example names site "{found["site"]}", which is no site\'s code. Take an '
                    f"example of a site of this study.{hint}"
                )

    def check_waves(self) -> None:
        for path, window in self.entries.get("windows", []):
            self.check_window_order(path, window)
        used: set[str] = set()
        earlier: list[str] = []
        for path, wave in self.entries.get("waves", []):
            used.add(wave.window)
            self.check_known([wave.window], "windows", f"{path}.window", "window")
            if wave.anchor not in ANCHORS and wave.anchor not in earlier:
                hint = find_suggestion(wave.anchor, [*ANCHORS, *earlier])
                if wave.anchor in self.find_declared("waves"):
                    hint = " That wave comes later, or is this one: a wave counts from one further up."
                self.fault(
                    f'{path}.anchor is "{wave.anchor}", which is neither {", ".join(ANCHORS)} nor an earlier wave. '
                    f"Correct it.{hint}"
                )
            earlier.append(wave.id)
        roles = [raw.get("role") for raw in self.find_raw_entries("waves")]
        if roles and roles.count("baseline") != 1:
            self.fault(
                f'there are {roles.count("baseline")} waves with role = "baseline". Exactly one must have it: '
                "follow-up is compared with it."
            )
        raw_waves = [raw.get("window") for raw in self.find_raw_entries("waves")]
        for path, window in self.entries.get("windows", []):
            if window.id not in raw_waves:
                self.fault(f"{path} is used by no wave. Use it or remove it.")

    def check_window_order(self, path: str, window: Window) -> None:
        if (window.optimum_from is None) != (window.optimum_to is None):
            self.fault(f"{path} has only one of optimum_from and optimum_to. Add the other, or remove it.")
            return
        orders = [("opens", "due", "closes", "late_until")]
        if window.optimum_from is not None:
            orders.append(("opens", "optimum_from", "optimum_to", "closes"))
        told: set[tuple[str, str]] = set()
        for earlier, later in (pair for order in orders for pair in pairwise(order)):
            first, second = getattr(window, earlier), getattr(window, later)
            if (earlier, later) in told:
                continue
            told.add((earlier, later))
            day = _find_crossing(first, second)
            if day is not None:
                when = f" for a wave on {day}" if first.months != second.months else ""
                self.fault(
                    f'{path}.{later} ("{second}") comes before {earlier} ("{first}"){when}. Correct one of them.'
                )

    def check_schedule(self) -> None:
        section = self.section
        taken: set[tuple[str, str, str, str]] = set()
        cohorts = self.find_declared("cohorts")
        for path, entry in self.entries.get("schedule", []):
            self.check_known(entry.waves, "waves", f"{path}.waves", "wave")
            self.check_known(entry.cohorts, "cohorts", f"{path}.cohorts", "cohort")
            if section is not None:
                known = [*section.instruments, *self.find_declared("planned_instruments")]
                if entry.instrument not in known:
                    hint = find_suggestion(entry.instrument, known) or f" Known: {', '.join(known) or 'none'}."
                    self.fault(
                        f'{path}.instrument is "{entry.instrument}", which is neither in study.instruments nor under '
                        f"[[planned_instruments]]. Add or correct it.{hint}"
                    )
                if entry.respondent not in section.respondents:
                    self.fault(
                        f'{path}.respondent is "{entry.respondent}", who is not in study.respondents '
                        f"({', '.join(section.respondents)}). Add or correct it."
                    )
                for form in entry.forms:
                    if form not in section.forms:
                        self.fault(
                            f'{path}.forms names "{form}", which is not in study.forms ({", ".join(section.forms)}). '
                            "Add or correct it."
                        )
            repeated: dict[str, None] = {}
            for wave in entry.waves:
                for cohort in entry.cohorts or cohorts:
                    key = (entry.instrument, entry.respondent, wave, cohort)
                    if key in taken:
                        repeated[wave] = None
                    taken.add(key)
            for wave in repeated:
                self.fault(
                    f'{path} asks {entry.respondent} for {entry.instrument} at "{wave}" a second time. '
                    "Remove one of the two."
                )

    def check_consent(self) -> None:
        for path, form in self.entries.get("consent_forms", []):
            self.check_known(form.scopes, "consent_scopes", f"{path}.scopes", "scope")
            if form.in_force_until is not None and form.in_force_until < form.in_force_from:
                self.fault(
                    f"{path}.in_force_until ({form.in_force_until}) is before in_force_from ({form.in_force_from}). "
                    "Correct one of them."
                )
            if self.section is not None and form.in_force_from > self.section.data_collection_ends_on:
                self.fault(
                    f"{path}.in_force_from ({form.in_force_from}) is after the end of data collection "
                    f"({self.section.data_collection_ends_on}): nobody could sign it. Correct one of them."
                )

    def check_power(self) -> None:
        for path, basis in self.entries.get("power", []):
            self.check_known([basis.wave], "waves", f"{path}.wave", "wave")
            if self.section is None:
                continue
            for field, words, known in (
                ("instrument", [basis.instrument], self.section.instruments),
                ("respondents", basis.respondents, self.section.respondents),
            ):
                for word in words:
                    if word not in known:
                        self.fault(
                            f'{path}.{field} names "{word}", which is not in study.{field.rstrip("s")}s '
                            f"({', '.join(known) or 'none'}). Add or correct it."
                        )
        for path, reason in self.entries.get("disposition_reasons", []):
            if reason.is_ineligibility and reason.kind != "exclusion":
                self.fault(
                    f'{path}.is_ineligibility is true, but its kind is "{reason.kind}". Only an exclusion by the study '
                    "team can say that a person was not eligible: correct one of them."
                )

    def check_main_analysis(self) -> None:
        entries = self.entries.get("main_analysis", [])
        if len(self.find_raw_entries("main_analysis")) > 1:
            self.fault("there is more than one [[main_analysis]]. Keep the one with which the flow of people ends.")
        for path, analysis in entries:
            self.check_known([analysis.wave], "waves", f"{path}.wave", "wave")
            if self.section is None:
                continue
            for field, known in (("respondents", self.section.respondents), ("instruments", self.section.instruments)):
                for word in getattr(analysis, field):
                    if word not in known:
                        self.fault(
                            f'{path}.{field} names "{word}", which is not in study.{field} '
                            f"({', '.join(known) or 'none'}). Add or correct it."
                        )
        for path, reason in self.entries.get("disposition_reasons", []):
            if reason.is_never_received and "treatment" not in reason.scopes:
                self.fault(
                    f'{path}.is_never_received is true, but its scopes lack "treatment". Add the scope, or remove '
                    "is_never_received."
                )

    def check_sites(self) -> None:
        if not any(file.startswith(f"{SITES_FOLDER}/") and file.endswith(".toml") for file in self.files):
            self.faults.append(f"{self.folder}/{SITES_FOLDER}: there are no sites. Add a file for each.")
        roles = {raw.get("role") for raw in self.find_raw_entries("arms")}
        for field, called in (("code", "code"), ("name", "name")):
            seen: dict[str, str] = {}
            for file, site in self.sites:
                value = getattr(site, field)
                if _fold(value) in seen:
                    self.fault(f'{called} is "{value}", as in {seen[_fold(value)]}. Give each site its own.', file)
                seen.setdefault(_fold(value), file)
        bodies: dict[str, tuple[Body, str]] = {}
        for file, site in self.sites:
            if roles and site.role != "both" and site.role not in roles:
                self.fault(
                    f'role is "{site.role}", but no arm of the study has that role. Add the arm to study.toml, or '
                    "correct the role.",
                    file,
                )
            for body in site.bodies:
                other, other_file = bodies.setdefault(body.id, (body, file))
                if (other.name, other.kind) != (body.name, body.kind):
                    self.fault(
                        f"bodies.{body.id} has another name or kind than in {other_file}. One organisation has one id "
                        "everywhere: make them the same, or give this one its own id.",
                        file,
                    )


class _PathwayReader(_Reader):
    """Reads the file of the approvals, with the same messages."""

    def __init__(self, files: Mapping[str, bytes], folder_name: str | None) -> None:
        super().__init__(files, folder_name)
        self.file = PATHWAY_FILE
        self.sections = PATHWAY_SECTIONS

    def read_entries(self, body_ids: Collection[str]) -> dict[str, tuple[Any, ...]]:
        raw = self.parse_toml(PATHWAY_FILE)
        if raw is None:
            return {}
        self.raw = raw
        self.check_top_level(list(self.sections))
        self.read_sections()
        plain = [route for route in self.find_raw_entries("routes") if not route.get("for_modifications")]
        routed = {str(route.get("approval")) for route in plain}
        approval_ids, route_ids, duty_ids = map(self.find_declared, ("approvals", "routes", "duties"))
        for text in find_pathway_faults(self.entries, approval_ids, route_ids, routed, duty_ids, body_ids):
            self.fault(text)
        return {section: tuple(entry for _, entry in entries) for section, entries in self.entries.items()}


class _FieldworkReader(_Reader):
    """Reads the file of the fieldwork, with the same messages."""

    def __init__(self, files: Mapping[str, bytes], folder_name: str | None) -> None:
        super().__init__(files, folder_name)
        self.file = FIELDWORK_FILE
        self.sections = FIELDWORK_SECTIONS

    def read_entries(self, of: _Reader) -> dict[str, tuple[Any, ...]]:
        """`of`: the reader of the study, for what the rules may name."""
        raw = self.parse_toml(FIELDWORK_FILE)
        if raw is None:
            return {}
        self.raw = raw
        self.check_top_level(list(self.sections))
        self.read_sections()
        for text in find_fieldwork_faults(
            self.entries,
            wave_ids=of.find_declared("waves") if of.raw else [],
            scope_ids=of.find_declared("consent_scopes") if of.raw else [],
            site_ids=[site.site_id for _, site in of.sites],
            document_ids=of.document_ids if PATHWAY_FILE in self.files else None,
            respondents=of.section.respondents if of.section else get_args(Respondent),
            reason_ids=of.find_declared("disposition_reasons") if of.raw else [],
            site_codes=[site.code for _, site in of.sites],
            identifier_pattern=of.section.participant_id_pattern if of.section else "",
            identifier_example=of.section.participant_id_example if of.section else "",
        ):
            self.fault(text)
        return {section: tuple(entry for _, entry in entries) for section, entries in self.entries.items()}


def _find_crossing(first: Period, second: Period) -> date | None:
    """A wave's day on which `second` comes before `first`; None if it never does.

    Periods of the same months keep their order everywhere; others are tried on every day of a leap-year cycle.
    """
    start = date(2023, 1, 1)
    n_days = 1 if first.months == second.months else 1461
    days = (start + timedelta(days=n) for n in range(n_days))
    return next((day for day in days if add_period(day, second) < add_period(day, first)), None)


def _find_repeated(words: Iterable[str]) -> list[str]:
    return [word for word, n in Counter(words).items() if n > 1]


def _name_entry(section: str, raw: Mapping[str, Any], id_field: str, n: int) -> str:
    id_ = raw.get(id_field) if id_field else None
    return f"{section}.{id_}" if isinstance(id_, str) and id_ else f"{section} entry {n}"


def _show(value: object) -> str:
    """A value as a person wrote it in TOML, cut short."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return f'"{value[:60]}{"..." if len(value) > 60 else ""}"'
    if isinstance(value, list | tuple):
        return "a list" if value else "an empty list"
    if isinstance(value, Mapping):
        return "a table"
    return str(value)


def _walk(value: object, path: str = "") -> Iterator[tuple[str, object]]:
    """Every value of a parsed TOML document with its path."""
    if isinstance(value, Mapping):
        for key, part in value.items():
            yield from _walk(part, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list):
        for n, part in enumerate(value, start=1):
            yield from _walk(part, f"{path} entry {n}")
    else:
        yield path, value
