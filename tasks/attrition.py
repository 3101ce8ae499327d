"""Reads the tables that reports on attrition are held against."""

from functools import cache

from study.attrition_models import Boundary, parse_boundary
from tasks.settings import PROJECT


@cache
def load_boundary() -> Boundary:
    """The boundary of the What Works Clearinghouse, from `templates/attrition_boundary.csv`."""
    return parse_boundary((PROJECT / "templates" / "attrition_boundary.csv").read_text(encoding="utf-8"))
