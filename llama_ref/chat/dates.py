"""The "Today Date" of a prompt, as whoever keeps the clock wants it.

A date in a prompt makes its ids depend on the day. The templates of 3.1 and 3.3 therefore fall back
on a fixed one, 26 Jul 2024; that of 3.2 asks the clock. A caller who gives a date gets it in all.
"""

from __future__ import annotations

import datetime

from llama_ref.errors import BadRequest, shown

FIXED = "26 Jul 2024"
MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
"""In English whatever the locale: strftime's %b would follow it."""

LONGEST = 64


def today_date(date: str | datetime.date | None, version: str) -> str:
    """Return the date to write.

    Parameters
    ----------
    date : str, datetime.date or None
        A text is written as it is; None stands for the version's own default.
    version : {"3.1", "3.2", "3.3"}

    Raises
    ------
    BadRequest
        If it is no date and no text of one line and at most 64 characters.

    Examples
    --------
    >>> today_date(datetime.date(2025, 3, 9), "3.1"), today_date(None, "3.1")
    ('09 Mar 2025', '26 Jul 2024')
    """
    if date is None:
        date = datetime.date.today() if version == "3.2" else FIXED
    if isinstance(date, datetime.date):
        return f"{date.day:02} {MONTHS[date.month - 1]} {date.year}"
    if not isinstance(date, str) or not date.isprintable() or len(date) > LONGEST:
        raise BadRequest(
            "date",
            expected='a datetime.date, or a text of one line such as "26 Jul 2024"',
            found=shown(date),
        )
    return date
