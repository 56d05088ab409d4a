"""Taps: reading features out of any network, by name, while it runs."""
