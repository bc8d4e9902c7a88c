"""The numbers of a study's report beside scipy's and statsmodels', from its plan and its table of runs.

    python tests/peers/reports.py STRATH FOLDER...

Needs a Python with numpy, scipy and statsmodels. Each FOLDER has plan.json and results.csv, as the folder of a study and those of
crates/strath-study/docs/studies; `strath report` is called on it. The arms of each row are found again here from the plan, and what stands in the row is
computed anew: means and intervals, the paired test against the arm without SAM, of each comparison the paired t test, Holm's correction and two one-sided
tests, of each measure of sharpness Kendall's tau and Spearman's rho. Prints how many numbers of each kind there are and the largest difference, relative to
the number (to 1e-3 where it is smaller, but for p values), and fails above 1e-9, for p values above 1e-6, or where a row is not found.
"""
import csv
import json
import math
import subprocess
import sys
import tempfile
from pathlib import Path

# This folder has a file with the name of a module that others import: without it, they find theirs.
sys.path.pop(0)

import numpy as np
from scipy import stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.weightstats import ttost_paired

VALUE, P_VALUE = 1e-9, 1e-6
NAMES = {"sam.rho": "ρ", "model.kind": "model", "data.label_noise": "label noise", "batch.size": "batch"}
TABLES = {"Test error after the last epoch, radius by radius.": "test_error", "Test error at the best validation epoch, radius by radius.": "best_test_error"}
SHARES = ("gap", "memorised")


class Study:
    def __init__(self, folder):
        self.plan = json.loads((folder / "plan.json").read_text())
        with open(folder / "results.csv", newline="") as file:
            self.rows = {(int(row["arm"]), row["doubled"] == "true", int(row["seed"])): row for row in csv.DictReader(file)}

    def values(self, arm, column, doubled=False):
        """A column by seed."""
        found = {seed: self.rows.get((arm, doubled, seed), {}).get(column, "") for seed in self.plan["seeds"]}
        return {seed: float(value) for seed, value in found.items() if value != ""}

    def varies(self, key):
        return key in self.plan["keys"] + self.plan["variables"]


def called(key, value):
    name = NAMES.get(key, key.rsplit(".", 1)[-1])
    if isinstance(value, bool):
        return name if value else f"not {name}"
    if isinstance(value, str):
        return value
    if isinstance(value, int):
        return f"{name} {value}"
    if isinstance(value, float):
        return f"{name} {float(f'{value:.5e}'):.12g}"
    return f"{name} {json.dumps(value, separators=(',', ':'))}"


def is_radius(key, value):
    return isinstance(value, (int, float)) and not isinstance(value, bool) and (key == "sam.rho" or key.startswith("let."))


def both(study, own, reference, column, doubled=False, longer=False):
    """The pairs of two arms."""
    a, b = study.values(own, column, doubled), study.values(reference, column, longer)
    seeds = [seed for seed in study.plan["seeds"] if seed in a and seed in b]
    return np.array([a[seed] for seed in seeds]), np.array([b[seed] for seed in seeds])


class Differences:
    def __init__(self):
        self.largest, self.count, self.failed = {}, {}, []

    def add(self, name, found, expected, is_p=False):
        found = None if found in ("–", "") else found
        expected = None if expected is None or math.isnan(expected) else float(expected)
        if (found is None) != (expected is None):
            self.failed.append(f"{name}: found {found}, expected {expected}")
        elif found is not None:
            scale = max(abs(expected), 1e-300) if is_p else max(abs(expected), 1e-3)
            difference = 0.0 if found == expected else abs(found - expected) / scale
            self.largest[name], self.count[name] = max(self.largest.get(name, 0.0), difference), self.count.get(name, 0) + 1
            if not difference <= (P_VALUE if is_p else VALUE):
                self.failed.append(f"{name}: found {found}, expected {expected}")


def tested(a, b):
    """p of the paired t test; none where all pairs differ by the same."""
    difference = a - b
    equal = len(a) < 2 or np.all(np.abs(difference - difference.mean()) <= 4 * np.finfo(float).eps * max(np.abs(a).max(), np.abs(b).max()))
    return None if equal else float(stats.ttest_rel(a, b).pvalue)


def holm(p_values):
    made = [p for p in p_values if p is not None]
    adjusted = iter(multipletests(made, method="holm")[1] if made else [])
    return [None if p is None else next(adjusted) for p in p_values]


def comparisons(study, table, column, found):
    """Every row of a table of comparisons, its two arms found by what they are called."""
    places = {}
    keys = study.plan["report"].get("compare") or ["sam.m"]
    for key in keys:
        for arm, record in enumerate(study.plan["arms"]):
            for place in record["places"]:
                together = {name for names in place.get("together", []) if key in names for name in names} | {key}
                coordinates = place["coordinates"]
                others = [(name, value) for name, value in coordinates if name not in together and study.varies(name)]
                setting = ", ".join(called(name, value) for name, value in others if not is_radius(name, value))
                radius = ", ".join(called(name, value) for name, value in others if is_radius(name, value))
                arms = place["grid"] + (f", {setting}" if setting else "")
                for name, value in coordinates:
                    if name == key:
                        places[arms, called(key, value), radius] = arm
    # The same two arms in several grids are one test.
    pairs, tests = [], {}
    for row in table["rows"]:
        arms, own, reference, radius = row[:4]
        pairs.append((places[arms, own, radius], places[arms, reference, radius]))
        tests[pairs[-1]] = tested(*both(study, *pairs[-1], column))
    adjusted_p = dict(zip(tests, holm(tests.values())))
    margin = study.plan["report"].get("margin") or 0.01
    is_share = column.endswith("_error") or column in SHARES
    factor = 100 if is_share else 1
    for row, pair in zip(table["rows"], pairs):
        (a, b), p, adjusted = both(study, *pair, column), tests[pair], adjusted_p[pair]
        names = dict(zip(table["columns"], row))
        found.add("seeds", names["seeds"], len(a))
        found.add("difference", names["difference (points)" if is_share else f"difference ({column})"], factor * np.mean(a - b))
        found.add("p", names["p"], p, True)
        found.add("p (Holm)", names["p (Holm)"], adjusted, True)
        if p is None:
            found.add("p (alike)", names["p (alike)"], None)
            continue
        found.add("standard error", names["standard error"], factor * stats.sem(a - b))
        for name, end in zip(["95 % from", "to"], stats.ttest_rel(a, b).confidence_interval(0.95)):
            found.add("interval", names[name], factor * end)
        # A margin is stated of errors alone.
        found.add("p (alike)", names["p (alike)"], ttost_paired(a, b, -margin, margin)[0] if column.endswith("_error") else None, True)


