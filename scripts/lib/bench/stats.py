"""Medians, and numbers as people read them."""

import statistics


def median(values):
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None


def number(value, digits=2):
    if value is None:
        return "-"
    return f"{value:,.0f}" if digits == 0 else f"{value:,.{digits}f}"


def spread(values):
    """How far they lie apart, as a share of their median."""
    middle = median(values)
    return ratio(max(values) - min(values), middle) if middle else None


def ratio(value, of):
    return None if value is None or not of else value / of
