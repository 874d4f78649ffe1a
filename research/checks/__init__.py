"""Checks: whether a page's own training is what it claims to be."""
