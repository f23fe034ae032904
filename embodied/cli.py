"""The command line: `embodied VERB ...`. A verb's module is imported only when the verb runs."""

from __future__ import annotations

import os
import sys
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from embodied import __version__
from embodied.errors import UserError, unknown

Options = dict[str, str | None]


@dataclass(frozen=True)
class Verb:
    """What a verb does, how it is called, and the function that does it."""

    run: Callable[[list[str], Options], int | None]
    summary: str
    usage: str
    details: str = ""
    options: tuple[str, ...] = ()


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code.

    0 done, 1 `doctor` found something missing, an audit failed, a replay differs or a robot was
    stopped (or nobody reads the output),
    2 bad input (one line on stderr), 130 Ctrl-C.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        code = _run(arguments)
        sys.stdout.flush()
        return code
    except UserError as error:
        print("error:", " ".join(str(error).split()), file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nstopped", file=sys.stderr)
        return 130
    except BrokenPipeError:  # `embodied list | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _run(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(_help())
        return 0
    name, *rest = arguments
    if name in ("-V", "--version"):
        print(f"embodied {__version__}")
        return 0
    if name not in VERBS:
        raise unknown("verb", name, VERBS)
    verb = VERBS[name]
    if {"-h", "--help"} & set(rest):
        print(f"usage: embodied {verb.usage}\n\n{verb.summary}\n\n{verb.details}".rstrip())
        return 0
    positional, options = _split(name, verb, rest)
    return verb.run(positional, options) or 0


def _split(name: str, verb: Verb, arguments: list[str]) -> tuple[list[str], Options]:
    """Arguments without their `--name VALUE` options, and those."""
    positional: list[str] = []
    options: Options = dict.fromkeys(verb.options)
    rest = iter(arguments)
    for argument in rest:
        if not argument.startswith("--") or not verb.options:
            positional.append(argument)
            continue
        option, equals, value = argument.partition("=")
        if option not in verb.options:
            raise unknown(f"option of {name}", option, verb.options)
        options[option] = value if equals else next(rest, None)
        if not options[option]:
            raise UserError(f"{option} needs a value: embodied {name} --help")
    return positional, options


def _train(arguments: list[str], options: Options) -> None:
    from embodied.train import train

    train(arguments, options["--resume"], options["--config-dir"])


def _collect(arguments: list[str], options: Options) -> None:
    from embodied.demonstrate import collect

    collect(arguments, options["--config-dir"])


def _audit(arguments: list[str], options: Options) -> int:
    from embodied.audit import audit

    return audit(arguments, options["--config-dir"])


def _fit(arguments: list[str], options: Options) -> None:
    from embodied.fit import fit

    out, figures = fit(arguments, options["--config-dir"])
    _print(figures)
    print(f"saved; use it as reward_model.NAME.path={out}")


def _score(arguments: list[str], options: Options) -> None:
    from embodied.score import score

    column, figures = score(arguments, options["--config-dir"])
    _print(figures)
    print(f"added the column {column}")


def _print(figures: Mapping[str, float]) -> None:
    for name, value in figures.items():
        print(f"{name:<24}{value:.4g}" if isinstance(value, float) else f"{name:<24}{value}")


def _write_reward(arguments: list[str], options: Options) -> int:
    from embodied.write_reward import write_reward

    return write_reward(arguments, options["--config-dir"])


def _imitate(arguments: list[str], options: Options) -> None:
    from embodied.imitate import imitate, report

    report(*imitate(arguments, options["--config-dir"]))


def _eval(arguments: list[str], options: Options) -> int:
    from embodied.evaluate import evaluate

    if options["--against"]:
        arguments.append(f"against={options['--against']}")
    return evaluate(_who("eval", arguments), arguments[1:], options["--config-dir"])


def _play(arguments: list[str], options: Options) -> int:
    from embodied.play import play

    return play(_who("play", arguments), arguments[1:], options["--config-dir"])


def _who(verb: str, arguments: list[str]) -> str:
    if not arguments or "=" in arguments[0]:
        raise UserError(f"say who acts: embodied {verb} RUN, expert or random (see --help)")
    return arguments[0]


def _export(arguments: list[str], options: Options) -> None:
    from embodied.export import export, report

    report(*export(arguments, options["--config-dir"]))


def _deploy(arguments: list[str], options: Options) -> int:
    from embodied.deploy.deploy import deploy

    return deploy(_who("deploy", arguments), arguments[1:], options["--config-dir"])


def _simulate(arguments: list[str], options: Options) -> None:
    from embodied.deploy.simulate import simulate

    simulate(arguments, options["--config-dir"])


def _serve(arguments: list[str], options: Options) -> int:
    from embodied.serve import serve

    who = arguments.pop(0) if arguments and "=" not in arguments[0] else None
    return serve(who, arguments, options["--config-dir"])


def _replay(arguments: list[str], options: Options) -> int:
    from embodied.deploy.replay import replay

    return replay(arguments, options["--config-dir"])


def _bench(arguments: list[str], options: Options) -> None:
    from embodied.bench import bench, show

    show(bench(arguments, options["--config-dir"]))


def _list(arguments: list[str], options: Options) -> int:
    from embodied.catalogue import catalogue

    if len(arguments) > 1:
        raise UserError("list takes one group at most: embodied list env")
    return catalogue(arguments[0] if arguments else None, options["--config-dir"])


def _doctor(arguments: list[str], options: Options) -> int:
    from embodied.doctor import doctor

    if arguments:
        raise UserError(f"doctor takes no arguments, not {arguments[0]!r}")
    return doctor()


def _demo(arguments: list[str], options: Options) -> int:
    from embodied.demo import demo

    return demo(arguments)


WHO = """\
RUN is a run directory, one of its checkpoints, a policy of stable-baselines3 (model.zip),
a folder that `embodied export` wrote, a policy that is served (ws://HOST:PORT), the scripted
expert (expert) or one of its flaws (expert:slow), or random; all but the first two need env=NAME.
Further key=value arguments change the worlds: env.max_steps=200 sim.threads=1 ..."""

VERBS = {
    "train": Verb(
        _train,
        "Train a policy.",
        "train [KEY=VALUE ...] [--resume RUN] [--config-dir DIR]",
        textwrap.dedent("""\
            embodied train env=pick_cube agent=ppo num_envs=256 total_steps=2e6
            embodied train env=hopper agent.lr=3e-4 run_dir=runs/mine
            embodied train --resume runs/mine            go on from its newest valid checkpoint

            What there is to choose from: embodied list. Keys are those of the run's config.yaml.
            --config-dir DIR adds your own options, as DIR/env/mine.yaml."""),
        ("--resume", "--config-dir"),
    ),
    "collect": Verb(
        _collect,
        "Record demonstrations, good and bad, as a LeRobot dataset.",
        "collect env=NAME out=FOLDER [KEY=VALUE ...] [--config-dir DIR]",
        textwrap.dedent("""\
            embodied collect env=pick_cube out=data/pick episodes=30 cameras=front,wrist
            embodied collect env=pick_cube out=data/test 'sources=[expert*12,expert:drops*6]'
            embodied collect env=pick_cube out=data/runs 'sources=[runs/mine*50]' seed=500
            embodied collect env=household out=demos.jsonl episodes=60
            embodied collect env=household out=babble.jsonl sources=babble like=demos.jsonl

            sources=varied episodes=30 seed=0 num_envs=32 cameras= image_size=64 successes=false
            after_success=8 like= articles=true
            A source is expert, expert:FLAW, varied (the expert at a pace of its own), noisy,
            noisy:SHARE, noisy:SHARE:FLAW, random, or a run directory; *N is a count, or a share
            of episodes=N. In a world of text it is expert, a run, or babble, which says commands
            worded as in the file like= at random; articles=false: it names anything that was told,
            not only what was told with an article."""),
        ("--config-dir",),
    ),
    "fit": Verb(
        _fit,
        "Fit a reward model to demonstrations.",
        "fit reward_model=NAME env=NAME out=FOLDER [KEY=VALUE ...] [--config-dir DIR]",
        textwrap.dedent("""\
            embodied fit reward_model=stage_aware env=pick_cube out=runs/judge
            embodied fit reward_model=hop env=pick_cube dataset=data/pick out=runs/judge
            embodied fit reward_model=hop reward_model.hop.input=pixels env=pick_cube out=runs/eye

            dataset=FOLDER others=FOLDER,FOLDER episodes=30 seed=0
            Without a dataset the task's scripted expert gives the demonstrations. others are
            episodes of other tasks, from which a model learns what its own task is not."""),
        ("--config-dir",),
    ),
    "score": Verb(
        _score,
        "Add a reward model's verdicts to a dataset, as a column.",
        "score reward_model=NAME env=NAME dataset=FOLDER [KEY=VALUE ...] [--config-dir DIR]",
        textwrap.dedent("""\
            embodied score reward_model=stage_aware reward_model.stage_aware.path=runs/judge \\
                env=pick_cube dataset=data/pick"""),
        ("--config-dir",),
    ),
    "audit": Verb(
        _audit,
        "Put a reward model to the test, before and after a policy is trained on it.",
        "audit reward_model=NAME env=NAME dataset=FOLDER [KEY=VALUE ...] [--config-dir DIR]",
        textwrap.dedent("""\
            embodied audit reward_model=stage_aware reward_model.stage_aware.path=runs/judge \\
                env=pick_cube dataset=data/test

            dataset=FOLDER rollouts=FOLDER others=FOLDER,FOLDER out=FOLDER
            The dataset holds successes of the expert and its flaws; rollouts are episodes of a
            policy trained on this reward; others are episodes of other tasks. Writes report.html
            and audit.json beside the model. Exit code 1 when the gate fails: `embodied train`
            then refuses the model, unless allow_unaudited=true.

            embodied audit reward_model=verified_turn env=household out=audits/turns episodes=24
            In a world of text no dataset is needed: pairs of episodes are played in it."""),
        ("--config-dir",),
    ),
    "write-reward": Verb(
        _write_reward,
        "Have a reward written from a sentence: checked, run safely, trained on, improved.",
        "write-reward env=NAME out=FOLDER [KEY=VALUE ...] [--config-dir DIR]",
        textwrap.dedent("""\
            embodied write-reward env=pick_cube out=runs/written task="lift the red cube" \\
                url=http://127.0.0.1:8000/v1 model=NAME
            embodied write-reward env=pick_cube out=runs/written local=checkpoints/NAME
            embodied write-reward env=pick_cube out=runs/written reply_file=reply.txt
            embodied write-reward env=pick_cube out=runs/again replay=runs/written
            embodied write-reward env=pick_cube out=runs/chance blind=true samples=16 rounds=1
            embodied write-reward env=pick_cube prompt=true            only what would be asked

            mode=eureka (or text2reward, auto_mc, lare) rounds=3 samples=4 steps=500000 episodes=128
            seed=0 task= local= url= model= key_env= deadline_s=120 cache=FOLDER ledger=FILE budget=
            price_in= price_out= replay= reply_file= origin=authored train=true traced=true
            What was asked, answered, checked and measured is in out/rounds.jsonl, the best by true
            success in out/reward. Exit code 1 where no reply could be trained on."""),
        ("--config-dir",),
    ),
    "imitate": Verb(
        _imitate,
        "Clone the behaviour of demonstrations, plainly or as a reward model weights them.",
        "imitate dataset=FOLDER env=NAME [KEY=VALUE ...] [--config-dir DIR]",
        textwrap.dedent("""\
            embodied imitate dataset=data/pick env=pick_cube run_dir=runs/clone
            embodied imitate dataset=data/mixed env=pick_cube weights=ra_bc score=stage_aware
            embodied train env=pick_cube agent.start=runs/clone     PPO goes on from there
            embodied imitate dataset=demos.jsonl env=household agent=sft    what was said is learned

            weights=none score= agent.steps=3000
            weights=ra_bc counts a frame by the progress that follows it: of a column that
            `embodied score` added, or of one reward_model. weights=oracle takes successful
            experts alone. It leaves a run directory, as `embodied train` does."""),
        ("--config-dir",),
    ),
    "eval": Verb(
        _eval,
        "Measure a policy on fixed seeds, with intervals; go on where it was interrupted.",
        "eval RUN [KEY=VALUE ...] [--against RUN] [--config-dir DIR]",
        WHO
        + "\n\n"
        + textwrap.dedent("""\
            embodied eval runs/mine
            embodied eval runs/mine episodes=500 greedy=false --against runs/other
            embodied eval expert:near_miss env=pick_cube out=near_miss.jsonl

            episodes=100 seed=10000 num_envs=64 greedy=true max_steps= out=FILE trust_pickle=false
            Episode k runs with seed + k, whoever acts. Finished episodes are rows of eval.jsonl in
            the run directory (or of FILE) and are not run again."""),
        ("--against", "--config-dir"),
    ),
    "play": Verb(
        _play,
        "Watch a policy: as a video, in MuJoCo's viewer, or what it says in a world of text.",
        "play RUN [KEY=VALUE ...] [--config-dir DIR]",
        WHO
        + "\n\n"
        + textwrap.dedent("""\
            embodied play runs/mine
            embodied play runs/mine episodes=1 num_envs=1 camera=wrist size=720x960 speed=0.5
            embodied play expert:drops env=pick_cube out=drops.mp4
            embodied play expert env=household reward_model=[outcome,verified_turn]
            embodied play human env=textworld                       you are asked what to say

            episodes=4 num_envs=4 seed=10000 camera= size=480x640 speed=1 seconds=20 greedy=true
            max_steps= out=video.mp4 viewer=false trust_pickle=false"""),
        ("--config-dir",),
    ),
    "export": Verb(
        _export,
        "Export a trained policy as ONNX, with its joint map beside it.",
        "export RUN out=FOLDER [KEY=VALUE ...] [--config-dir DIR]",
        textwrap.dedent("""\
            embodied export runs/mine out=exported
            embodied eval exported env=pick_cube

            seed=0
            Writes policy.onnx (named observations to the greedy action, normaliser and limits
            inside) and policy.json (inputs, action, joints, checkpoint, hash). It is compared with
            the policy first, and not written if they differ by more than 1e-5 of an action's
            range."""),
        ("--config-dir",),
    ),
    "deploy": Verb(
        _deploy,
        "Put a policy on a robot, or on a simulated one behind the same topics, guarded.",
        "deploy RUN [robot=ROBOT.yaml] [transport=NAME] [KEY=VALUE ...] [--config-dir DIR]",
        textwrap.dedent("""\
            embodied deploy runs/mine                            a rehearsal: a simulated robot
            embodied deploy runs/mine sim=bullet episodes=20     by another engine
            embodied deploy runs/mine robot=mine.yaml transport=ros1 shadow=true
            embodied deploy runs/mine robot=mine.yaml transport=dds transport.domain=7

            robot=panda_sim transport=sim simulated= shadow=false episodes=1 seed=10000
            greedy=true record=FOLDER max_steps= home=true trust_pickle=false
            A robot.yaml maps joints by name (copy embodied/deploy/robots/panda.yaml), and sets the
            limits that a guard keeps to, in a process of its own. shadow=true computes and records
            everything and sends nothing; simulated=true (as it is for transport=sim) puts a
            simulated robot behind any transport. Exit code 1: the guard has stopped the robot."""),
        ("--config-dir",),
    ),
    "simulate": Verb(
        _simulate,
        "A simulated robot behind the topics of a real one, until Ctrl-C.",
        "simulate env=NAME transport=NAME [KEY=VALUE ...] [--config-dir DIR]",
        textwrap.dedent("""\
            embodied simulate env=pick_cube transport=ros1
            embodied simulate env=pick_cube transport=dds sim=bullet robot=mine.yaml

            robot=panda_sim transport=ros1 seed=10000
            For `embodied deploy` in another terminal, or for anything else that speaks to robots.
            Where robot.yaml has a tracker, its camera is simulated, and cubes bear markers."""),
        ("--config-dir",),
    ),
    "replay": Verb(
        _replay,
        "Play a robot's record back through a policy: what it did, what held it, what differs.",
        "replay BAG RUN [KEY=VALUE ...] [--config-dir DIR]",
        textwrap.dedent("""\
            embodied replay runs/mine/flights/20261130-120000 runs/mine
            embodied replay flight.mcap runs/other tolerance=1e-3 out=other.html

            tolerance=1e-5 (of each component's range) greedy=true out=BAG/replay.html
            trust_pickle=false
            BAG is a folder or file of rosbag2, in MCAP or SQLite. Writes a page of asked, clamped,
            sent and measured joints over time. Exit code 1 where the actions differ."""),
        ("--config-dir",),
    ),
    "serve": Verb(
        _serve,
        "Put a trained policy, or a reward model, behind a websocket.",
        "serve [RUN] [KEY=VALUE ...] [--config-dir DIR]",
        textwrap.dedent("""\
            embodied serve runs/mine
            embodied serve model.zip env=hopper port=9000
            embodied serve reward_model=stage_aware reward_model.stage_aware.path=runs/judge \\
                env=pick_cube
            embodied eval ws://127.0.0.1:8765 env=hopper            another process acts
            embodied train env=pick_cube reward_model=[env,remote] \\
                reward_model.remote.url=ws://127.0.0.1:8765         another process judges

            host=127.0.0.1 port=8765 token_env=EMBODIED_TOKEN token_file= cert= key= rate=1000
            connections=8 idle_s=300 most_worlds=1024 trust_pickle=false
            A host that other machines reach needs both a token of 16 characters or more, in a file
            or in an environment variable (clients have it in theirs), and TLS: cert=FILE key=FILE.
            It serves until Ctrl-C."""),
        ("--config-dir",),
    ),
    "bench": Verb(
        _bench,
        "Measure where the time of a run goes: physics, observing, rewards, acting, learning.",
        "bench [KEY=VALUE ...] [--config-dir DIR]",
        textwrap.dedent("""\
            embodied bench env=pick_cube num_envs=512
            embodied bench env=half_cheetah agent=sac updates=200

            Keys are those of `embodied train`; updates=20 rollouts and updates are measured."""),
        ("--config-dir",),
    ),
    "list": Verb(
        _list,
        "List what there is to choose from.",
        "list [env|agent|reward_model|robot|sim|transport] [--config-dir DIR]",
        "embodied list env",
        ("--config-dir",),
    ),
    "doctor": Verb(
        _doctor,
        "Say what is installed, what is missing and how to get it.",
        "doctor",
        "Exit code 1 if something essential is missing.",
    ),
    "demo": Verb(
        _demo,
        "Train a policy on a real task in a few minutes and show the result.",
        "demo [KEY=VALUE ...]",
        "embodied demo",
    ),
}


def _help() -> str:
    lines = [
        "usage: embodied VERB ...",
        "",
        "A workbench for the reward side of robot learning.",
        "",
        *(f"  {name:<13}{verb.summary}" for name, verb in VERBS.items()),
        "",
        "  embodied VERB --help    how it is used",
        "  embodied --version      which one this is",
        "",
        "Start with `embodied doctor`, `embodied demo`, or",
        "  embodied train env=half_cheetah",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
