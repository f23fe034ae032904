"""Set before anything imports torch, NumPy or matplotlib: one thread each, no window, no cache."""

import os
import tempfile

CACHE = tempfile.TemporaryDirectory(prefix="embodied_tests_")
os.environ["XDG_CACHE_HOME"] = CACHE.name  # games that the tests make are not the user's
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "Agg")

from hypothesis import settings  # noqa: E402

settings.register_profile("repeatable", derandomize=True, deadline=None, print_blob=True)
settings.load_profile("repeatable")
