r"""Evaluate the models of a comparison on corrupted test images: a row for each arm.

    formulavision compare configs/robustness-cifar10.yaml --size cpu --out runs/robustness \
        --set downstreams.cifar10.root=/path
    python benchmarks/corruptions.py /path --out data/cifar10-c --per-class 100
    python benchmarks/robustness.py runs/robustness data/cifar10-c

Prints a Markdown table and writes it, with a line for each model, into the comparison's folder: robustness.md and
robustness.csv. Each model's folder gets the errors of each corruption and severity (corruptions.csv). Differences are
to the baseline of the comparison, over the seeds that both have; p by the paired t-test, after Holm's correction.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from statistics import fmean, stdev

import formulavision as fv
from formulavision.comparison.significance import holm, paired_t
from formulavision.util.text import write_csv

MEASURES = ("accuracy", "mean corruption error", "mean calibration error")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("comparison", type=Path, help="folder of a complete comparison with one downstream")
    parser.add_argument("corrupted", type=Path, help="corrupted test images of that downstream, as of corrupted:PATH")
    chosen = parser.parse_args()
    findings = fv.Findings.load(chosen.comparison)
    found: dict[str, dict[int, tuple[float, ...]]] = {arm: {} for arm in findings.arms}
    for result in findings.results:
        if result.folder is None or result.score is None or result.freeze != "none":
            continue
        on_corrupted = fv.evaluate_corrupted(chosen.comparison / result.folder, f"corrupted:{chosen.corrupted}")
        scores = result.score, on_corrupted.mean_corruption_error, on_corrupted.mean_calibration_error
        found[result.arm][result.seed] = scores
    columns = ["arm", "seed", *(measure.replace(" ", "_") for measure in MEASURES)]
    rows = [[arm, seed, *scores] for arm, seeds in found.items() for seed, scores in seeds.items()]
    write_csv(chosen.comparison / "robustness.csv", [columns, *rows])
    table = "\n".join(_table(findings, found)) + "\n"
    (chosen.comparison / "robustness.md").write_text(table)
    print(table)


def _table(findings: fv.Findings, found: dict[str, dict[int, tuple[float, ...]]]) -> list[str]:
    """Mean and standard deviation of each measure over seeds, its difference to the baseline, and p; in per cent."""
    lines = [f"| arm | {' | '.join(f'{measure} | difference' for measure in MEASURES)} |"]
    lines.append(f"| --- |{' ---: |' * 2 * len(MEASURES)}")
    pairs = {}
    for arm, facts in findings.arms.items():
        both = sorted(found[arm].keys() & found.get(facts.baseline or "", {}).keys())
        for place in range(len(MEASURES)):
            own, others = ([found[name][seed][place] for seed in both] for name in (arm, facts.baseline or arm))
            pairs[arm, place] = own, others
    tested = {cell: p for cell, (own, others) in pairs.items() if own and (p := paired_t(own, others)) is not None}
    corrected = dict(zip(tested, holm(list(tested.values())), strict=True))
    for arm, seeds in found.items():
        cells = [arm]
        for place in range(len(MEASURES)):
            values = [100 * scores[place] for scores in seeds.values()]
            spread = f" ± {stdev(values):.1f}" if len(values) > 1 else ""
            cells.append(f"{fmean(values):.1f}{spread}" if values else "")
            own, others = pairs[arm, place]
            tested_p = f" (p = {corrected[arm, place]:.2g})" if (arm, place) in corrected else ""
            cells.append(f"{100 * (fmean(own) - fmean(others)):+.1f}{tested_p}" if own else "")
        lines.append(f"| {' | '.join(cells)} |")
    return lines


if __name__ == "__main__":
    main()