def arms(study, table, found):
    """The table of all arms, row by row in the order of the plan, each followed by its longer runs."""
    present = sorted({(arm, doubled) for arm, doubled, _ in study.rows})
    values = [dict(map(tuple, record["values"])) for record in study.plan["arms"]]
    beside = [{key: value for key, value in of.items() if not key.startswith("sam.")} for of in values]
    plain = [arm for arm, doubled in present if not doubled and values[arm].get("sam.rho") == 0]
    # Beside the arm without SAM, and beside the same trained twice as long.
    for name, longer in [("no SAM", False), ("no SAM, twice the epochs", True)]:
        baselines = [arm for arm in plain if (arm, longer) in present]
        tests, differences = {}, {}
        for arm, doubled in present:
            others = [other for other in baselines if beside[other] == beside[arm] and (other, longer) != (arm, doubled)][:1]
            pair = both(study, arm, others[0], "test_error", doubled, longer) if others else ([], [])
            if len(pair[0]) > 1:
                tests[arm, doubled], differences[arm, doubled] = tested(*pair), 100 * np.mean(pair[0] - pair[1])
        if not tests:
            continue
        adjusted = dict(zip(tests, holm(tests.values())))
        at = table["columns"].index(f"against {name} (points)")
        for row, key in zip(table["rows"], present):
            found.add(f"arm: against {name}", row[at], differences.get(key))
            found.add(f"arm: against {name}, p", row[at + 1], adjusted.get(key), True)
    for row, (arm, doubled) in zip(table["rows"], present):
        names, errors = dict(zip(table["columns"], row)), np.array(list(study.values(arm, "test_error", doubled).values()))
        found.add("arm: mean", names["test error (%)"], 100 * errors.mean())
        if "of the test set alone" in names:
            examples = next(iter(study.values(arm, "test_examples", doubled).values()))
            found.add("arm: of the test set alone", names["of the test set alone"], 100 * math.sqrt(errors.mean() * (1 - errors.mean()) / examples))
        if len(errors) > 1 and errors.std() > 0:
            found.add("arm: standard error", names["standard error"], 100 * stats.sem(errors))
            for name, end in zip(["95 % from", "to"], stats.t.interval(0.95, len(errors) - 1, errors.mean(), stats.sem(errors))):
                found.add("arm: interval", names[name], 100 * end)
    if len(present) != len(table["rows"]):
        found.failed.append(f"{len(table['rows'])} arms, expected {len(present)}")


def power(study, table, found):
    rows = list(study.rows.values())
    if any(row["ended_by"] == "run.stop_loss" for row in rows):
        rows = [row for row in rows if row["ended_by"] == "run.stop_loss"]
    columns = {column.replace("_", " "): column for column in rows[0] if column.startswith("sharpness_m")}
    for row in table["rows"]:
        names, column = dict(zip(table["columns"], row)), columns[row[0]]
        measure, gap = ([float(run[name]) for run in rows] for name in (column, "gap"))
        tau, rank = stats.kendalltau(measure, gap), stats.spearmanr(measure, gap)
        found.add("Kendall's tau", names["Kendall's τ"], tau.statistic)
        found.add("Kendall's p", names["p"], tau.pvalue, True)
        found.add("Spearman's rho", names["Spearman's ρ"], rank.statistic)


def main(strath, folders):
    failed = False
    for folder in map(Path, folders):
        study, found = Study(folder), Differences()
        with tempfile.TemporaryDirectory() as out:
            subprocess.run([strath, "report", str(folder), "--out", out], check=True, capture_output=True)
            report = json.loads((Path(out) / "report.json").read_text())
        for block in (block for section in report["sections"] for block in section["blocks"] if "table" in block):
            table = block["table"]
            also = {f"{column.replace('_', ' ')}, radius by radius.": column for column in study.plan["report"].get("also", [])}
            column = next((column for start, column in (TABLES | also).items() if table["caption"].startswith(start)), None)
            if column:
                comparisons(study, table, column, found)
            elif table["caption"].startswith("All arms"):
                arms(study, table, found)
            elif table["caption"].startswith("Predictive power"):
                power(study, table, found)
        print(study.plan["name"])
        for name, largest in found.largest.items():
            print(f"  {name:24} {found.count[name]:5} numbers, largest difference {largest:.1e}")
        for line in found.failed[:20]:
            print(f"  FAILED {line}")
        failed |= bool(found.failed) or not found.count
    sys.exit(failed)


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    main(sys.argv[1], sys.argv[2:])
