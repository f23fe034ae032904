"""MuJoCo on a GPU: N worlds of one model through `mujoco_warp`."""
