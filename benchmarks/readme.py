"""The table of figures in README.md, made from `benchmarks/results/` and nothing else.

    python -m benchmarks.readme     # writes it between the two markers
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks.harness import RESULTS

README = Path(__file__).parent.parent / "README.md"
BEGIN, END = "<!-- figures -->", "<!-- /figures -->"

# what is measured, the result file, the figure in it, how to write it, what we aim at
ROWS = [
    (
        "env steps/s of `half_cheetah`, 256 worlds, as a share of bare `mj_step` on every core",
        "env_step", "share_of_raw", "{:.2f}", "0.85",
    ),
    ("the same for `pick_cube`", "env_step", "share_of_raw_pick_cube", "{:.2f}", "0.93"),
    ("env steps/s against EnvPool (sync)", "env_step", "vs_envpool", "{:.2f}x", "1.1x"),
    ("against Gymnasium's SyncVectorEnv", "env_step", "vs_sync", "{:.1f}x", "2.3x"),
    ("against Gymnasium's AsyncVectorEnv", "env_step", "vs_async", "{:.1f}x", "5x"),
    (
        "PPO steps/s against stable-baselines3, same networks and settings",
        "ppo", "vs_sb3_same", "{:.1f}x", "3x",
    ),
    (
        "PPO wall-clock to a return of 3,000 on `half_cheetah` against SB3 as tuned by its zoo",
        "ppo", "vs_sb3_wall_clock_to_return", "{:.0f}x", "8x",
    ),
    (
        "`make demo`: success on `pick_cube`, by PPO on a reward learned from demonstrations",
        "demo", "success", "{:.1%}", "90%",
    ),
    ("of the clone of the demonstrations that it begins as", "demo", "clone", "{:.1%}", ""),
    ("minutes, from the first demonstration to the video", "demo", "minutes", "{:.1f}", "6"),
    (
        "scripted experts of the arm: lowest success, 500 seeds a task, robot and action space",
        "experts", "lowest_success", "{:.1%}", "98%",
    ),
    (
        "checkpoints that do not load, after 200 `kill -9` and 11,000 replayed power cuts",
        "crash_safety", "unloadable", "{}", "0",
    ),
    ("acknowledged saves that were lost there", "crash_safety", "lost", "{}", "0"),
]  # fmt: skip


def table(results: Path = RESULTS) -> str:
    """The table as Markdown: medians, with the range of the rounds or seeds behind them."""
    lines = ["| measured | reached | goal |", "|---|---|---|"]
    machines = set()
    for title, file, name, form, goal in ROWS:
        path = results / f"{file}.json"
        if not path.exists():
            lines.append(f"| {title} | not yet measured | {goal} |")
            continue
        result = json.loads(path.read_text())
        machines.add(f"{result['machine']['cpu']}, {result['machine']['cores']} cores")
        lines.append(f"| {title} | {_cell(result['figures'][name], form)} | {goal} |")
    note = f"Medians and ranges, measured on {'; '.join(sorted(machines))} by `make bench`."
    return "\n".join([*lines, "", note])


def _cell(figure: Any, form: str) -> str:
    if not isinstance(figure, dict):
        return form.format(figure)
    low, high = form.format(figure["low"]), form.format(figure["high"])
    return f"{form.format(figure['median'])} ({low} to {high})"


def main() -> None:
    text = README.read_text()
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    README.write_text(f"{before}{BEGIN}\n{table()}\n{END}{after}")


if __name__ == "__main__":
    main()
