"""What the runs of the demo did, as a table for people and as rows for comparison."""

import json

COLUMNS = ("pipe", "kind", "read", "changed", "deleted", "failed", "time", "offset")
NUMBERS = ("read", "changed", "deleted", "failed", "time")


def row_of(pipe, summary):
    """One run as a row. `time` is in seconds; it is for people and is never compared."""
    return {
        "pipe": pipe,
        "kind": summary["sync_type"],
        "read": summary["entities_read"],
        "changed": summary["changed"],
        "deleted": summary["deleted"],
        "failed": summary["failed"],
        "time": float(summary["total_time"]),
        "offset": summary["pipe_offset"],
        "success": summary["success"],
        "message": summary["message"],
    }


def text_of(rows):
    """The rows as lines of text, with what went wrong below."""
    cells = [[shown(row, column) for column in COLUMNS] for row in rows]
    widths = [max(map(len, column)) for column in zip(COLUMNS, *cells)]
    lines = ["  ".join(aligned(name, text, width) for name, text, width in zip(COLUMNS, COLUMNS, widths)).rstrip()]
    lines.append("  ".join("-" * width for width in widths))
    for line in cells:
        lines.append("  ".join(aligned(*part) for part in zip(COLUMNS, line, widths)).rstrip())
    lines += [f"FAILED {row['pipe']}: {row['message']}" for row in rows if not row["success"]]
    return "\n".join(lines)


def shown(row, column):
    value = row[column]
    if column == "time":
        return f"{value:.2f} s"
    return "-" if value is None else str(value)


def aligned(column, text, width):
    return text.rjust(width) if column in NUMBERS else text.ljust(width)


def compared(row):
    """A row without what differs from day to day."""
    return {name: value for name, value in row.items() if name not in ("time", "message")}


def differences(expected, rows):
    """What differs from the expected rows, one line each; empty when nothing does."""
    found = {row["pipe"]: compared(row) for row in rows}
    wanted = {row["pipe"]: row for row in expected}
    lines = [f"{pipe}: expected a run, found none" for pipe in wanted if pipe not in found]
    lines += [f"{pipe}: expected no run, found {json.dumps(found[pipe])}" for pipe in found if pipe not in wanted]
    for pipe in wanted:
        for name in {**wanted[pipe], **found.get(pipe, {})}:
            if pipe in found and found[pipe].get(name) != wanted[pipe].get(name):
                lines.append(f"{pipe}: {name}: expected {wanted[pipe].get(name)!r}, found {found[pipe].get(name)!r}")
    if not lines and [row["pipe"] for row in expected] != [row["pipe"] for row in rows]:
        lines.append(f"the order of the runs: expected {list(wanted)}, found {list(found)}")
    return lines
