from __future__ import annotations

import os
import subprocess
import sys

from embodied.deploy.process import closed, end, lifeline


def test_a_lifeline_is_closed_with_the_process_that_held_it() -> None:
    theirs, ours = lifeline()
    holder = subprocess.Popen(
        [sys.executable, "-c", "import sys; sys.stdin.read()"],
        stdin=subprocess.PIPE,
        pass_fds=[ours],
    )
    os.close(ours)
    assert not closed(theirs)
    holder.kill()
    holder.communicate()
    assert closed(theirs)
    os.close(theirs)


def test_one_that_does_not_end_is_killed() -> None:
    deaf = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"])
    end(deaf, 0.2)
    assert deaf.returncode == -9
