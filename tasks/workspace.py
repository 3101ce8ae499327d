"""A study at work: its definitions, its ledger and its files, opened from the settings.

Flows and tasks are given the study's name and open the workspace themselves, so that nothing about participants passes
through Prefect. A replay puts its own workspace (its own folder, its own clock) in the place of the study's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime
from functools import cached_property, lru_cache
from pathlib import Path

from study.configuration import GIVEN_UP, find_changes, find_in_force
from study.events import ConfigurationAdopted, Event, StudyDayCompleted
from study.instruments import Instrument
from study.pack_layout import Layout, derive_return_layout
from study.protocol import Study
from study.state import Events
from tasks.definitions import list_configuration, load_instruments, load_study, parse_configuration
from tasks.files import ContentStore, DropBox, FileArea, FolderArea, open_area
from tasks.ledger import Ledger
from tasks.settings import Settings, read_settings

Clock = Callable[[], datetime]
OWN_DEFINITIONS = "definitions"
"""The folder of studies that a rehearsal runs by, in its own folder, where they differ from those of the settings."""
REHEARSAL = "rehearsal"
"""What stands behind a study's id in the name of its rehearsal, `ipc.rehearsal`; anything else is a replay's slice."""


def read_clock() -> datetime:
    """Now, in UTC."""
    return datetime.now(UTC)


@dataclass
class Workspace:
    """One study's definitions, ledger and files. `name` is the study's id, or that of a rehearsal or of a replay's
    slice of it."""

    name: str
    study: Study
    instruments: dict[str, Instrument]
    ledger: Ledger
    area: FileArea
    settings: Settings
    folder: Path
    clock: Clock = read_clock
    # Whether a round writes the pages. A rehearsal writes those of its last day only: each takes the place of the last.
    writes_pages: bool = True
    # What deciding on returns read of the ledger last (`tasks.returns.Snapshot`).
    snapshot: object = None

    @cached_property
    def content(self) -> ContentStore:
        return ContentStore(self.area.below("files"))

    @cached_property
    def layout(self) -> Layout:
        return derive_return_layout(self.study, self.instruments)

    @property
    def is_live(self) -> bool:
        """Whether time here is the world's, and not a replay's."""
        return self.clock is read_clock

    @property
    def is_of_the_world(self) -> bool:
        """Whether what this study sends goes to people: it does not in a rehearsal, a replay or a slice of one."""
        return self.is_live and self.name == self.study.study_id

    @property
    def slice_name(self) -> str:
        """The name of a replay's slice; "" of a study as a whole. A rehearsal is one: its people are invented, and all
        of them are in it."""
        is_whole = self.name in (self.study.study_id, f"{self.study.study_id}.{REHEARSAL}")
        return "" if is_whole else self.name

    @property
    def banner(self) -> str:
        """What stands above all else on a page of a study that is not of the world."""
        return "" if self.is_of_the_world else "A rehearsal or a replay: nothing is sent to anybody."

    @property
    def cache_folder(self) -> Path:
        """Decoded events of the ledger; may be deleted at any time."""
        return self.folder / "cache"

    @property
    def contacts_file(self) -> Path:
        """Names and addresses of the people at the sites; a rehearsal has made-up ones in its own folder."""
        own = self.folder / "contacts.toml"
        return own if own.is_file() else self.settings.contacts / f"{self.study.study_id}.toml"

    def reload_definitions(self) -> None:
        """Read protocol, sites and instruments again. Raises DefinitionFaults, and keeps the old ones, if wrong."""
        study = load_study(self.study.study_id, self.settings.sites_config, self.settings.instruments)
        self.study, self.instruments = study, load_instruments(study, self.settings.instruments)
        self.__dict__.pop("layout", None)

    def drop_box(self, site_id: str) -> DropBox:
        return DropBox(self.area.below("sites"), site_id)

    def read_events(self) -> Events:
        """Everything that the ledger holds, decoded."""
        return self.ledger.read_events(self.cache_folder)


_instead: dict[str, Workspace] = {}


@contextmanager
def use_workspace(workspace: Workspace) -> Iterator[Workspace]:
    """While this lasts, flows and tasks of this process that ask for the study get this workspace."""
    study_id = workspace.study.study_id
    before = _instead.get(study_id)
    _instead[study_id] = workspace
    try:
        yield workspace
    finally:
        if before is None:
            del _instead[study_id]
        else:
            _instead[study_id] = before


def open_workspace(study_id: str) -> Workspace:
    """The workspace of a study as the settings have it. Raises DefinitionFaults where its definitions are wrong."""
    if study_id in _instead:
        return _instead[study_id]
    return _open_live(study_id)


@lru_cache(maxsize=8)
def _open_live(study_id: str) -> Workspace:
    return create_workspace(study_id, settings=read_settings())


def create_workspace(
    study_id: str, *, settings: Settings, name: str | None = None, clock: Clock = read_clock, is_synced: bool = True
) -> Workspace:
    """Open, and on first use create, the ledger and the file area of a study.

    Without `is_synced` a power cut may take what was written last: of a rehearsal, which can be played again.
    """
    own = settings.data_folder / (name or study_id) / OWN_DEFINITIONS
    if own.is_dir():
        settings = settings.model_copy(update={"sites_config": own})
    study = load_study(study_id, settings.sites_config, settings.instruments)
    instruments = load_instruments(study, settings.instruments)
    name = name or study_id
    folder = settings.data_folder / name
    folder.mkdir(parents=True, exist_ok=True)
    url = settings.database_url or f"sqlite:///{(folder / 'ledger.db').resolve()}"
    if settings.files:
        area = open_area(
            f"{settings.files.rstrip('/')}/{name}",
            endpoint_url=settings.s3_endpoint or None,
            region=settings.s3_region,
            access_key=settings.s3_access_key or None,
            secret_key=settings.s3_secret_key.get_secret_value() or None,
        )
    else:
        area = FolderArea(folder, is_synced=is_synced)
    ledger = Ledger.open(url, name, clock, is_synced=is_synced)
    return Workspace(name, study, instruments, ledger, area, settings, folder, clock)


def adopt_configuration(workspace: Workspace, as_of: date, requested_by: str) -> list[Event]:
    """Store the study's definitions by content and record each part that changed as adopted on `as_of`.

    A fold as of an earlier day then still finds the protocol of that day. Raises DefinitionFaults, and adopts nothing,
    where what changed is wrong.
    """
    study_id, folders = workspace.study.study_id, (workspace.settings.sites_config, workspace.settings.instruments)
    in_force = find_in_force(workspace.read_events().frame(ConfigurationAdopted), as_of)
    changes = find_changes(in_force, list_configuration(study_id, *folders, workspace.study))
    if not changes:
        return []
    workspace.reload_definitions()
    parts = list_configuration(study_id, *folders, workspace.study)
    changes = find_changes(in_force, parts)
    contents = {part.sha256: part.data for part in parts} | {GIVEN_UP: b""}
    for change in changes:
        workspace.content.put(contents[change.sha256])
    adopted: list[Event] = [
        ConfigurationAdopted(
            occurred_on=as_of,
            requested_by=requested_by,
            part=change.part,
            name=change.name,
            sha256=change.sha256,
            follows=change.follows,
        )
        for change in changes
    ]
    workspace.ledger.append(adopted)
    return adopted


def read_study_of(workspace: Workspace, day: date) -> Study:
    """The study by the configuration that was in force at the end of a day: the present one where no part was another,
    or none was adopted yet."""
    adopted = workspace.read_events().frame(ConfigurationAdopted)
    columns = ["part", "name", "sha256"]
    then, now = (set(find_in_force(adopted, on)[columns].itertuples(index=False, name=None)) for on in (day, date.max))
    if not then or then == now:
        return workspace.study
    return parse_configuration({(part, name): workspace.content.get(sha256) for part, name, sha256 in then})[0]


def record_study_day(workspace: Workspace, as_of: date, requested_by: str) -> None:
    """Record that the round of a day came to its end. A second round of the same day changes nothing."""
    workspace.ledger.append([StudyDayCompleted(occurred_on=as_of, requested_by=requested_by)])
