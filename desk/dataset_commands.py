"""`summative codebook` and `summative workbook`: what a study's data mean, and a frozen dataset for Excel."""

from __future__ import annotations

from typing import Annotated

import typer

from desk.options import StudyArgument, open_study, out

dataset_app = typer.Typer()


@dataset_app.command()
def codebook(study: StudyArgument) -> None:
    """What every table, column, code, item and score of a study's datasets will mean, before there are any data."""
    workspace = open_study(study)
    from tasks.codebook_files import write_current_codebook

    for key in write_current_codebook(workspace):
        out.print(f"{workspace.area.place}/{key}", soft_wrap=True, markup=False)


@dataset_app.command()
def workbook(
    study: StudyArgument,
    release: Annotated[str, typer.Option(help="A release, such as 2013-12-31; left out, the newest.")] = "latest",
) -> None:
    """The tables of a frozen dataset as an Excel workbook."""
    workspace = open_study(study)
    from tasks.release_reading import write_release_workbook

    out.print(f"{workspace.area.place}/{write_release_workbook(workspace, release)}", soft_wrap=True, markup=False)
