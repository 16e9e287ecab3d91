"""`python -m tests.bench.page results.json`: the table and the plot of README.md, from the figures."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

HERE = Path(__file__).parent
BEGIN, END = "<!-- figures: begin -->\n", "<!-- figures: end -->\n"
SECONDS = ((1, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns"))
BYTES = ((1e6, "MB"), (1e3, "KB"), (1, "B"))


def figure(value: float, unit: str) -> str:
    """Three digits, in the unit that has fewest zeros."""
    for size, name in SECONDS if unit == "s" else BYTES:
        if value >= size:
            return f"{value / size:.3g} {name}"
    return f"{value:.3g} {unit}"


def spread(values: Sequence[float], unit: str) -> str:
    if len(set(values)) == 1:
        return figure(values[0], unit)
    return f"{figure(median(values), unit)} ({figure(min(values), unit)} to {figure(max(values), unit)})"


def verdict(target: Mapping[str, Any]) -> str:
    met = "met" if target["met"] else "**missed**"
    return f"{target['of']} / {target['to']}: {target['ratio']:.3g}, at most {target['at_most']:.3g}: {met}"


def line(row: Mapping[str, Any]) -> str:
    """One row, for the terminal."""
    figures = "; ".join(f"{name} {spread(values, row['unit'])}" for name, values in row["figures"].items())
    found = "".join(f"\n    {verdict(target).replace('*', '')}" for target in row["targets"])
    return f"{row['work']}: {figures}" + (f" [{row['remark']}]" if row["remark"] else "") + found


def table(results: Mapping[str, Any]) -> Iterator[str]:
    machine = results["machine"]
    yield f"wg-appliance {machine['version']}, Python {machine['python']}, {machine['processors']} processors, "
    yield f"{machine['at']}. Median (least to most) of the rounds; ratios are medians of pairs.\n\n"
    yield "| work | figures | target |\n|---|---|---|\n"
    for row in results["rows"]:
        figures = "<br>".join(f"{name}: {spread(values, row['unit'])}" for name, values in row["figures"].items())
        work = row["work"] + (f"<br>*{row['remark']}*" if row["remark"] else "")
        yield f"| {work} | {figures} | {'<br>'.join(map(verdict, row['targets']))} |\n"


def plot(results: Mapping[str, Any], file: Path) -> bool:
    """What a tick costs by the number of peers, beside `wg show dump` and the bare loop. False: nothing to draw."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "wg-appliance"  # the same figures are the same file
    from matplotlib import pyplot

    steps = {row["settings"]["peers"]: row for row in results["rows"] if "peers" in row["settings"]}
    if not steps:
        return False
    drawing, axes = pyplot.subplots(figsize=(7, 4.2))
    for name, label in (
        ("wg show dump", "wg show dump"),
        ("tick", "a whole tick"),
        ("look", "a tick that only looks"),
        ("bare loop", "bare recv loop"),
    ):
        found = [steps[peers]["figures"][name] for peers in steps]
        axes.plot([*steps], [1000 * median(values) for values in found], marker="o", label=label)
        least, most = [1000 * min(values) for values in found], [1000 * max(values) for values in found]
        axes.fill_between([*steps], least, most, alpha=0.15)
    axes.set(xscale="log", yscale="log", xlabel="peers", ylabel="milliseconds")
    axes.grid(visible=True, which="both", alpha=0.25)
    axes.legend()
    drawing.savefig(file, metadata={"Date": None}, bbox_inches="tight")
    return True


def main(file: Path) -> None:
    results = json.loads(file.read_text(encoding="utf-8"))
    page = HERE / "README.md"
    before, _, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    drawn = "\n![What a tick costs](ticks.svg)\n" if plot(results, HERE / "ticks.svg") else ""
    page.write_text(f"{before}{BEGIN}{''.join(table(results))}{drawn}{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
