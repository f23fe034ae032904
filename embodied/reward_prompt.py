"""What a language model is told that is to write a reward, and of how the last one did."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from embodied.abstraction import Abstraction

SYSTEM = """\
You write reward functions for robots that learn by reinforcement. Your code is run on thousands of
simulated worlds at once, after every step, and a policy is trained on nothing but the sum of the
terms that it returns.

Rules for the code:
- One Python function, `def reward(world, action, dt)`, in one code block. NumPy is there as `np`;
  nothing can be imported. Helper functions are fine.
- The first axis of every array is the worlds. Reduce over axis=-1 only, never over the worlds.
  Where worlds differ use np.where, `&` and `|`, not `if`, `and`, `or`.
- Return a dict of named terms, each an array with one finite number for every world, of a size
  between about -10 and 10.
- Read only what the class World below names. Nothing else exists: no success flag, no time, no
  previous state. What is marked as not on a real robot makes for a reward that a robot cannot learn
  from; leave it out if you can.
- Mind the units. Add only what has the same unit; a bare factor may convert.

What makes a reward good:
- Where the task has parts, pay for each in turn, and make the next worth more than lingering at the
  last, so that nothing is gained by staying where it is comfortable.
- Terms that grow smoothly from where an untrained policy is: a policy that never meets a reward
  never learns it. Something like 1 - np.tanh(distance / scale) with a scale to fit.
- What is meant must pay more than anything that only looks like it, and for as long as it lasts.
- Small costs for jerky or large actions, if any.
"""

FACTORS = """\
You name factors for robots that learn by reinforcement. A robot is told at the end of an episode
what it was worth, and not which of its steps made it so. From the factors that your code computes
of every step, a small network learns the share of each. So name what bears on the task: distances,
heights, speeds, whether things touch or are held, effort; each once, without weights, and not added
up.

Rules for the code:
- One Python function, `def reward(world, action, dt)`, in one code block. NumPy is there as `np`;
  nothing can be imported. Helper functions are fine.
- The first axis of every array is the worlds. Reduce over axis=-1 only, never over the worlds.
  Where worlds differ use np.where, `&` and `|`, not `if`, `and`, `or`.
- Return a dict of named factors, three to twelve, each an array with one finite number for every
  world, of a size between about -10 and 10.
- Read only what the class World below names. Nothing else exists: no success flag, no time, no
  previous state.
- Mind the units. Add only what has the same unit; a bare factor may convert.
"""

FIRST = """\
The task: {instruction}

What you may read:

```python
{about}
```

Write {what}."""

PITFALLS = """\
Look at the numbers before you write:
- A term that hardly changes does nothing: change its scale, write it anew, or leave it out.
- A term far larger than the others drowns them.
- Success that does not rise although the terms do means that they pay for something else: change
  what they pay for, not only by how much.
- Where no success was seen at all, an earlier part of the task is not paid for smoothly enough.
"""

CRITIC = """\
Here is a reward that a colleague wrote for the task above:

{code}

Judge it before it is trained on: does it pay for what is asked and nothing else, does it read only
what there is, are units and scales right, could a policy be paid without doing the task? Then give
the reward as it should be, in one code block: changed where that is needed, else as it is."""

ANALYST = """\
A policy was trained on the reward above. This is what it did in {episodes} episodes, of which
{won} succeeded:

{failures}

Say in a few sentences why it fails and what in the reward brings that about. No code."""


def fenced(source: str) -> str:
    """Code as a reply has it."""
    return f"```python\n{source.strip()}\n```"


def first_messages(
    about: Abstraction, instruction: str, factors: bool = False
) -> tuple[tuple[str, str], ...]:
    """The question that a search begins with: for a reward, or for `factors` of one."""
    what = "the factors" if factors else "the reward"
    return (
        ("system", FACTORS if factors else SYSTEM),
        ("user", FIRST.format(instruction=instruction, about=about, what=what)),
    )


def refusal_message(refused: str, why: str) -> str:
    """What an author is told of code that was not even trained on."""
    return (
        f"That reward was refused before any training ({refused.replace('_', ' ')}): {why}\n\n"
        "Write the whole reward again with that put right."
    )


def reflection(
    success: Sequence[float],
    terms: Mapping[str, Sequence[float]],
    notes: Sequence[str] = (),
    failures: str = "",
    said: str = "",
) -> str:
    """What an author is told of training on a reward: ten looks at every term and at success.

    `said` is what a person, or another model, has to say about it.
    """
    lines = ["A policy was trained on that reward. From the beginning of training to its end:", ""]
    for name, values in terms.items():
        lines.append(f"{name}: {_numbers(values)}")
    lines.append(f"share of episodes that truly succeed: {_numbers(success)}")
    if notes:
        lines += ["", "Besides: " + "; ".join(notes) + "."]
    if failures:
        lines += ["", "What the policy does at the end:", failures]
    if said:
        lines += ["", "What is said about it: " + said]
    return "\n".join([*lines, "", PITFALLS, "Write a better reward, in full."])


def _numbers(values: Sequence[float]) -> str:
    """At most ten of them, evenly spread, with the least, the mean and the most of all."""
    array = np.asarray(values, float)
    array = array[np.isfinite(array)]
    if not len(array):
        return "never measured"
    chosen = array[np.unique(np.linspace(0, len(array) - 1, 10).astype(int))]
    shown = ", ".join(f"{x:.3g}" for x in chosen)
    return f"{shown} (least {array.min():.3g}, mean {array.mean():.3g}, most {array.max():.3g})"
