"""Strath's statistics of studies beside scipy's and statsmodels', and its predictive power beside a slow one written from its definition.

    cargo run --release -p strath-study --example statistics > FILE
    python tests/peers/statistical_tests.py FILE

Needs a Python with numpy, scipy and statsmodels. FILE has the data, drawn from a seeded generator with ties, equal values and few of
them, and what Strath finds. Prints for each statistic the largest difference and in how many numbers, relative to the number (to 1e-3 where it
is smaller, but for p values), and fails above 1e-9, for p values above 1e-6, or where one side has a number and
the other none.
"""
import itertools
import json
import math
import sys
import warnings
from collections import Counter

import numpy as np
from scipy import stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint
from statsmodels.stats.weightstats import ttost_paired

VALUE, P_VALUE = 1e-9, 1e-6


class Differences:
    """The largest difference of each statistic."""

    def __init__(self):
        self.largest, self.count, self.failed = {}, {}, []

    def add(self, name, found, expected, p_value=False):
        expected = None if expected is None or math.isnan(expected) else float(expected)
        if (found is None) != (expected is None):
            self.failed.append(f"{name}: found {found}, expected {expected}")
            return
        if found is None:
            return
        # A p value too small to be a number is 0.
        scale = max(abs(expected), 1e-300) if p_value else max(abs(expected), 1e-3)
        difference = 0.0 if found == expected else abs(found - expected) / scale
        self.largest[name] = max(self.largest.get(name, 0.0), difference)
        self.count[name] = self.count.get(name, 0) + 1
        if not difference <= (P_VALUE if p_value else VALUE):
            self.failed.append(f"{name}: found {found}, expected {expected}")


def describe(case, differences):
    values, spread = case["values"], case["spread"] or {}
    several = len(values) > 1
    differences.add("mean", case["mean"], np.mean(values) if values else None)
    differences.add("standard deviation", spread.get("deviation"), np.std(values, ddof=1) if several else None)
    differences.add("standard error", spread.get("error"), stats.sem(values) if several else None)
    if several:
        # Of equal values, scipy's interval is not a number.
        interval = stats.t.interval(0.95, len(values) - 1, np.mean(values), stats.sem(values)) if spread["error"] else [values[0]] * 2
        for found, expected in zip(spread["interval"], interval):
            differences.add("interval of the mean", found, expected)


def paired(case, differences):
    a, b = np.array(case["first"]), np.array(case["second"])
    difference = a - b
    equal = np.all(np.abs(difference - difference.mean()) <= 4 * np.finfo(float).eps * max(np.abs(a).max(), np.abs(b).max()))
    differences.add("paired difference", case["difference"], difference.mean())
    if equal != (case["test"] is None) or equal != (case["equivalence"] is None):
        differences.failed.append(f"paired: equal differences are not found as such: {difference}")
        return
    if equal:
        return
    expected = stats.ttest_rel(a, b)
    differences.add("paired standard error", case["error"], stats.sem(difference))
    differences.add("paired t", case["test"]["t"], expected.statistic)
    differences.add("paired degrees", case["degrees"], expected.df)
    differences.add("paired p", case["test"]["p"], expected.pvalue, True)
    for found, end in zip(case["interval"], expected.confidence_interval(0.95)):
        differences.add("paired interval", found, end)
    p, below, above = ttost_paired(a, b, -case["margin"], case["margin"])
    differences.add("equivalence p", case["equivalence"]["p"], p, True)
    differences.add("equivalence p, not below", case["equivalence"]["not_below"], below[1], True)
    differences.add("equivalence p, not above", case["equivalence"]["not_above"], above[1], True)


def holm(case, differences):
    made = [p for p in case["p"] if p is not None]
    expected = iter(multipletests(made, method="holm")[1] if made else [])
    for p, found in zip(case["p"], case["adjusted"]):
        differences.add("Holm's p", found, None if p is None else next(expected), True)


def binomial(case, differences):
    count, examples = case["count"], case["examples"]
    share = count / examples
    differences.add("binomial standard error", case["error"], math.sqrt(share * (1 - share) / examples))
    for found, expected in zip(case["interval"], proportion_confint(count, examples, method="wilson")):
        differences.add("Wilson's interval", found, expected)


