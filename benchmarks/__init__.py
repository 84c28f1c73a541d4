"""Experiments behind the numbers in README.md and LOG.md. Not installed."""
