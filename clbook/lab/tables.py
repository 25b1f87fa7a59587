"""Numbers as a person reads them: a mean with its interval, and the reference beside ours."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd


def plus_minus(mean: float | None, half: float | None, unit: str = "%") -> str:
    """A mean and its interval as text: percent with one decimal, anything else with three; a dash where there is no number."""
    if mean is None or math.isnan(mean):
        return "-"
    digits = 1 if unit == "%" else 3
    interval = "" if half is None or math.isnan(half) else f" ± {half:.{digits}f}"
    return f"{mean:.{digits}f}{interval}"


def comparison(rows: list[dict[str, Any]]) -> str:
    """The table that `reproduce` prints, of the rows that Report.table gives: the reference beside ours."""
    shown = []
    for row in rows:
        suffix = " %" if row["unit"] == "%" else ""
        target = _target(row) + suffix if "reference" in row else ""
        ours = plus_minus(row["ours"], row["interval"], row["unit"]) + suffix
        reached = {True: "yes", False: "NO", None: ""}[row.get("reached")]
        shown.append({"quantity": row["quantity"], "target": target, "ours (95 % interval)": ours, "reached": reached})
    return pd.DataFrame(shown).to_string(index=False)


def _target(row: dict[str, Any]) -> str:
    low, high = (plus_minus(row[name], None, row["unit"]) for name in ("reference", "upper"))
    return f"{low} to {high}" if row["sense"] == "in" else f"{row['sense']} {low}"
