"""The tables of figures in README.md, made from `benchmarks/results/` and nothing else.

python -m benchmarks.readme     # writes each between its two markers
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks.harness import RESULTS
from benchmarks.reward_quality import FLAWS

README = Path(__file__).parent.parent / "README.md"
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
        "`make demo`: success on `pick_cube` in worlds that vary, on a reward that was learned",
        "demo", "success", "{:.1%}", "90%",
    ),
    ("of the clone of the demonstrations that it begins as", "demo", "clone", "{:.1%}", ""),
    ("minutes, from the first demonstration to the video", "demo", "minutes", "{:.1f}", "6"),
    (
        "judged from one camera's pixels, in nominal worlds: success",
        "demo_pixels", "success", "{:.1%}", "90%",
    ),
    ("and minutes", "demo_pixels", "minutes", "{:.1f}", "20"),
    (
        "scripted experts of the arm: lowest success, 500 seeds a task, robot and action space",
        "experts", "lowest_success", "{:.1%}", "98%",
    ),
    (
        "experts on `mujoco_warp` against MuJoCo, 500 seeds a task: success apart, at most",
        "backends", "apart", "{:.1%}", "2%",
    ),
    (
        "SAC updates/s against stable-baselines3, same networks and batch",
        "sac", "updates_vs_sb3", "{:.1f}x", "2x",
    ),
    ("with `agent.precision=bfloat16`", "sac", "updates_vs_sb3_bfloat16", "{:.1f}x", ""),
    (
        "SAC wall-clock to a return of 5,000 on `half_cheetah` against SB3",
        "sac", "wall_clock_to_return_vs_sb3", "{:.1f}x", "5x",
    ),
    (
        "with `agent.precision=bfloat16`",
        "sac", "wall_clock_to_return_vs_sb3_bfloat16", "{:.1f}x", "5x",
    ),
    (
        "and its env steps/s until then, many worlds against one",
        "sac", "batched_vs_sb3", "{:.1f}x", "10x",
    ),
    ("with `agent.precision=bfloat16`", "sac", "batched_vs_sb3_bfloat16", "{:.0f}x", "10x"),
    (
        "with a GPU: env steps/s of `pick_cube`, 4,096 worlds, as a share of bare `mujoco_warp`",
        "gpu", "env_vs_raw", "{:.2f}", "0.80",
    ),
    ("PPO there, its updates included", "gpu", "ppo_vs_raw", "{:.2f}", "0.60"),
    ("seconds to 95% success there", "gpu", "seconds_to_95", "{:.0f}", "60"),
    (
        "simulated seconds a second against mjlab's cube lifting",
        "gpu", "vs_mjlab", "{:.1f}x", "1.0x",
    ),
    (
        "checkpoints that do not load, after 200 `kill -9` and 11,000 replayed power cuts",
        "crash_safety", "unloadable", "{}", "0",
    ),
    ("acknowledged saves that were lost there", "crash_safety", "lost", "{}", "0"),
    (
        "a model's server fails in 45 ways: by how much a call outlives its deadline, at most",
        "endpoint_faults", "late_at_most", "{:.1%}", "5%",
    ),
    (
        "spent beyond a budget, 64 questions in flight, after 10 `kill -9`",
        "endpoint_faults", "overspent", "{:.0f}", "0",
    ),
    ("replies that were paid for twice there", "endpoint_faults", "paid_twice", "{}", "0"),
    (
        "hostile programs as reward code: of 301, with an effect outside of the sandbox",
        "sandbox", "outside_effects", "{}", "0",
    ),
    (
        "by plain `exec`, of those that aim at one",
        "sandbox", "effects_under_plain_exec", "{:.0%}", "60%",
    ),
    (
        "microseconds that the sandbox adds to a reward of 1,024 worlds by 64 numbers",
        "sandbox", "added_us_median", "{:.0f}", "100",
    ),
    ("the 99th percentile", "sandbox", "added_us_p99", "{:.0f}", "300"),
    (
        "replay of a reward's graph, against the same NumPy function",
        "sandbox", "graph_replay_ratio", "{:.2f}x", "1.3x",
    ),
    ("seconds beyond its deadline until a stuck worker is replaced", "sandbox", "replaced_s",
     "{:.3f}", "0.2"),
    ("processes, descriptors and mappings left by 1,000 crashes", "sandbox", "leaked", "{}", "0"),
    (
        "turns/s of 32 games of TextWorld against the library's own loop, for each core",
        "text_env_step", "worlds_vs_loop_per_core", "{:.2f}x", "0.9x",
    ),
    (
        "tokens/s of 32 conversations against `generate` on each alone",
        "text_env_step", "tokens_vs_generate", "{:.1f}x", "1.5x",
    ),
    ("and on all of them in one batch", "text_env_step", "tokens_vs_batched_generate", "{:.1f}x",
     ""),
    (
        "the demo's policy in nominal worlds, 400 episodes, in simulation",
        "deploy_latency", "success_none", "{:.1%}", "",
    ),
    (
        "on a simulated arm in real time, guarded, its cube seen by a camera: over sockets",
        "deploy_latency", "success_sim", "{:.1%}", "5 points less",
    ),
    ("over ROS 1", "deploy_latency", "success_ros1", "{:.1%}", "5 points less"),
    ("over Cyclone DDS", "deploy_latency", "success_dds", "{:.1%}", "5 points less"),
    ("by way of Fast DDS", "deploy_latency", "success_fastdds", "{:.1%}", "5 points less"),
    ("over Zenoh", "deploy_latency", "success_zenoh", "{:.1%}", "5 points less"),
    (
        "within the accelerations of the real arm, on which it was not trained",
        "deploy_latency", "success_franka_limits", "{:.1%}", "",
    ),
    ("milliseconds of a command over ROS 1, p50", "deploy_latency", "command_ros1_p50_ms",
     "{:.2f}", ""),
    ("p99", "deploy_latency", "command_ros1_p99_ms", "{:.1f}", ""),
    ("over Cyclone DDS, p50", "deploy_latency", "command_dds_p50_ms", "{:.2f}", ""),
    ("p99", "deploy_latency", "command_dds_p99_ms", "{:.1f}", ""),
    (
        "14 kinds of faults between policy and robot, 20 of each: stopped or clamped in time",
        "deploy_faults", "safe", "{:.1%}", "100%",
    ),
    ("milliseconds until the guard reacts, at most", "deploy_faults", "longest_within_ms",
     "{:.0f}", "100"),
    ("until the arm is told to stand still", "deploy_faults", "longest_rest_ms", "{:.0f}", ""),
]  # fmt: skip


OF_TURNS = {
    "before": "before", "over training": "over_training", "at its end": "in_training",
    "thousand episodes to 90%": "thousands_to_90", "reach 90%": "reached_90",
    "thousand to where the outcome ended": "thousands_to_outcome",
    "unseen tasks": "unseen", "one size up": "larger",
    "paid at first": "paid_first", "paid at its end": "paid_last",
}  # fmt: skip
# of a grid: the result file, how a cell is written, and the columns: a title and a figure
GRIDS = {
    "reward_quality": (
        "{:.2f}",
        {
            "VOC": "voc", "VROC": "vroc", "Retry-VOC": "retry_voc", "AUROC": "auroc",
            "Kendall": "kendall_tau", "MAE": "mae", "hesitation": "hesitation_rmse",
            "gate": "passed",
        },
    ),
    "reward_to_success": (
        "{:.2f}",
        {
            "before": "start", "success": "success",
            "steps to 80%, millions": "millions_to_reached",
            "AUROC on its own policy": "policy_auroc",
        },
    ),
    "shaping": (
        "{:.2f}",
        {
            "success": "success", "of rollouts in training": "rollouts_successful",
            "their progress as judged": "rollouts_valued", "gap": "gap", "steps": "length",
        },
    ),
    "imitation": ("{:.2f}", {"success": "success"}),
    "reward_code": (
        "{:.2f}",
        {
            "the task's own reward": "hand", "kept of what people wrote": "kept",
            "below the best of it": "regret", "kept of chance": "chance",
        },
    ),
    "sim_to_sim": (
        "{:.2f}",
        {
            "MuJoCo": "mujoco", "Bullet": "bullet", "survived": "bullet_survived",
            "Bullet, the same arm": "bullet_own_arm",
            "survived there": "bullet_own_arm_survived",
        },
    ),
    "turn_rewards_textworld": ("{:.2f}", OF_TURNS),
    "turn_rewards_peckingorder": ("{:.2f}", OF_TURNS),
    "judge": (
        "{:.2f}",
        {
            "tricks called done": "false_positive", "of kinds never trained on": "held_out",
            "openers": "openers", "solved called done": "accepted",
            "failures called failed": "refused", "AUROC": "auroc",
        },
    ),
    "judge_pairs": (
        "{:.2f}",
        {
            "right": "right", "wrong": "wrong", "orders agree": "agree",
            "one order alone right": "one_order", "tricks beaten": "tricks_beaten",
            "tricks won": "tricks_won",
        },
    ),
}  # fmt: skip


def sections(results: Path = RESULTS) -> dict[str, str]:
    """All tables by the names of their markers, as Markdown."""
    grids = {name: grid(name, *how, results) for name, how in GRIDS.items()}
    flaws = {name.replace("_", " "): name for name in FLAWS}
    grids["flaws"] = grid("reward_quality", "{:.0%}", flaws, results)
    return {"figures": figures(results), **grids}


def begin(name: str) -> str:
    return f"<!-- {name} -->"


def end(name: str) -> str:
    return f"<!-- /{name} -->"


def grid(name: str, form: str, columns: dict[str, str], results: Path = RESULTS) -> str:
    """The table of a grid: means over seeds with their 95% intervals, and how much is done."""
    path = results / f"{name}.json"
    if not path.exists():
        return f"Not yet measured: `python -m benchmarks.{name}`."
    result = json.loads(path.read_text())
    found, cells = result["figures"]["table"], result["figures"]["cells"]
    kept = {t: c for t, c in columns.items() if any(c in row for row in found.values())}
    lines = [f"| | {' | '.join(kept)} |", f"|---|{'---|' * len(kept)}"]
    for title, row in found.items():
        told = [_mean(row.get(figure), form) for figure in kept.values()]
        lines.append(f"| {title} | {' | '.join(told)} |")
    done = f"{cells['done']} of {cells['planned']} cells in {cells['hours']} hours"
    return "\n".join([*lines, "", f"Means over seeds and 95% intervals; {done}."])


def _mean(figure: Any, form: str) -> str:
    if not figure:
        return "-"
    mean = form.format(figure["mean"])
    if figure["low"] is None or figure["low"] == figure["high"]:
        return mean
    return f"{mean} ({form.format(figure['low'])} to {form.format(figure['high'])})"


def figures(results: Path = RESULTS) -> str:
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
        figure = result["figures"].get(name)
        told = "not yet measured" if figure is None else _cell(figure, form)
        lines.append(f"| {title} | {told} | {goal} |")
    note = f"Medians and ranges, measured on {'; '.join(sorted(machines))} by `make bench`."
    return "\n".join([*lines, "", note])


def _cell(figure: Any, form: str) -> str:
    if not isinstance(figure, dict):
        return form.format(figure)
    low, high = form.format(figure["low"]), form.format(figure["high"])
    return f"{form.format(figure['median'])} ({low} to {high})"


def main() -> None:
    text = README.read_text()
    for name, table in sections().items():
        before, found, rest = text.partition(begin(name))
        if not found:
            raise SystemExit(f"README.md has no place for {name}: {begin(name)} {end(name)}")
        _, _, after = rest.partition(end(name))
        text = f"{before}{begin(name)}\n{table}\n{end(name)}{after}"
    README.write_text(text)


if __name__ == "__main__":
    main()
