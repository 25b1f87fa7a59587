"""Which code numbers came from, where they were computed in parts.

Numbers that are published come from one commit, so that anybody can compute them again.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from clbook import result
from clbook.checks import InputError
from clbook.result import PER_RUN, Result

DIRTY = "-dirty"  # how `git describe` marks a commit beside which there are changes


def commit() -> str | None:
    """The commit of the code that runs now; None outside a checkout."""
    return result.commit()


def commits_of(info: dict[str, Any]) -> list[str | None]:
    """The commits that the `info` of a result names, one of its own or those of the parts that it was joined from."""
    found: list[str | None] = info["commits"] if "commits" in info else [info["commit"]]
    return found


def joined(results: Sequence[Result]) -> dict[str, Any]:
    """Where numbers came from that were computed in parts: all their commits, and every device and version there was."""
    infos = [r.info for r in results]
    programs = dict.fromkeys(name for info in infos for name in info["versions"])
    return {
        "device": _each(info["device"] for info in infos),
        "dtype": _each(info["dtype"] for info in infos),
        "seconds": round(sum(float(r.seconds.sum()) for r in results), 1),
        "versions": {name: _each(info["versions"][name] for info in infos if name in info["versions"]) for name in programs},
        "commits": list(dict.fromkeys(c for info in infos for c in commits_of(info))),
    }


def concat(results: list[Result]) -> Result:
    """The runs of several results on the same tasks as one, with the provenance of all."""
    arrays: dict[str, Any] = {name: np.concatenate([getattr(r, name) for r in results]) for name in PER_RUN}
    same = {name: results[0].info[name] for name in ("training", "scenario")}
    runs = [run for r in results for run in r.runs]
    return replace(results[0], **arrays, runs=runs, info=same | joined(results), theta=[], thetas=[])


def mixed(commits: Iterable[str | None]) -> str:
    """Why numbers of these commits are not of one commit alone; an empty text if they are."""
    found = list(dict.fromkeys(commits))
    if dirty := [c for c in found if c is not None and c.endswith(DIRTY)]:
        return f"there were changes beside the commit ({', '.join(dirty)})"
    return f"the numbers come from several commits ({', '.join(map(str, found))})" if len(found) > 1 else ""


def refuse_mixed(commits: Iterable[str | None]) -> None:
    """Raises InputError, with what to do, unless these are one commit without changes beside it."""
    if why := mixed(commits):
        way_out = "commit them first" if DIRTY in why else "delete what other commits have left in .work beside the results"
        raise InputError(
            f"what is published must come from one commit, and {why}: {way_out}; or say --allow-mixed-code "
            "(allow_mixed_code=True), and the report says so too"
        )


def _each(values: Iterable[Any]) -> str:
    return ", ".join(dict.fromkeys(map(str, values)))
