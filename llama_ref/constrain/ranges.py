"""Ranges of numbers that llguidance 1.9.1 gets wrong by one text, moved out of its way.

Above 0 and at most 0.3, it lets "0" through: wherever a whole number is excluded and the range ends
before the next one. Moved by less than a reader would tell, the end is no whole number any more:

    0 < x <= 0.3        0.0000000000001 < x <= 0.3
"""

from __future__ import annotations

from typing import Any

STEP = 1e-13
MOST = 2**40
"""Beyond it, a step is lost in rounding."""


def moved(schema: dict[str, Any], *, is_part: bool) -> dict[str, Any]:
    """Return a schema whose range the engine keeps to.

    Parameters
    ----------
    schema : dict
    is_part : bool
        Whether the other end of its range may stand in another schema.

    Examples
    --------
    >>> moved({"exclusiveMinimum": 0, "maximum": 0.3}, is_part=False)
    {'exclusiveMinimum': 1e-13, 'maximum': 0.3}
    >>> moved({"exclusiveMinimum": 0, "maximum": 3}, is_part=False)
    {'exclusiveMinimum': 0, 'maximum': 3}
    """
    if schema.get("type") == "integer":
        return schema
    least = max((schema[k] for k in ("minimum", "exclusiveMinimum") if k in schema), default=-MOST)
    most = min((schema[k] for k in ("maximum", "exclusiveMaximum") if k in schema), default=MOST)
    if not is_part and most - least >= 1:
        return schema
    changed = dict(schema)
    for key, sign in (("exclusiveMinimum", 1), ("exclusiveMaximum", -1)):
        end = schema.get(key, 0.5)
        if end % 1 == 0 and abs(end) < MOST:
            changed[key] = end + sign * STEP * max(1, abs(end))
    return changed
