"""The fault-injection campaign: each trial is a function of a seed, and returns how it failed, or None."""
