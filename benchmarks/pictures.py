"""Pictures of a result file: win rates of all pairs with their intervals, and accuracy by task. Knows no result file.

They show what the tables of `benchmarks.report` say, for each condition of its own.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from benchmarks.comparing import compare, interval_of, mean_over_seeds
from benchmarks.plotting import MARKERS, SHADES, drawing
from benchmarks.report import Record, Section, by_condition

#: Most rows of one picture of pairs; with more, only those of the first method are drawn.
MOST_PAIRS = 45


def draw_report(records: Iterable[Record], folder: Path, kind: str = "svg") -> list[Path]:
    """Draw the pictures of every condition into ``folder`` and return their paths."""
    conditions = by_condition(list(records))
    drawn = []
    for number, name in enumerate(sorted(conditions), start=1):
        section = Section.of(conditions[name])
        mark = f"-{number}" if len(conditions) > 1 else ""
        accuracy = folder / f"accuracy{mark}.{kind}"
        draw_accuracy(section, name, accuracy)
        drawn.append(accuracy)
        pairs = folder / f"win-rates{mark}.{kind}"
        if draw_win_rates(section, name, pairs):
            drawn.append(pairs)
    return drawn


def draw_win_rates(section: Section, title: str, path: Path) -> bool:
    """Draw the win rate of each pair of methods with its interval; return whether there is any pair."""
    methods = section.methods
    pairs = [(one, other) for place, one in enumerate(methods) for other in methods[place + 1 :]]
    if len(pairs) > MOST_PAIRS:
        pairs = [(methods[0], other) for other in methods[1:]]
    found = [(names, pair) for names in pairs if (pair := compare(section.scores, *names)) is not None]
    if not found:
        return False
    with drawing(path, 8, 1.3 + 0.27 * len(found)) as figure:
        axes = figure.subplots()
        for row, (_, pair) in enumerate(found):
            rate = 100 * pair.win_rate
            sure = not pair.interval.low <= 0.5 <= pair.interval.high
            axes.plot([100 * pair.interval.low, 100 * pair.interval.high], [row, row], color="0.0", linewidth=1.2)
            axes.plot([rate], [row], "o", markersize=6, color="0.0", markerfacecolor="0.0" if sure else "1.0")
            axes.annotate(
                f"{pair.wins}–{pair.ties}–{pair.losses}",
                (1.01, row),
                xycoords=("axes fraction", "data"),
                verticalalignment="center",
                annotation_clip=False,
            )
        axes.axvline(50, color="0.5", linewidth=0.8, linestyle="--")
        axes.set_yticks(range(len(found)), [f"{one}  against  {other}" for (one, other), _ in found])
        axes.set_ylim(len(found) - 0.5, -0.5)
        axes.set_xlim(-3, 103)
        axes.set_xlabel(
            "win rate over tasks in %, ties counting half; wins–ties–losses\n95 % interval, filled where it excludes 50"
        )
        axes.set_title(title, fontsize=8, loc="left", wrap=True)
    return True


def draw_accuracy(section: Section, title: str, path: Path) -> None:
    """Draw the score of every method on every task, with its 95 % interval (`comparing.interval_of`)."""
    tasks = sorted(section.scores)
    slots = len(section.methods)
    with drawing(path, 8, 1.6 + 0.25 * -(-slots // 3) + len(tasks) * (0.16 * slots + 0.2)) as figure:
        axes = figure.subplots()
        for place, method in enumerate(section.methods):
            style = {
                "marker": MARKERS[place % len(MARKERS)],
                "color": "0.0",
                "markerfacecolor": ("1.0", *SHADES)[(place // 2) % 4] if place else "0.0",
            }
            labelled = False
            for row, task in enumerate(tasks):
                cell = section.scores[task].get(method)
                if not cell:
                    continue
                at = row + (place - (slots - 1) / 2) * 0.8 / slots
                axes.plot(interval_of(cell), [at, at], color="0.6", linewidth=0.9, zorder=1)
                axes.plot(
                    [mean_over_seeds(cell.values())],
                    [at],
                    linestyle="none",
                    markersize=5,
                    label=None if labelled else method,
                    **style,
                )
                labelled = True
        for row in range(1, len(tasks)):
            axes.axhline(row - 0.5, color="0.8", linewidth=0.6)
        axes.set_yticks(range(len(tasks)), tasks)
        axes.set_ylim(len(tasks) - 0.5, -0.5)
        axes.set_xlim(-0.02, 1.02)
        axes.grid(visible=False, axis="y")
        axes.set_xlabel("mean score over seeds, with the 95 % interval of the table")
        axes.set_title(title, fontsize=8, loc="left", wrap=True)
        if tasks:
            figure.legend(loc="outside lower center", ncols=3, frameon=False)
