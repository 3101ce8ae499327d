"""`summative attrition`: who was lost so far, before a dataset is frozen."""

from __future__ import annotations

import typer

from desk.options import StudyArgument, open_study, out

attrition_app = typer.Typer(help="Who was lost, when and why, and what it does to the study.", no_args_is_help=True)


@attrition_app.command()
def report(study: StudyArgument) -> None:
    """Who was lost so far: a page with plots, the same as PDF, and its figures. Nothing is frozen."""
    workspace = open_study(study)
    from tasks.releases import write_current_attrition

    for key in write_current_attrition(workspace):
        out.print(f"{workspace.area.place}/{key}", soft_wrap=True)
