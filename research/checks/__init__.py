"""Checks: whether a machine is fit for a run, and whether a page's own training is what it claims to be."""
