"""`embodied fit` and `embodied score`: from demonstrations, and what a model says of a dataset."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from embodied.demonstrate import collect
from embodied.errors import UserError
from embodied.fit import fit
from embodied.lerobot import read_dataset
from embodied.score import score

ENV = "env=line_reach"
MODEL = "reward_model=success"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    collect([ENV, f"out={folder}/good", "episodes=12", "num_envs=12", "sim.threads=1"])
    mixed = "sources=[expert*3,expert:stops_short*3]"
    collect([ENV, f"out={folder}/mixed", mixed, "seed=500", "num_envs=6", "sim.threads=1"])
    return folder


@pytest.fixture(scope="module")
def judge(data: Path) -> Path:
    out, figures = fit([ENV, MODEL, f"dataset={data}/good", f"out={data}/judge"])
    assert all(np.isfinite(value) for value in figures.values())
    return out


def test_a_model_is_fitted_saved_and_asked_about_other_episodes(data: Path, judge: Path) -> None:
    before = read_dataset(data / "mixed")
    column, figures = score(
        [ENV, MODEL, f"reward_model.success.path={judge}", f"dataset={data}/mixed", "column=mine"]
    )
    after = read_dataset(data / "mixed")
    assert column == "score.mine" and figures["episodes"] == 6
    for old, new in zip(before.episodes, after.episodes, strict=True):
        assert new.scores["mine"].shape == (len(new),)
        assert (old.state == new.state).all() and (old.action == new.action).all()
    assert figures["successes_end_at"] > 0.5 > figures["failures_end_at"]


def test_without_a_dataset_the_expert_demonstrates(tmp_path: Path) -> None:
    out, _ = fit([ENV, MODEL, "episodes=4", f"out={tmp_path}/judge", "sim.threads=1"])
    assert out.is_dir()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["dataset=DATA/good"], "out=FOLDER"),
        (["dataset=DATA/good", "out=DATA/good"], "exists: choose another"),
        (["dataset=DATA/none", "out=OUT"], "DATA/none"),
        (["dataset=DATA/good", "out=OUT", "env=half_cheetah"], "is of env=line_reach"),
        (["reward_model=env", "dataset=DATA/good", "out=OUT"], "nothing to fit"),
        (["reward_model=[env,success]", "dataset=DATA/good", "out=OUT"], "one reward model"),
        (["reward_model.success.input=pixels", "dataset=DATA/good", "out=OUT"], "camera"),
    ],
)
def test_what_cannot_be_fitted_leaves_nothing(
    data: Path, tmp_path: Path, given: list[str], message: str
) -> None:
    own = [text.replace("DATA", str(data)).replace("OUT", f"{tmp_path}/out") for text in given]
    chosen = [ENV] if not any(text.startswith("env=") for text in own) else []
    chosen += [MODEL] if not any(text.startswith("reward_model=") for text in own) else []
    with pytest.raises(UserError, match=message.replace("DATA", str(data))) as error:
        fit([*chosen, *own])
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()


def test_a_model_that_cannot_judge_leaves_the_dataset_as_it_was(data: Path) -> None:
    files = {path: path.read_bytes() for path in (data / "mixed").rglob("*.parquet")}
    with pytest.raises(UserError, match="untrained"):
        score([ENV, MODEL, f"dataset={data}/mixed"])
    with pytest.raises(UserError, match="dataset=FOLDER"):
        score([ENV, MODEL])
    assert {path: path.read_bytes() for path in (data / "mixed").rglob("*.parquet")} == files
