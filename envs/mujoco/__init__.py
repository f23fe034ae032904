"""MuJoCo on the CPU: N worlds of one model on native threads."""
