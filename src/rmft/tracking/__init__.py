"""Experiment trackers: a run's figures, after they are committed, in the tracker that a team already uses.

A tracker reads a run and never takes part in it: a process of its own follows metrics.jsonl.
"""
