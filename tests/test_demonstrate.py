"""`embodied collect`: which mixture is recorded, where it goes, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from omegaconf import OmegaConf

from embodied.build import make_agent, make_env
from embodied.checkpoint import save_checkpoint
from embodied.config import compose_config, resolved
from embodied.demonstrate import collect, mixture
from embodied.errors import UserError
from embodied.lerobot import read_dataset
from tests.toys import conf_of_toys

WORLDS = ["env=point", "sim=points"]


@pytest.fixture(autouse=True)
def trusted_toys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMBODIED_TRUST", "tests")


@pytest.fixture
def conf(tmp_path: Path) -> Path:
    return conf_of_toys(tmp_path / "conf")


@pytest.fixture
def run(tmp_path: Path, conf: Path) -> Path:
    """A run directory with one checkpoint of an untrained policy."""
    chosen = [*WORLDS, "num_envs=4", "agent.compile=false", "agent.hidden=[8]"]
    cfg = OmegaConf.create(resolved(compose_config(chosen, config_dir=conf)))
    path = tmp_path / "run"
    path.mkdir()
    OmegaConf.save(cfg, path / "config.yaml")
    state = {"agent": make_agent(cfg, make_env(cfg)).state_dict()}
    config = OmegaConf.to_container(cfg)
    save_checkpoint(path / "checkpoints", state, step=40, config=config)  # type: ignore[arg-type]
    return path


@pytest.mark.parametrize(
    ("text", "episodes", "counts"),
    [
        ("expert", None, {"expert": 30}),
        ("[expert,random]", 5, {"expert": 3, "random": 2}),
        ("[expert*20, random*10]", None, {"expert": 20, "random": 10}),
        ("[expert*20,expert:slow*10]", 300, {"expert": 200, "expert:slow": 100}),
        ("a*0.9,b*0.1", 10, {"a": 9, "b": 1}),
        ("a,b,c", 10, {"a": 4, "b": 3, "c": 3}),
        ("a*1,b*2", 1000, {"a": 333, "b": 667}),
    ],
)
def test_a_mixture_is_shares_or_counts(
    text: str, episodes: int | None, counts: dict[str, int]
) -> None:
    assert mixture(text, episodes) == counts


@pytest.mark.parametrize(
    ("text", "episodes", "line"),
    [
        ("", None, "sources is empty"),
        ("[expert", None, r"write sources=\[a,b\]"),
        ("a*x", None, "'a.x': give NAME or NAME"),
        ("a*0,b", None, "'a.0': give NAME"),
        ("a*nan", None, "'a.nan': give NAME"),
        ("a,a", 4, "each name once"),
        ("a*0.5,b*0.5", None, "shares need a number of episodes"),
        ("a*99,b", 10, "episodes=10: too few"),
    ],
)
def test_a_mixture_that_makes_no_sense(text: str, episodes: int | None, line: str) -> None:
    with pytest.raises(UserError, match=line):
        mixture(text, episodes)


def test_a_dataset_is_recorded_and_told_of(
    tmp_path: Path, conf: Path, capsys: pytest.CaptureFixture
) -> None:
    out = tmp_path / "data" / "points"
    sources = "sources=[expert*6,expert:idle*2,random*2]"
    collect([*WORLDS, f"out={out}", sources, "seed=70", "num_envs=4"], conf)
    found = read_dataset(out)
    assert [episode.seed for episode in found.episodes] == list(range(70, 80))
    assert [episode.source for episode in found.episodes][5:8] == ["expert", *["expert:idle"] * 2]
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["source", "episodes", "success", "length"]
    assert lines[1].split()[:3] == ["expert", "6", "100%"]
    assert lines[2].split() == ["expert:idle", "2", "0%", "15.0"]
    assert lines[-1] == f"wrote {out}"


def test_failures_are_replaced_by_successes_if_asked(tmp_path: Path, conf: Path) -> None:
    given = [*WORLDS, "sources=noisy:0.6", "episodes=12", "seed=5", "after_success=1"]
    collect([*given, f"out={tmp_path}/all"], conf)
    before = read_dataset(tmp_path / "all").episodes
    good = [e.seed for e in before if e.success[-1]]
    assert 0 < len(good) < 12
    collect([*given, "successes=true", f"out={tmp_path}/good"], conf)
    after = read_dataset(tmp_path / "good").episodes
    assert len(after) == 12 and all(e.success[-1] for e in after)
    assert [e.seed for e in after][: len(good)] == good and min(e.seed for e in after[-1:]) >= 17
    assert all(len(e) - int(e.success.argmax()) <= 2 for e in after)
    with pytest.raises(UserError, match="after_success=-1"):
        collect([*given[:-1], "after_success=-1", f"out={tmp_path}/none"], conf)


def test_failures_are_left_out_where_none_succeeds(
    tmp_path: Path, conf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("embodied.demonstrate.TRIES", 2)  # in more, one starts at its goal
    given = [*WORLDS, "sources=[expert*3,expert:idle*2]", "num_envs=2", "successes=true"]
    collect([*given, f"out={tmp_path}/data"], conf)
    assert [e.source for e in read_dataset(tmp_path / "data").episodes] == ["expert"] * 3
    with pytest.raises(UserError, match="every episode failed"):
        collect([*WORLDS, "sources=expert:idle*2", "successes=true", f"out={tmp_path}/none"], conf)
    assert not (tmp_path / "none").exists()


def test_a_run_is_a_source_and_brings_its_worlds(tmp_path: Path, conf: Path, run: Path) -> None:
    collect([f"out={tmp_path}/a", f"sources=[{run},expert]", "episodes=4", "num_envs=3"])
    found = read_dataset(tmp_path / "a")
    assert [episode.source for episode in found.episodes] == [str(run)] * 2 + ["expert"] * 2
    collect([*WORLDS, f"out={tmp_path}/b", f"sources={run}", "episodes=2", "num_envs=1"], conf)
    again = read_dataset(tmp_path / "b").episodes
    for one, other in zip(again, found.episodes, strict=False):
        np.testing.assert_array_equal(one.action, other.action)


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ([], "say where to write the dataset: out=FOLDER"),
        (["out=taken"], "taken exists: choose another out="),
        (["out=new"], "say in which worlds, as env=NAME"),
        (["out=new", "episodes=0"], "episodes=0"),
        (["out=new", "epsiodes=3"], "did you mean episodes"),
        (["out=new", *WORLDS, "sources=exprt"], "unknown source 'exprt'"),
        (["out=new", *WORLDS, "sources=expert:slow"], "unknown flaw .*: .*idle"),
        (["out=new", *WORLDS, "cameras=front"], "unknown camera"),
        (["out=new", *WORLDS, "image_size=31"], "image_size=31: give an even number"),
        (["out=new", *WORLDS, "sources=conf"], "conf"),
        (["out=new", "env=gym", "env.id=CartPole-v1"], "only tasks can be recorded"),
    ],
)
def test_bad_input_writes_nothing(
    tmp_path: Path, conf: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], line: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "taken").mkdir()
    before = sorted(tmp_path.iterdir())
    with pytest.raises(UserError, match=line) as caught:
        collect(arguments, conf)
    assert "\n" not in str(caught.value)
    assert sorted(tmp_path.iterdir()) == before
