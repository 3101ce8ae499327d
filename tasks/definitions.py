"""Studies, sites and instruments from their folders: load them, find what is wrong with them, start a new study.

The rules of what may be stated are `study.protocol`'s and `study.instruments`'; here the files are read, and what no
single file shows is held together: an instrument that no folder defines, an assumption that its file doesn't declare.
"""

from __future__ import annotations

import json
import re
import tempfile
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from study.calendar import LONDON, add_months
from study.configuration import ConfigurationPart, assemble_files, list_parts
from study.flat_exports import find_source_faults
from study.flat_files import find_import_map_faults
from study.instrument_parser import parse_instrument
from study.instruments import UNIT_COSTS_FILE, DefinitionFaults, Instrument, find_suggestion, is_instrument_file
from study.pack_layout import ABOUT_TITLE, TITLES_PASSED_OVER, derive_return_layout, fold_title
from study.protocol import (
    FIELDWORK_FILE,
    PATHWAY_FILE,
    SITES_FOLDER,
    SOURCES_FOLDER,
    STUDY_FILE,
    Study,
    parse_study,
)
from study.return_checks import find_across_faults
from study.safeguarding import find_safeguarding_faults
from study.scoring import find_worked_example_faults
from study.value_sets import VALUE_SETS_FOLDER
from tasks.settings import PROJECT, read_settings

NEW_STUDY_FOLDER = PROJECT / "templates" / "new_study"
FINISHED_STUDIES = PROJECT / "templates" / "finished_studies"

_STUDY_ID = re.compile(r"[a-z][a-z0-9_]{1,39}")
_TITLE = re.compile(r"[^\x00-\x1f\x7f]*[^\x00-\x20\x7f][^\x00-\x1f\x7f]*")


_OF_STUDY = (STUDY_FILE, PATHWAY_FILE, FIELDWORK_FILE)


class StudyNotFound(LookupError):
    """No study of this name has a folder."""


class InstrumentNotFound(LookupError):
    """No instrument of this name has a folder."""


class StudyExists(FileExistsError):
    """A study of this name has a folder already, which is left as it is."""


@dataclass(frozen=True, slots=True)
class Findings:
    """What a check found. Faults must be mended before the study can run; notes are for a person to know."""

    faults: tuple[str, ...]
    notes: tuple[str, ...]


def list_studies(sites_config: Path | None = None) -> list[str]:
    """The study_ids that have a folder with a study.toml, sorted; none of it is read."""
    return [path.name for path in _list_folders(_find_sites_config(sites_config)) if (path / STUDY_FILE).is_file()]


def list_sites(sites_config: Path | None = None, study_id: str | None = None) -> list[str]:
    """The site_ids that have a file, of one study or of all, sorted; none of it is read."""
    folder = _find_sites_config(sites_config)
    studies = list_studies(folder) if study_id is None else [study_id]
    return sorted({path.stem for study in studies for path in (folder / study / SITES_FOLDER).glob("[!.]*.toml")})


