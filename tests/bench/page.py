"""`python -m tests.bench.page results.json`: the table and the plots of README.md, from the figures."""

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


def verdict(target: Mapping[str, Any], unit: str) -> str:
    """Whether a ratio is met or, where a figure is compared with nothing, the figure in `unit`."""
    met = "met" if target["met"] else "**missed**"
    if not target["to"]:
        return f"{target['of']}: {figure(target['ratio'], unit)}, at most {figure(target['at_most'], unit)}: {met}"
    return f"{target['of']} / {target['to']}: {target['ratio']:.3g}, at most {target['at_most']:.3g}: {met}"


def line(row: Mapping[str, Any]) -> str:
    """One row, for the terminal."""
    figures = "; ".join(f"{name} {spread(values, row['unit'])}" for name, values in row["figures"].items())
    found = "".join(f"\n    {verdict(target, row['unit']).replace('*', '')}" for target in row["targets"])
    return f"{row['work']}: {figures}" + (f" [{row['remark']}]" if row["remark"] else "") + found


def table(results: Mapping[str, Any]) -> Iterator[str]:
    machine = results["machine"]
    yield f"wg-appliance {machine['version']}, Python {machine['python']}, {machine['processors']} processors, "
    yield f"{machine['at']}. Median (least to most) of the rounds; ratios are medians of pairs.\n\n"
    yield "| work | figures | target |\n|---|---|---|\n"
    for row in results["rows"]:
        figures = "<br>".join(f"{name}: {spread(values, row['unit'])}" for name, values in row["figures"].items())
        work = row["work"] + (f"<br>*{row['remark']}*" if row["remark"] else "")
        found = "<br>".join(verdict(target, row["unit"]) for target in row["targets"])
        yield f"| {work} | {figures} | {found} |\n"


def axes_of_plot() -> Any:
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "wg-appliance"  # the same figures are the same file
    from matplotlib import pyplot

    _, axes = pyplot.subplots(figsize=(7, 4.2))
    axes.grid(visible=True, which="both", alpha=0.25)
    return axes


def curve(axes: Any, at: Sequence[float], found: Sequence[Sequence[float]], label: str) -> None:
    """The medians, and a band from the least to the most."""
    axes.plot(at, [median(values) for values in found], marker="o", label=label)
    axes.fill_between(at, [min(values) for values in found], [max(values) for values in found], alpha=0.15)


def finish(axes: Any, file: Path, **labels: str) -> str:
    axes.set(**labels)
    axes.legend(loc="best" if axes.get_xscale() != "symlog" else "center")
    axes.figure.savefig(file, metadata={"Date": None}, bbox_inches="tight")
    return file.name


def plot_ticks(results: Mapping[str, Any], file: Path) -> str | None:
    """What a tick costs by the number of peers, beside `wg show dump` and the bare loop. None: nothing to draw."""
    steps = {row["settings"]["peers"]: row for row in results["rows"] if "peers" in row["settings"]}
    if not steps:
        return None
    axes = axes_of_plot()
    for name, label in (
        ("wg show dump", "wg show dump"),
        ("tick", "a whole tick"),
        ("look", "a tick that only looks"),
        ("bare loop", "bare recv loop"),
    ):
        found = [[1000 * value for value in steps[peers]["figures"][name]] for peers in steps]
        curve(axes, [*steps], found, label)
    return finish(axes, file, xscale="log", yscale="log", xlabel="peers", ylabel="milliseconds")


def plot_opens(results: Mapping[str, Any], file: Path) -> str | None:
    """Sessions opened a second by the number of clients at once, in batches and one by one. None: nothing to draw."""
    row = next((row for row in results["rows"] if "clients" in row["settings"]), None)
    if row is None:
        return None
    axes, clients = axes_of_plot(), row["settings"]["clients"]
    for how, label in (("", "in batches"), (", one by one", "one by one")):
        names = [f"{n} client{'s' if n > 1 else ''}{how}" for n in clients]
        curve(axes, clients, [[1 / value for value in row["figures"][name]] for name in names], label)
    axes.set_ylim(bottom=0)
    return finish(axes, file, xlabel="clients at once", ylabel="sessions opened a second")


def plot_history(results: Mapping[str, Any], file: Path) -> str | None:
    """What requests cost by how many sessions their account has had, and has live. None: nothing to draw."""
    rows = [row for row in results["rows"] if "accounts" in row["settings"]]
    if not rows:
        return None
    axes, shown = axes_of_plot(), set[int]()
    for row in rows:
        request, _, _ = row["work"].partition(" /v1")
        for what, counts in row["settings"]["accounts"].items():
            found = [[1000 * value for value in row["figures"][name]] for name in counts]
            curve(axes, [*counts.values()], found, f"{request}, {what}")
            shown.update(counts.values())
    axes.set_xscale("symlog", linthresh=min(shown - {0}))  # from none to the fewest as far as to ten times as many
    axes.set_xticks(sorted(shown), [f"{many:,}" for many in sorted(shown)])
    axes.set_xlim(left=0)
    return finish(axes, file, yscale="log", xlabel="sessions of the account", ylabel="milliseconds")


PLOTS = (
    (plot_ticks, "ticks.svg", "What a tick costs"),
    (plot_opens, "opens.svg", "Sessions opened a second"),
    (plot_history, "history.svg", "What a request costs by an account's sessions"),
)


def main(file: Path) -> None:
    results = json.loads(file.read_text(encoding="utf-8"))
    page = HERE / "README.md"
    before, _, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    drawn = [f"\n![{title}]({name})\n" for draw, name, title in PLOTS if draw(results, HERE / name)]
    page.write_text(f"{before}{BEGIN}{''.join(table(results))}{''.join(drawn)}{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
