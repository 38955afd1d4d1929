"""What a fault did to a campaign, as a row of figures, and what of it should not be."""

from __future__ import annotations

from typing import Any

from campaign.errors import OreloopError
from campaign.testing.drill import Drill, StuckError
from campaign.testing.faults import Fault, NotHereError

Row = dict[str, Any]


def outcome(fault: Fault, drill: Drill, labels: int | None) -> Row:
    """Make a fault, remove its cause, and run to the end. ``labels``: how many there are to be
    then, where that is known; ``why_stuck`` and ``not_run`` of the row tell why there is no more to
    it.
    """
    row: Row = {"not_run": "", "why_stuck": "", "cannot_be_read": ""}
    try:
        fault.make(drill)
        drill.finish()
        row |= {"at_risk": drill.at_risk, "unrecoverable": drill.unrecoverable, **drill.outcome()}
    except StuckError as error:
        row["why_stuck"] = str(error)
    except NotHereError as error:
        row["not_run"] = str(error)
    except OreloopError as error:
        row["cannot_be_read"] = error.message
    is_run = not row["not_run"]
    return row | {
        **drill.told(),
        "expected_codes": fault.exit_codes,
        "expected_labels": labels if fault.labels is None else fault.labels,
        "may_give_up": fault.is_of_the_candidate,
        "left_processes": drill.left_processes() if is_run else [],
        "left_folders": drill.left_folders() if is_run else [],
    }


def problems(row: Row) -> list[str]:
    """What a row shows that should not be."""
    if row["not_run"]:
        return []
    found = {
        "stuck": bool(row["why_stuck"]),
        "ledger unreadable at the end": bool(row["cannot_be_read"]),
        "traceback": row["tracebacks"] > 0,
        "another exit code than promised": row["exit_code"] not in row["expected_codes"],
        "nothing said": row["exit_code"] != -9 and not row["message"],
        "processes left": bool(row["left_processes"]),
        "folders left": bool(row["left_folders"]),
    }
    if "labels" in row:
        found |= {
            "labels lost": row["labels_lost"] > row["unrecoverable"],
            "paid twice beyond what was under way": excess(row) > 0,
            "did not end with its budget": row["expected_labels"] not in (None, row["labels"])
            or row["steps"][-1][1] != 0,
            "candidates given up": row["given_up"] > 0 and not row["may_give_up"],
        }
    return [name for name, is_so in found.items() if is_so]


def excess(row: Row) -> int:
    """Labels paid twice beyond what was under way at a kill and what no side of the ledger held any
    more.
    """
    return max(0, int(row["paid_twice"] - row["at_risk"] - row["unrecoverable"]))
