"""Run by mjlab's own interpreter: how fast its cube lifting steps. See `benchmarks.gpu`.

    python mjlab_steps.py WORLDS DEVICE STEPS

Prints one line of JSON: env steps and simulated seconds, of all worlds, a second.
"""

import json
import sys
import time

import mjlab.tasks  # noqa: F401, registers them
import torch
from mjlab.envs import ManagerBasedRlEnv
from mjlab.tasks.registry import load_env_cfg

TASK = "Mjlab-Lift-Cube-Yam"


def main() -> None:
    worlds, device, steps = int(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    cfg = load_env_cfg(TASK)
    cfg.scene.num_envs = worlds
    env = ManagerBasedRlEnv(cfg=cfg, device=device)
    env.reset()
    action = torch.zeros(worlds, env.action_manager.total_action_dim, device=device)

    def run(count: int) -> float:
        start = time.perf_counter()
        for _ in range(count):
            env.step(action)
        if device.startswith("cuda"):
            torch.cuda.synchronize()
        return time.perf_counter() - start

    run(max(2, steps // 10))
    rate = steps * worlds / run(steps)
    told = {"steps_per_s": rate, "simulated_per_s": rate * env.step_dt, "step_s": env.step_dt}
    print(json.dumps(told), flush=True)


if __name__ == "__main__":
    main()
