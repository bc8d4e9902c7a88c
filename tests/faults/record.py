"""What a run's metrics.jsonl says of its steps."""
import json


def steps(out):
    """(step, Unix seconds) of each step on record, in order of the file."""
    try:
        lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().split("\n")[:-1]]
    except FileNotFoundError:
        return []
    return [(line["step"], line["time"]) for line in lines if line["kind"] == "step"]


def newest_step(out):
    """Read from the end: the file is long."""
    try:
        with open(out / "metrics.jsonl", "rb") as file:
            file.seek(max(0, file.seek(0, 2) - 4096))
            lines = file.read().split(b"\n")[:-1]
    except FileNotFoundError:
        return 0
    for line in reversed(lines):
        if b'"kind":"step"' in line and line.startswith(b"{"):
            return json.loads(line)["step"]
    return 0


def first_after(times, moment):
    """Seconds from a moment to the first step on record after it; None: there is none."""
    return next((at - moment for at in times if at >= moment), None)


def longest_pause(times, since, until):
    """The longest time without a step on record that ends after `since` and begins before `until`; None: no step came after `until`."""
    if not times or times[-1] < until:
        return None
    pauses = [after - max(before, since) for before, after in zip([since, *times], times) if after > since and before < until]
    return max(pauses, default=None)
