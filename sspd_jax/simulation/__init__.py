"""Simulated people: face videos with a known pulse."""
