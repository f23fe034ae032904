"""A reward model that looks at one state after another and remembers the last few.

What the learned progress models share: which moments they see, what they carry between them, and
how they are saved. A subclass says how a moment is encoded and how a window of them is read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor, nn

from embodied.checkpoint import load_checkpoint, save_checkpoint
from embodied.encoder import Encoder
from embodied.errors import UserError
from embodied.frame_table import FrameTable
from embodied.hues import Hues
from embodied.hull import Hull
from embodied.language import embed
from embodied.nets import load_weights
from embodied.places import LEAST, Places, places
from embodied.reward_model import Needs
from embodied.spaces import to_vector, vector_keys, vector_size
from embodied.types import SCORED, SILENT, Array, Carry, Moment, Obs, Score, Trajectory

INPUTS = ("state", "pixels")
KEPT = ("past", "age", "began")
"""What is carried beside what a subclass remembers: earlier states, steps, the first image's
places."""


class FrameJudge:
    """Judges states by a window of them: the present one, and `window - 1` before it.

    The window holds the states at multiples of `stride` steps since the episode's start, so what
    is remembered does not depend on how often the model is asked. At the start it is filled with
    the first state. `input="state"` sees the whole observation; `input="pixels"` sees `cameras`
    and the robot's own part of the observation, its first `proprio_size` numbers.

    Values fall off where no demonstration has been (see `Hull`), since a policy that is paid for
    them goes there as well, and are no higher than what the first camera shows allows (see `Hues`
    and `Places`).

    Subclasses set `self.net`, a module with an `encoder`, and define `read` and `fit`.
    """

    kind = "potential"
    scope = "step"
    causal = True
    learned = True
    value_range = (0.0, 1.0)
    net: nn.Module

    def __init__(
        self,
        observation_space: gym.spaces.Dict,
        proprio_size: int | None = None,
        instructions: Sequence[str] = (),
        input: str = "state",
        cameras: Sequence[str] = ("front",),
        window: int = 1,
        stride: int = 1,
        seed: int = 0,
    ) -> None:
        if input not in INPUTS:
            raise UserError(f"reward model input={input!r}: give one of {', '.join(INPUTS)}")
        if window < 1 or stride < 1:
            raise UserError(f"window={window}, stride={stride}: give whole numbers >= 1")
        self.keys, size = vector_keys(observation_space), vector_size(observation_space)
        self.input, self.window, self.stride, self.seed = input, window, stride, seed
        self.cameras = tuple(cameras) if input == "pixels" else ()
        self.vector_size = (proprio_size or size) if input == "pixels" else size
        self.hull = Hull(self.vector_size, min(proprio_size or size, self.vector_size))
        self.hues, self.places = Hues(), Places()
        self.instructions = tuple(instructions)
        self.needs = Needs(cameras=self.cameras, stride=stride if window > 1 else 0)
        self.fitted = False
        self.path: str | None = None

    # --- what a subclass says

    def read(
        self, window: Tensor, text: Tensor, memory: dict[str, Tensor], first: bool
    ) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Values `(n,)`, statuses `(n,)` int8 and memory of n states.

        `window` `(n, W, F)` are encoded states, the present one last; `text` `(n, TEXT_SIZE)`;
        `memory` the rows `(n, ...)` of what this returned for the state before, or, where it is
        the `first` of an episode, of `memory_rows`.
        """
        raise NotImplementedError

    def memory_rows(self, first: Tensor) -> dict[str, Tensor]:
        """What to remember besides the window, from the first encoded states `(n, F)`."""
        return {}

    def allowed(self, vector: Tensor) -> Tensor:
        """The most that may be said of states `(n, V)`, whatever is read in them, `(n,)`: a share
        of the greatest value."""
        return vector.new_ones(len(vector))

    # --- the contract of a reward model

    @torch.inference_mode()
    def begin(self, carry: Carry, mask: Array, moment: Moment) -> tuple[Carry, Array]:
        self._need_fit()
        rows = np.flatnonzero(mask)
        value = np.full(len(mask), self.value_range[0], np.float32)
        vector = self._vector(moment.obs)[rows]
        images = [moment.images[camera] for camera in self.cameras]
        features = self._encode(vector, images)
        window = features[:, None].expand(-1, self.window, -1)
        text = self._text(moment.instructions, rows, len(mask))
        told, _, memory = self.read(window, text, self.memory_rows(features), first=True)
        memory |= {"past": window[:, 1:], "age": torch.zeros(len(rows), dtype=torch.int64)}
        if self.cameras:
            memory["began"] = places(_tensor(images[0]))
        value[rows] = self._trusted(told.numpy(), vector, images, memory.get("began"))
        new = {}
        for name, part in memory.items():
            whole = np.zeros((len(mask), *part.shape[1:]), part.numpy().dtype)
            if name in carry:
                whole[:] = carry[name]
            whole[rows] = part.numpy()
            new[name] = whole
        return new, value

    @torch.inference_mode()
    def score(self, carry: Carry, traj: Trajectory) -> tuple[Carry, Score]:
        self._need_fit()
        carry = {name: np.array(part) for name, part in carry.items()}
        value = np.full(traj.shape, self.value_range[0], np.float32)
        status = np.full(traj.shape, SILENT, np.int8)
        following = self._vector(traj.next_obs, lead=2)
        for t in range(traj.shape[0]):
            carry["age"] += 1
            rows = self._asked(traj, t)
            if len(rows):
                images = [traj.frames[c].image[traj.frames[c].index[t, rows]] for c in self.cameras]
                features = self._encode(following[t, rows], images)
                text = self._text(traj.instructions, rows, traj.shape[1])
                told, status[t, rows] = self._advance(carry, rows, features, text)
                began = torch.from_numpy(carry["began"][rows]) if self.cameras else None
                value[t, rows] = self._trusted(told, following[t, rows], images, began)
        return carry, Score(value, status)

    def _asked(self, traj: Trajectory, t: int) -> Array:
        asked = np.ones(traj.shape[1], bool) if traj.due is None else traj.due[t].copy()
        for camera in self.cameras:
            asked &= traj.frames[camera].index[t] >= 0
        return np.flatnonzero(asked)

    def _advance(
        self, carry: Carry, rows: Array, features: Tensor, text: Tensor
    ) -> tuple[Array, Array]:
        """Judge the next state of worlds `rows`, and remember it, in place."""
        past = torch.from_numpy(carry["past"][rows])
        window = torch.cat([past, features[:, None]], 1)
        memory = {k: torch.from_numpy(v[rows]) for k, v in carry.items() if k not in KEPT}
        value, status, memory = self.read(window, text, memory, first=False)
        for name, part in memory.items():
            carry[name][rows] = part.numpy()
        keep = carry["age"][rows] % self.stride == 0
        carry["past"][rows[keep]] = window[torch.from_numpy(keep), 1:].numpy()
        return value.numpy(), status.numpy()

    def scored(self, value: Tensor) -> Tensor:
        """The statuses of values that are all to be believed."""
        return torch.full(value.shape, SCORED, dtype=torch.int8)

    def _vector(self, obs: Obs, lead: int = 1) -> np.ndarray:
        """Observations as vectors; of a dataset, which keeps them as one, too."""
        keys = self.keys if self.keys[0] in obs else ("state",)
        return to_vector(obs, keys, lead)

    def _encode(self, vector: np.ndarray, images: Sequence[np.ndarray]) -> Tensor:
        """Features `(n, F)` of moments: state vectors `(n, D)` and one image batch a camera."""
        encoder = self.net.encoder
        assert isinstance(encoder, Encoder)
        own = _tensor(vector[:, : self.vector_size])
        return encoder(own, [_tensor(image) for image in images])

    def _trusted(
        self,
        value: np.ndarray,
        vector: np.ndarray,
        images: Sequence[np.ndarray],
        began: Tensor | None,
    ) -> np.ndarray:
        """What is left of values `(n,)` of moments that are encoded as in `_encode`; `began` are
        the places that the first images of their episodes show."""
        own, top = _tensor(vector[:, : self.vector_size]), self.value_range[1]
        value = np.minimum(value * self.hull(own).numpy(), top * self.allowed(own).numpy())
        if began is None:
            return value
        image = _tensor(images[0])
        value = np.minimum(value, top * self.hues(image).numpy())
        rows = np.flatnonzero(value > LEAST * top)
        if len(rows):
            allowed = self.places(began[rows], places(image[rows]))
            value[rows] = np.minimum(value[rows], top * allowed.numpy())
        return value

    def _text(self, instructions: Sequence[str], rows: Array, count: int) -> Tensor:
        known = instructions or self.instructions[:1] * count or ("",) * count
        return torch.from_numpy(embed([known[i] for i in rows]).astype(np.float32))

    def _need_fit(self) -> None:
        if not self.fitted:
            name = _option(self)
            raise UserError(
                f"reward_model.{name} is untrained: `embodied fit reward_model={name} env=... "
                f"out=FOLDER`, then give reward_model.{name}.path=FOLDER"
            )

    # --- data and files

    def learn_colours(self, table: FrameTable, rows: Tensor, progress: Tensor) -> None:
        """Take what the first camera, if there is one, shows in `rows` `(K,)` of a table, at
        `progress` `(K,)`."""
        if not self.cameras:
            return
        images = table.images[0][rows]
        self.hues.learn(images, progress)
        now = torch.cat([places(part) for part in images.split(256)])
        began = places(table.images[0][table.start])[table.episode[rows]]
        self.places.learn(began, now, progress >= 1.0 - 1e-6)

    def table(self, dataset: Any) -> FrameTable:
        """The frames of a dataset as this model sees them. Raises `UserError` where it cannot."""
        return FrameTable.of(dataset, self.vector_size, self.cameras, self.window)

    def load(self, path: str | None) -> None:
        """Load what `save` wrote to `path` (None: nothing)."""
        if path is not None:
            self.load_state_dict(load_checkpoint(Path(path)).state)
            self.path = path

    def save(self, path: Path | str) -> Path:
        """Write the model to a directory; `path` of the constructor reads it."""
        return save_checkpoint(Path(path), self.state_dict(), step=0)

    def state_dict(self) -> dict[str, Any]:
        return {
            "model": _option(self),
            "net": self.net.state_dict(),
            "hull": self.hull.state_dict(),
            "hues": self.hues.state_dict(),
            "places": self.places.state_dict(),
            "fitted": self.fitted,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        if state.get("model") != _option(self):
            raise UserError(f"this checkpoint is of {state.get('model')!r}, not {_option(self)!r}")
        load_weights(self.net, state["net"])
        self.net.eval()
        load_weights(self.hull, state.get("hull", {}))
        load_weights(self.hues, state.get("hues", {}))
        load_weights(self.places, state.get("places", {}))
        self.fitted = bool(state["fitted"])


def _tensor(array: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array))


def _option(model: object) -> str:
    return type(model).__module__.rpartition(".")[2]
