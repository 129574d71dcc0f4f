"""`moment_of`, which gives the date and the duration of a run for the head of the report."""

from __future__ import annotations

import datetime

from bnn_itrd.plots import curve, number
from bnn_itrd.report.formats import as_duration
from bnn_itrd.report.view import View

__all__ = ["moment_of"]


def moment_of(view: View) -> str:
    """Returns as HTML when a run was made, how long the last command took, and how long all training took.

    The training may be longer than the last command, because an interrupted run is continued by another command.
    """
    words = []
    try:
        date = datetime.datetime.fromisoformat(str(view.raw.get("date"))).astimezone(datetime.UTC)
        words.append(f"{date.day}&nbsp;{date:%B&nbsp;%Y}, {date:%H:%M}&nbsp;UTC")
    except ValueError:
        pass
    training = sum(value for model in view.models for _, value in curve(model, "seconds"))
    wall = number(view.raw.get("wall_seconds"))
    if wall is not None and training <= wall:
        inside = f", {as_duration(training)} of it training" if training else ""
        words.append(f"took {as_duration(wall)}{inside}")
    else:
        # The run was interrupted and continued, or its networks were trained elsewhere.
        words += [f"{as_duration(training)} of training"] if training else []
        words += [f"the last command took {as_duration(wall)}"] if wall is not None else []
    return " &middot; ".join(words)
