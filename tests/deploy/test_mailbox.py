from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from embodied.deploy.mailbox import Mailbox

WRITER = """
import sys, numpy as np
from embodied.deploy.mailbox import Mailbox
box = Mailbox({"a": 2, "b": 64}, int(sys.argv[1]))
while True:
    for k in range(1000):
        box.write("b", np.full(64, float(k)))
"""


def test_a_slot_keeps_the_newest_row_and_counts() -> None:
    box = Mailbox({"a": 2, "b": 3})
    assert box.read("a") is None
    for k in range(3):
        box.write("a", np.array([k, 2.0 * k]))
    read = box.read("a")
    assert read is not None and read[0] == 3 and read[1].tolist() == [2.0, 4.0]
    assert box.read("b") is None
    with pytest.raises(ValueError, match="holds"):
        box.write("b", np.zeros(2))
    box.close()


def test_a_row_that_was_being_written_when_its_writer_died_is_not_read() -> None:
    box = Mailbox({"a": 2})
    box.write("a", np.array([1.0, 2.0]))
    head, row = box._slots["a"]
    row[0] = 5.0  # half of a new row, and no word of it
    assert box.read("a") is None
    box.write("a", np.array([3.0, 4.0]))
    head[0] += 1  # a writer that died before its row
    assert box.read("a") is None
    box.write("a", np.array([6.0, 7.0]))
    read = box.read("a")
    assert read is not None and read[1].tolist() == [6.0, 7.0]


def test_rows_of_another_process_are_never_torn() -> None:
    box = Mailbox({"a": 2, "b": 64})
    command = [sys.executable, "-c", WRITER, str(box.file)]
    writer = subprocess.Popen(command, pass_fds=[box.file])
    try:
        seen = set()
        while len(seen) < 300:
            read = box.read("b")
            if read is not None:
                assert (read[1] == read[1][0]).all()
                seen.add(read[1][0])
    finally:
        writer.kill()
        writer.wait()
    assert len(seen) >= 300
