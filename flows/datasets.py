"""Datasets: freeze what a statistician receives."""

from __future__ import annotations

from datetime import date

from prefect import flow, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE

from flows.runs import AsOf, RequestedBy, StudyName, find_as_of, name_run
from tasks.orchestration import guarded
from tasks.releases import freeze_release
from tasks.workspace import open_workspace


@task(task_run_name="freeze as of {as_of}", cache_policy=NO_CACHE, persist_result=False)
@guarded
def freeze(study: str, as_of: date, requested_by: str) -> dict[str, str]:
    """Freeze a release. Returns its name, where it is, and whether it is new."""
    frozen = freeze_release(open_workspace(study), as_of, requested_by)
    rows = ", ".join(f"{name} {table['n_rows']:,}" for name, table in frozen.manifest["tables"].items())
    return {"release": frozen.release, "location": frozen.location, "answer": frozen.answer, "rows": rows}


@flow(name="freeze-release", flow_run_name=name_run, log_prints=False, persist_result=False)
@guarded
def freeze_dataset(study: StudyName, requested_by: RequestedBy, as_of: AsOf = None) -> dict[str, str]:
    """Freeze a dataset as of a day: tables, codebook, report and manifest, as the ledger knows them now."""
    workspace = open_workspace(study)
    frozen = freeze(study, find_as_of(as_of, workspace), requested_by)
    news = "The same dataset had been frozen before." if frozen["answer"] == "same" else "A new release."
    create_markdown_artifact(
        f"## Release {frozen['release']}: {workspace.study.title}\n\n{news} Rows: {frozen['rows']}.\n\n"
        f"In `{frozen['location']}`; begin with `report.html`.",
        key=f"release-{study}".replace("_", "-"),
        description="Release",
    )
    return frozen
