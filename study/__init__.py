"""Decide: pure rules. No Prefect, no files, no environment, no clock."""
