"""Watching a run: clock, record, trace, stop rules, progress."""
