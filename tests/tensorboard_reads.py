"""Reads a run's event files with the real TensorBoard and compares every scalar with metrics.jsonl: tensorboard_reads.py RUN_DIR"""
import json
import math
import sys
from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

KEYS = ("clean_loss", "perturbed_loss", "sharpness", "lr", "gradient_norm", "epsilon_norm", "zero_gradient_lanes", "images_per_s")
PHASES = ("step", "data", "ascent", "epsilon", "exchange", "descent", "reduce", "update")
LANES = ("lift_ratio", "curvature", "turn", "coherence", "noise_trace", "signal2", "noise_scale", "amplification", "rho_equivalent", "transfer")
AUDIT = {"audit_passed": "passed", "distinct_epsilons": "distinct_epsilons", "radius_deviation": "radius_deviation"}


def of_lanes(line):
    """What the lanes of a step told: keys that it has not have no value."""
    values = {f"lanes/{key}": line[key] for key in LANES if key in line}
    if "audit" in line:
        values |= {f"lanes/{tag}": float(line["audit"][key]) for tag, key in AUDIT.items()}
    if "survey_s" in line:
        values["seconds/survey"] = line["survey_s"]
    return values


def expected(run):
    """tag -> [(step, value)], in the order of metrics.jsonl."""
    scalars = {}
    for line in map(json.loads, (run / "metrics.jsonl").read_text().splitlines()):
        if line["kind"] == "step":
            values = {f"train/{key}": line[key] for key in KEYS} | {f"seconds/{phase}": line[f"{phase}_s"] for phase in PHASES} | of_lanes(line)
        elif line["kind"] == "eval":
            values = {f"eval/{line['split']}_{key}": line[key] for key in ("loss", "error")}
        else:
            values = {"cluster/world_size": line["world_size"]}
        for tag, value in values.items():
            scalars.setdefault(tag, []).append((line["step"], value))
    return scalars


def main(run):
    events = EventAccumulator(str(run), size_guidance={"scalars": 0}).Reload()
    want = expected(run)
    found = [] if set(events.Tags()["scalars"]) == set(want) else [f"tags {sorted(events.Tags()['scalars'])}, expected {sorted(want)}"]
    for tag, points in want.items():
        got = [(event.step, event.value) for event in events.Scalars(tag)] if not found else []
        same = len(got) == len(points) and all(a == b and math.isclose(x, y, rel_tol=1e-6, abs_tol=1e-12) for (a, x), (b, y) in zip(got, points))
        if not found and not same:
            found.append(f"{tag}: {got[:3]}..., expected {points[:3]}...")
    print("\n".join(found) or f"ok: TensorBoard reads {len(want)} tags, {sum(map(len, want.values()))} points")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