def rank(case, differences):
    for name, function in [("kendall", stats.kendalltau), ("spearman", stats.spearmanr)]:
        found, expected = case[name] or {}, function(case["first"], case["second"])
        differences.add(f"{name} coefficient", found.get("coefficient"), expected.statistic)
        # Of lists in one order scipy's rho is 1 but for rounding, and its p value so far from 0.
        perfect = name == "spearman" and abs(found.get("coefficient", 0)) == 1 and len(case["first"]) > 2
        differences.add(f"{name} p", found.get("p"), 0.0 if perfect else expected.pvalue, True)


def entropy(values):
    shares = np.array(list(Counter(values).values())) / len(values)
    return -np.sum(shares * np.log2(shares))


def conditioned(measures, gaps, hyper_parameters, given, convention):
    """I(V_mu; V_g | U_S) and H(V_g | U_S), cell by cell, from joint entropies: I = H(V_mu) + H(V_g) - H(V_mu, V_g)."""
    cells = {}
    for a, b in itertools.product(range(len(gaps)), repeat=2):
        if convention == "paper":
            if a == b:
                continue
            pair = np.sign(measures[a] - measures[b]), np.sign(gaps[a] - gaps[b])
        else:
            pair = measures[a] > measures[b], gaps[a] > gaps[b]
        u = tuple((hyper_parameters[a][s], hyper_parameters[b][s]) for s in given)
        cells.setdefault(u, []).append(pair)
    informations, entropies, weights = [], [], []
    for pairs in cells.values():
        entropies.append(entropy([v_g for _, v_g in pairs]))
        informations.append(entropy([v_mu for v_mu, _ in pairs]) + entropies[-1] - entropy(pairs))
        weights.append(len(pairs) if convention == "paper" else 1)
    return np.average(informations, weights=weights), np.average(entropies, weights=weights)


def subsets(count, convention):
    return [s for size in ([0, 1, 2] if convention == "paper" else [2]) for s in itertools.combinations(range(count), size)]


def least(measures, gaps, hyper_parameters, convention):
    found = [conditioned(measures, gaps, hyper_parameters, s, convention) for s in subsets(len(hyper_parameters[0]), convention)]
    return min((i / h for i, h in found if h > 1e-12), default=None)


def information(case, differences):
    measures, gaps, values = np.array(case["measures"]), np.array(case["gaps"]), case["hyper_parameters"]
    for convention in ["paper", "competition"]:
        found = case[convention]
        expected = subsets(len(values[0]), convention)
        if [tuple(s["given"]) for s in found["subsets"]] != expected:
            differences.failed.append(f"{convention}: the subsets are {found['subsets']}")
            continue
        for subset, given in zip(found["subsets"], expected):
            i, h = conditioned(measures, gaps, values, given, convention)
            differences.add(f"{convention} information", subset["information"], i)
            differences.add(f"{convention} entropy", subset["entropy"], h)
            differences.add(f"{convention} share", subset["share"], i / h if h > 1e-12 else None)
        observed = least(measures, gaps, values, convention)
        differences.add(f"{convention} least", found["least"], observed)
        if len(gaps) > 24:
            continue
        null, moved = found["null"] or {}, [least(measures[order], gaps, values, convention) for order in case["permutations"]]
        none = observed is None
        differences.add(f"{convention} null mean", null.get("mean"), None if none else np.mean(moved))
        differences.add(f"{convention} null 95th percentile", null.get("percentile_95"), None if none else np.percentile(moved, 95))
        as_large = 0 if none else np.sum(np.array(moved) >= observed - 1e-10)
        differences.add(f"{convention} null p", null.get("p"), None if none else (as_large + 1) / (len(moved) + 1), True)


def main():
    with open(sys.argv[1]) as f:
        cases = json.load(f)
    warnings.simplefilter("ignore")
    differences = Differences()
    for name, check in [("describe", describe), ("paired", paired), ("holm", holm), ("binomial", binomial), ("rank", rank), ("information", information)]:
        for case in cases[name]:
            check(case, differences)
    for name, largest in differences.largest.items():
        print(f"{name:32} {largest:8.1e} in {differences.count[name]}")
    print("\n".join(differences.failed) or "ok")
    sys.exit(1 if differences.failed else 0)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main()