def list_waves(sites_config: Path | None = None, study_id: str | None = None) -> list[str]:
    """The ids of the waves that one study names, or all of them, sorted; a file that can't be read has none."""
    folder = _find_sites_config(sites_config)
    found: set[str] = set()
    for study in list_studies(folder) if study_id is None else [study_id]:
        try:
            entries = tomllib.loads((folder / study / STUDY_FILE).read_text(encoding="utf-8-sig")).get("waves")
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError):
            continue
        named = [entry.get("id") for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []
        found |= {wave for wave in named if isinstance(wave, str)}
    return sorted(found)


def load_study(study_id: str, sites_config: Path | None = None, instruments: Path | None = None) -> Study:
    """The study as its files state it now; folders not given are those of the settings.

    Raises `StudyNotFound`, or `DefinitionFaults` with every fault that `find_faults` finds.
    """
    study, findings = _examine(study_id, _find_sites_config(sites_config), _find_instruments(instruments))
    if study is None or findings.faults:
        raise DefinitionFaults(findings.faults)
    return study


def find_faults(study_id: str, sites_config: Path | None = None, instruments: Path | None = None) -> Findings:
    """Everything that a person can get wrong in a study's files, its sites' and its instruments', all at once.

    Raises `StudyNotFound`.
    """
    return _examine(study_id, _find_sites_config(sites_config), _find_instruments(instruments))[1]


def load_instruments(study: Study, instruments: Path | None = None) -> dict[str, Instrument]:
    """The study's instruments by id, in the protocol's order. Raises `DefinitionFaults` with all their faults."""
    folder = _find_instruments(instruments)
    return _parse_instruments({id_: _read_instrument_files(folder / id_) for id_ in study.instruments})


def list_instruments(instruments: Path | None = None) -> list[str]:
    """The ids of instruments that have a folder, sorted; none of it is read."""
    return [path.name for path in _list_folders(_find_instruments(instruments))]


def load_instrument(instrument_id: str, instruments: Path | None = None) -> Instrument:
    """One instrument from its folder. Raises `InstrumentNotFound`, or `DefinitionFaults` with all its faults."""
    folder, known = _find_instruments(instruments), list_instruments(instruments)
    if instrument_id not in known:
        hint = find_suggestion(instrument_id, known) or f" Known: {', '.join(known) or 'none'}."
        raise InstrumentNotFound(f'There is no instrument "{instrument_id}" in {folder}.{hint}')
    return _parse_instruments({instrument_id: _read_instrument_files(folder / instrument_id)})[instrument_id]


def check_instrument(instrument_id: str, instruments: Path | None = None) -> Findings:
    """Everything that is wrong with an instrument's folder, its worked examples scored too, and what to know of it.

    Worked examples can be scored only where the definition has no fault. Raises `InstrumentNotFound`.
    """
    try:
        instrument = load_instrument(instrument_id, instruments)
    except DefinitionFaults as error:
        return Findings(tuple(error.faults), ())
    place, notes = f"instruments/{instrument_id}", []
    folder = _find_instruments(instruments) / instrument_id
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and not _is_clutter(path.name) and not is_instrument_file(name):
            notes.append(f"{place}/{name}: nothing reads this file.")
    if instrument.has_costs and instrument.unit_costs is None:
        notes.append(f"{place}: no {UNIT_COSTS_FILE}, so no costs are computed. A study that wants them adds the file.")
    notes += [f"{place}: on the form {', '.join(c.forms)}: {c.text}" for c in instrument.cautions if c.forms]
    return Findings(tuple(find_worked_example_faults(instrument)), tuple(notes))


def list_configuration(
    study_id: str, sites_config: Path | None = None, instruments: Path | None = None, study: Study | None = None
) -> list[ConfigurationPart]:
    """Every part of a study's configuration as its bytes are now, to be stored by content and adopted.

    `study` is that configuration as loaded before, if it was: then nothing is parsed, only read.
    """
    study = study or load_study(study_id, sites_config, instruments)
    study_files = _read_study_files(_find_sites_config(sites_config) / study_id)
    folder = _find_instruments(instruments)
    return list_parts(study_id, study_files, {id_: _read_instrument_files(folder / id_) for id_ in study.instruments})


def parse_configuration(parts: Mapping[tuple[str, str], bytes]) -> tuple[Study, dict[str, Instrument]]:
    """A study and its instruments as they stood, from stored contents by part and name.

    Raises `DefinitionFaults` where they do not parse, or where an instrument that the study names is not among them.
    """
    files = assemble_files(parts)
    study = parse_study(files.study)
    return study, _parse_instruments({id_: files.instruments.get(id_, {}) for id_ in study.instruments})


def scaffold_study(
    study_id: str, title: str, sites_config: Path | None = None, starts_on: date | None = None
) -> list[Path]:
    """Write a new study that validates at once, with one example site, commented for whoever fills it in.

    Gives the files written. `starts_on`: the first of the month after next, if not given. Raises `StudyExists` (nothing
    is overwritten) and `ValueError` for a study_id or title that cannot be one.
    """
    folder = _find_new_folder(study_id, title, sites_config)
    if starts_on is None:
        starts_on = add_months(datetime.now(LONDON).date().replace(day=1), 2)
    files = _render_new_study(study_id, title, starts_on)
    parse_study(files, study_id)  # a template that has gone wrong is found before anything is written
    return _write_folder(folder, files)


def copy_finished_study(
    like: str, study_id: str, title: str = "", sites_config: Path | None = None, instruments: Path | None = None
) -> list[Path]:
    """Copy a study of templates/finished_studies, with its instruments, under a name of its own, as one that comes from
    flat files. Gives the files written; an instrument that is there already is left as it is.

    Raises `StudyExists`, and `ValueError` for a name that cannot be one, or for `like` where there is no such study.
    """
    template, known = FINISHED_STUDIES / like, list_studies(FINISHED_STUDIES)
    if like not in known:
        raise ValueError(f'There is no finished study "{like}" to copy. There are: {", ".join(known)}.')
    folder = _find_new_folder(study_id, title or like, sites_config)
    files = _read_study_files(template)
    text = files[STUDY_FILE].decode()
    text = text.replace(f'study_id = "{like}"', f'study_id = "{study_id}"', 1)
    if title:
        text = re.sub(r"(?m)^title = .*$", lambda _: f"title = {json.dumps(title, ensure_ascii=False)}", text, count=1)
    written = _write_folder(folder, {**files, STUDY_FILE: text.encode()})
    for own in _list_folders(template / "instruments"):
        target = _find_instruments(instruments) / own.name
        if not target.exists():
            written += _write_folder(target, _read_instrument_files(own))
    return written


def _find_new_folder(study_id: str, title: str, sites_config: Path | None) -> Path:
    """Where a new study goes. Raises as `scaffold_study`."""
    if not _STUDY_ID.fullmatch(study_id):
        raise ValueError(
            f'"{study_id}" cannot be the name of a study. Take small letters, digits and underscores, a letter first, '
            f'2 to 40 of them, such as "{_propose_id(study_id)}".'
        )
    if not _TITLE.fullmatch(title):
        raise ValueError("The title of the study is empty or has a line break in it. Give it on one line.")
    folder = _find_sites_config(sites_config) / study_id
    if folder.exists():
        raise StudyExists(f"{folder} exists already and was left as it is. Choose another name, or edit what is there.")
    return folder


def _write_folder(folder: Path, files: Mapping[str, bytes]) -> list[Path]:
    """A folder with these files, whole or not at all; the files, sorted."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as waiting:
        made = Path(waiting) / folder.name
        for path, data in files.items():
            (made / path).parent.mkdir(parents=True, exist_ok=True)
            (made / path).write_bytes(data)
        made.rename(folder)
    return [folder / path for path in sorted(files)]


# Reading folders ----------------------------------------------------------------------------------------------------


def _find_sites_config(folder: Path | None) -> Path:
    return folder or read_settings().sites_config


def _find_instruments(folder: Path | None) -> Path:
    return folder or read_settings().instruments


def _list_folders(folder: Path) -> Iterator[Path]:
    if folder.is_dir():
        yield from (path for path in sorted(folder.iterdir()) if path.is_dir() and not _is_clutter(path.name))


def _is_clutter(name: str) -> bool:
    """Names that editors and operating systems leave behind."""
    return name.startswith((".", "~$", "__")) or name.endswith(("~", ".bak", ".swp", ".orig"))


def _read_files(folder: Path) -> dict[str, bytes]:
    """File names to contents, clutter left out, folders within not entered."""
    return {
        path.name: path.read_bytes()
        for path in sorted(folder.iterdir())
        if path.is_file() and not _is_clutter(path.name)
    }


def _read_study_files(folder: Path) -> dict[str, bytes]:
    """The files that a study is parsed from: study.toml, approvals.toml, fieldwork.toml, sites/*.toml and
    sources/*.toml."""
    files = {name: data for name, data in _read_files(folder).items() if name in _OF_STUDY}
    for name in (SITES_FOLDER, SOURCES_FOLDER):
        own = _read_files(folder / name) if (folder / name).is_dir() else {}
        files |= {f"{name}/{file}": data for file, data in own.items() if file.endswith(".toml")}
    return files


def _read_instrument_files(folder: Path) -> dict[str, bytes]:
    """The files of an instrument's folder and its value sets, by path within it; none if there is no such folder."""
    if not folder.is_dir():
        return {}
    value_sets = folder / VALUE_SETS_FOLDER
    tables = _read_files(value_sets) if value_sets.is_dir() else {}
    return {**_read_files(folder), **{f"{VALUE_SETS_FOLDER}/{name}": data for name, data in tables.items()}}


def _parse_instruments(files: Mapping[str, Mapping[str, bytes]]) -> dict[str, Instrument]:
    """Instruments from their files by id. Raises `DefinitionFaults` with the faults of all of them."""
    instruments: dict[str, Instrument] = {}
    faults: list[str] = []
    for id_, of_folder in files.items():
        try:
            _refuse_other_encodings(id_, of_folder)
            instruments[id_] = parse_instrument(id_, of_folder)
        except DefinitionFaults as error:
            faults += error.faults
    if faults:
        raise DefinitionFaults(faults)
    return instruments


def _refuse_other_encodings(id_: str, files: Mapping[str, bytes]) -> None:
    """The configuration is kept as text, so every file of an instrument must be text."""
    faults = []
    for name, data in files.items():
        try:
            data.decode()
        except UnicodeDecodeError:
            faults.append(
                f"instruments/{id_}/{name}: not UTF-8 text. Save it with the encoding UTF-8, or move it elsewhere."
            )
    if faults:
        raise DefinitionFaults(faults)


# Checking -----------------------------------------------------------------------------------------------------------


def _examine(study_id: str, sites_config: Path, instruments_folder: Path) -> tuple[Study | None, Findings]:
    folder = sites_config / study_id
    known = [path.name for path in _list_folders(sites_config)]
    if study_id not in known:
        hint = find_suggestion(study_id, known)
        raise StudyNotFound(
            f'There is no study "{study_id}" in {sites_config}. Known: {", ".join(known) or "none"}.{hint}'
        )
    faults, notes = _find_stray_files(folder)
    files = _read_study_files(folder)
    study: Study | None = None
    try:
        study = parse_study(files, study_id)
    except DefinitionFaults as error:
        faults += error.faults
    place = f"sites_config/{study_id}/{STUDY_FILE}"
    named, planned = _find_named_instruments(study, files)
    available = [path.name for path in _list_folders(instruments_folder)]
    for id_ in named:
        if id_ not in available:
            hint = find_suggestion(id_, available) or f" Known: {', '.join(available) or 'none'}."
            faults.append(
                f'{place}: study.instruments names "{id_}", but there is no folder instruments/{id_}. Add it, move the '
                f"name to [[planned_instruments]], or correct it.{hint}"
            )
    for id_ in planned:
        state = (
            "defined now. Move it to study.instruments to use it"
            if id_ in available
            else f"not defined yet: nothing of it can be sent or returned until instruments/{id_} exists"
        )
        notes.append(f"{place}: planned_instruments.{id_} is {state}.")
    instruments: dict[str, Instrument] = {}
    for id_ in [*named, *planned]:
        if id_ in available:
            try:
                instruments |= _parse_instruments({id_: _read_instrument_files(instruments_folder / id_)})
            except DefinitionFaults as error:
                faults += error.faults
    if study is not None:
        clashes = _find_title_clashes(study, instruments)
        faults += clashes
        faults += _find_schedule_faults(study, instruments, place)
        faults += _find_undeclared_assumptions(study, place)
        faults += find_safeguarding_faults(study, instruments)
        faults += find_across_faults(study, instruments)
        has_sources = any(path.startswith(f"{SOURCES_FOLDER}/") for path in files)
        if has_sources and not clashes and all(id_ in instruments for id_ in study.instruments):
            layout = derive_return_layout(study, instruments)
            faults += [*find_source_faults(files, study, layout), *find_import_map_faults(files, study, layout)]
        notes += _find_notes(study, place)
    return study, Findings(tuple(faults), tuple(notes))


def _find_named_instruments(study: Study | None, files: Mapping[str, bytes]) -> tuple[list[str], list[str]]:
    """The ids of instruments and of planned ones; of a study that can't be read, as far as its text shows them."""
    if study is not None:
        return list(study.instruments), [entry.id for entry in study.planned_instruments]
    try:
        raw = tomllib.loads(files[STUDY_FILE].decode("utf-8-sig"))
        named = raw["study"]["instruments"]
    except (KeyError, TypeError, UnicodeDecodeError, tomllib.TOMLDecodeError):
        return [], []  # said already, as a fault of the file
    return [id_ for id_ in named if isinstance(id_, str)] if isinstance(named, list) else [], []


def _find_stray_files(folder: Path) -> tuple[list[str], list[str]]:
    """Files that nothing reads: a site's file in the wrong place is a site left out without a word."""
    faults: list[str] = []
    notes: list[str] = []
    for path in sorted(folder.rglob("*")):
        if path.is_dir() or any(_is_clutter(part) for part in path.relative_to(folder).parts):
            continue
        name = path.relative_to(folder).as_posix()
        parent = path.parent.relative_to(folder).as_posix()
        if name in _OF_STUDY or (parent in (SITES_FOLDER, SOURCES_FOLDER) and path.suffix == ".toml"):
            continue
        place = f"sites_config/{folder.name}/{name}"
        if path.suffix.lower() == ".toml" or parent == SITES_FOLDER:
            faults.append(
                f"{place}: nothing reads this file. A site is {SITES_FOLDER}/<site_id>.toml, the protocol is "
                f"{STUDY_FILE}, the pathway {PATHWAY_FILE}, the fieldwork {FIELDWORK_FILE}: rename, move or remove it."
            )
        else:
            notes.append(f"{place}: nothing reads this file.")
    return faults, notes


def _find_title_clashes(study: Study, instruments: Mapping[str, Instrument]) -> list[str]:
    """Excel refuses two sheets of one name, whatever the capitals."""
    logs = derive_return_layout(study.model_copy(update={"instruments": ()}), {})
    every_return = [ABOUT_TITLE, *TITLES_PASSED_OVER, *(sheet.title for sheet in logs.sheets)]
    owners = {fold_title(title): f'the sheet "{title}" that every return has' for title in every_return}
    faults = []
    for id_, instrument in instruments.items():
        title = fold_title(instrument.sheet_title)
        if title in owners:
            faults.append(
                f'instruments/{id_}: sheet_title "{instrument.sheet_title}" is also that of {owners[title]}. Give it '
                "another one."
            )
        owners.setdefault(title, f"instruments/{id_}")
    return faults


def _find_schedule_faults(study: Study, instruments: Mapping[str, Instrument], place: str) -> list[str]:
    faults = []
    for n, entry in enumerate(study.schedule, start=1):
        instrument = instruments.get(entry.instrument)
        if instrument is None:
            continue
        asked = [("respondent", [entry.respondent], instrument.respondents), ("form", entry.forms, instrument.forms)]
        for called, words, allowed in asked:
            for word in words:
                if word not in allowed:
                    faults.append(
                        f'{place}: schedule entry {n} has {called} "{word}", but instruments/{entry.instrument} is for '
                        f"{', '.join(allowed)}. Correct one of the two."
                    )
    for basis in study.power:
        instrument = instruments.get(basis.instrument)
        if instrument is not None and basis.scale not in instrument.scale_ids:
            faults.append(
                f'{place}: power.{basis.id}.scale is "{basis.scale}", which instruments/{basis.instrument} lacks. '
                f"Known: {', '.join(instrument.scale_ids)}."
            )
    return faults


def _find_undeclared_assumptions(study: Study, place: str) -> list[str]:
    faults = []
    declared: dict[str, list[str] | None] = {}
    for assumption in study.assumptions:
        file = assumption.declared_in
        if file is None:
            continue
        if file not in declared:
            declared[file] = _read_declared(PROJECT / file)
        known = declared[file]
        if known is None:
            faults.append(
                f"{place}: assumptions.{assumption.id} is declared in {file}, which cannot be read. Correct it."
            )
        elif assumption.id not in known:
            hint = find_suggestion(assumption.id, known)
            faults.append(
                f"{place}: assumptions.{assumption.id} is not declared in {file}. Add it there or correct the id.{hint}"
            )
    return faults


def _read_declared(file: Path) -> list[str] | None:
    """The ids under [[assumption]] of a file; None if it can't be read."""
    try:
        entries = tomllib.loads(file.read_text(encoding="utf-8"))["assumption"]
        return [entry["id"] for entry in entries]
    except (OSError, KeyError, TypeError, UnicodeDecodeError, tomllib.TOMLDecodeError):
        return None


def _find_notes(study: Study, place: str) -> list[str]:
    notes = []
    scheduled = {entry.instrument for entry in study.schedule}
    for id_ in [*study.instruments, *(entry.id for entry in study.planned_instruments)]:
        if id_ not in scheduled:
            notes.append(f"{place}: {id_} is expected at no wave. Add it to the schedule if it should be.")
    for wave in study.waves:
        if not study.find_scheduled(wave.id):
            notes.append(f"{place}: nothing is expected at wave {wave.id}.")
    if not study.pathway.activities:
        notes.append(
            f"sites_config/{study.study_id}/{PATHWAY_FILE}: the file is missing, so no site counts as open for "
            "anything, and every questionnaire that comes in is kept apart. Add it with what each activity needs."
        )
    n_by_site = {site.site_id: sum(not body.confirmed for body in site.bodies) for site in study.sites}
    n_bodies = sum(len(site.bodies) for site in study.sites)
    if n_open := sum(n_by_site.values()):
        sites = ", ".join(f"{site_id} {n}" for site_id, n in n_by_site.items() if n)
        notes.append(
            f"sites_config/{study.study_id}/{SITES_FOLDER}: {n_open} of {n_bodies} bodies are still to be confirmed "
            f"with their sites ({sites})."
        )
    for arm in study.arms:
        if not any(arm in study.find_arms_at(site) for site in study.sites):
            notes.append(f"{place}: no site has a role that goes with arm {arm.id}: nobody can be in it yet.")
    return notes


# A new study --------------------------------------------------------------------------------------------------------


def _render_new_study(study_id: str, title: str, starts_on: date) -> dict[str, bytes]:
    # TOML, not HTML: what goes in is quoted by the filter `toml`, so escaping for HTML would only spoil it.
    environment = Environment(  # noqa: S701  # it renders TOML
        loader=FileSystemLoader(NEW_STUDY_FOLDER), undefined=StrictUndefined, keep_trailing_newline=True
    )
    environment.filters["toml"] = _quote_toml
    values = {
        "study_id": study_id,
        "title": title,
        "starts_on": starts_on,
        "data_collection_starts_on": add_months(starts_on, 6),
        "data_collection_ends_on": add_months(starts_on, 30),
        "ends_on": add_months(starts_on, 36),
    }
    return {
        path.removesuffix(".jinja"): environment.get_template(path).render(values).encode()
        for path in sorted(environment.list_templates(extensions=["jinja"]))
    }


def _quote_toml(text: str) -> str:
    """A TOML basic string; JSON's quoting is a part of TOML's."""
    return json.dumps(text, ensure_ascii=False)


def _propose_id(text: str) -> str:
    proposed = re.sub(r"[^a-z0-9]+", "_", text.casefold()).strip("_0123456789")[:40].strip("_")
    return proposed if _STUDY_ID.fullmatch(proposed) else "my_study"
