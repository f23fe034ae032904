"""The harness interleaves fairly, compares within rounds, and writes results atomically."""

from __future__ import annotations

import json

import numpy as np
import pytest

from benchmarks import harness


def test_each_round_runs_everyone_once_and_another_first():
    calls: list[str] = []

    def contestant(name):
        return lambda: calls.append(name) or len(calls)

    figures = harness.interleave({n: contestant(n) for n in "abc"}, rounds=4)
    assert "".join(calls) == "abc" + "bca" + "cab" + "abc"
    assert figures == {"a": [1, 6, 8, 10], "b": [2, 4, 9, 11], "c": [3, 5, 7, 12]}


def test_summary_and_ratio_within_rounds():
    assert harness.summary([3.0, 1.0, 2.0]) == {"median": 2.0, "low": 1.0, "high": 3.0}
    # The machine was twice as slow in the second round: the ratio does not notice.
    assert harness.ratio([10.0, 5.0], [5.0, 2.5]) == {"median": 2.0, "low": 2.0, "high": 2.0}
    with pytest.raises(ValueError):
        harness.ratio([1.0], [1.0, 2.0])


def test_parse_args(tmp_path):
    assert not harness.parse_args(argv=[]).quick
    args = harness.parse_args(argv=["--quick", "--out", str(tmp_path / "x.json")])
    assert args.quick and args.out == tmp_path / "x.json"


def test_result_file_and_last_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(harness, "RESULTS", tmp_path / "results")
    print("chatter")
    path = harness.write_result("speed", {"x": np.float32(1.5)}, {"rounds": np.arange(2)})
    assert path == tmp_path / "results" / "speed.json"
    result = json.loads(path.read_text())
    assert result["figures"] == {"x": 1.5} and result["detail"] == {"rounds": [0, 1]}
    assert {"python", "numpy"} <= set(result["versions"])
    assert {"cpu", "cores", "memory_gib"} <= set(result["machine"])
    assert result["date"].endswith("+00:00") and result["quick"] is False
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == {"x": 1.5}
    assert [p.name for p in path.parent.iterdir()] == ["speed.json"]


def test_a_quick_run_writes_only_where_told(tmp_path, monkeypatch):
    monkeypatch.setattr(harness, "RESULTS", tmp_path / "results")
    assert harness.write_result("speed", {"x": 1}, {}, quick=True) is None
    assert not list(tmp_path.iterdir())
    out = tmp_path / "deep" / "rough.json"
    assert harness.write_result("speed", {"x": 1}, {}, quick=True, out=out) == out
    assert json.loads(out.read_text())["quick"] is True


def test_a_figure_that_is_not_finite_leaves_the_old_result(tmp_path, monkeypatch):
    monkeypatch.setattr(harness, "RESULTS", tmp_path)
    path = harness.write_result("speed", {"x": 1}, {})
    with pytest.raises(ValueError):
        harness.write_result("speed", {"x": float("nan")}, {})
    assert json.loads(path.read_text())["figures"] == {"x": 1}
