"""Checks: whether a machine is fit for a run, found out before the run."""
