"""A served policy acts as it would at home, and the server outlives whatever it is sent."""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from embodied.agents.remote import RemotePolicy
from websockets.exceptions import ConnectionClosed, InvalidStatus

from embodied.actor import InBlocks
from embodied.build import make_env
from embodied.errors import UserError
from embodied.evaluate import run_episodes
from embodied.packets import MOST_BYTES
from embodied.remote import RemoteFault
from embodied.run import load_policy, open_run
from embodied.serve import find_addresses, read_tls, read_token, serve
from embodied.served import ServedPolicy
from embodied.server import Server
from embodied.server_limits import Limits
from embodied.train import train
from tests.servers import Raw, certificate, serving
from tests.test_packets import DECLARED, LYING, SHAPES, mutations
from tests.toys import Wander, reach

SMALL = [
    "~tuned", "env=hopper", "num_envs=4", "agent.rollout_steps=8", "agent.hidden=[8]",
    "agent.compile=false", "tensorboard=false", "video=false", "total_steps=32",
]  # fmt: skip
TOKEN = "a token that nobody guesses"


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("embodied.server.CLOSE_S", 0.05)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train([*SMALL, f"run_dir={tmp_path_factory.mktemp('runs')}/run"])


@pytest.fixture
def server() -> Iterator[Server]:
    """A server that has to answer still when the test is over."""
    with serving() as server:
        yield server
        obs = {"state": np.zeros((2, 4))}
        policy = RemotePolicy(server.url, 10.0)
        assert policy.act(policy.carry(2), obs)[1].shape == (2, 2)
        policy.link.close()


def act(worlds: int = 2, **more: Any) -> dict[str, Any]:
    obs = {"state": np.full((worlds, 4), 0.25)}
    carry = {"count": np.zeros(worlds, np.int64)}
    return {"op": "act", "id": 1, "obs": obs, "carry": carry, "greedy": True, **more}


# --- a policy acts as at home


def test_a_policy_with_a_memory_acts_as_at_home_through_resets() -> None:
    env = reach(5, ends=True, max_steps=6)
    home = Wander(env)
    with serving(env=reach(1)) as server:
        away = RemotePolicy(server.url, 10.0)
        away.check(env.observation_space, env.action_spec)
        obs, rng = env.reset(seed=3), np.random.default_rng(0)
        carries = [policy.carry(5) for policy in (home, away)]
        for _ in range(25):
            acted = [p.act(c, obs) for p, c in zip((home, away), carries, strict=True)]
            (carries[0], ours), (carries[1], theirs) = acted
            assert ours.dtype == theirs.dtype and ours.tobytes() == theirs.tobytes()
            done = env.step(ours).done | (rng.random(5) < 0.1)
            obs = env.reset(done)
            for carry, policy in zip(carries, (home, away), strict=True):
                for name, value in carry.items():
                    value[done] = policy.carry(5)[name][done]
            assert (carries[0]["count"] == carries[1]["count"]).all()


@pytest.mark.parametrize("num_worlds", [1, 3, 20])
def test_episodes_are_the_same_to_the_last_bit(num_worlds: int) -> None:
    def rows(policy: Any) -> list[Any]:
        env = reach(num_worlds, max_steps=7)
        found = run_episodes(env, InBlocks(policy), range(40, 45))
        return sorted(found, key=lambda row: row["seed"])

    with serving() as server:
        assert rows(RemotePolicy(server.url, 10.0)) == rows(Wander(reach(1)))


@pytest.mark.parametrize("greedy", [True, False])
def test_a_trained_policy_acts_as_at_home(trained: Path, greedy: bool) -> None:
    run = open_run(trained)
    env = make_env(run.cfg, num_envs=3)
    home, there = load_policy(run, env), load_policy(run, env)
    with Server(ServedPolicy(there, env.observation_space, "run", "0", 8)) as server:
        away = RemotePolicy(server.url, 10.0)
        away.check(env.observation_space, env.action_spec)
        obs = env.reset(seed=1)
        for _ in range(5):
            ours, theirs = home.act({}, obs, greedy)[1], away.act({}, obs, greedy)[1]
            assert ours.tobytes() == theirs.tobytes()
            obs = env.step(ours).obs


def test_the_server_can_keep_the_memory(server: Server) -> None:
    env = reach(3)
    home, carry = Wander(env), {"count": np.zeros(3, np.int64)}
    request = {key: value for key, value in act(3).items() if key != "carry"}
    with Raw(server.url) as raw, Raw(server.url) as other:
        assert raw.ask(request)["error"] == "unknown_session"
        for step in range(6):
            reset = np.array([step in (0, 4), step == 0, step in (0, 2)])
            carry["count"][reset] = 0
            carry, ours = home.act(carry, request["obs"])
            told = raw.ask({**request, "reset": reset})
            assert told.keys() == {"id", "action"}
            assert told["action"].tobytes() == ours.tobytes()
            if step == 2:  # another's memory is another
                other.ask({**request, "reset": np.ones(3, bool)})
        more = {**request, "obs": {"state": np.zeros((4, 4))}}
        assert raw.ask(more)["error"] == "unknown_session"
        assert "action" in raw.ask({**more, "reset": np.ones(4, bool)})


def test_a_policy_of_other_worlds_lists_what_differs() -> None:
    with serving() as server:
        away = RemotePolicy(server.url, 10.0)
        other = reach(1, dims=3)
        with pytest.raises(UserError) as caught:
            away.check(other.observation_space, other.action_spec)
    text = str(caught.value)
    assert "observation state: [6] float64 here, [4] float64 there" in text
    assert "action names" in text and "\n" not in text


# --- who may come


def test_a_token_is_wanted_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(token=TOKEN) as server:
        for given in ("", TOKEN[:-1], TOKEN + "x", "wrong"):
            monkeypatch.setenv("EMBODIED_TOKEN", given)
            with pytest.raises(UserError, match="http_401"):
                RemotePolicy(server.url, 10.0)
        for headers in ({}, {"Authorization": TOKEN}, {"Authorization": "Bearer \u00e9"}):
            with pytest.raises(InvalidStatus):
                Raw(server.url, additional_headers=headers)
        monkeypatch.setenv("EMBODIED_TOKEN", TOKEN)
        assert RemotePolicy(server.url, 10.0).act(act()["carry"], act()["obs"])[1].shape == (2, 2)
        assert server.counts["unauthorised"] == 7


def test_tls_works_with_a_certificate_that_is_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cert, key = certificate(tmp_path)
    monkeypatch.setenv("EMBODIED_TOKEN", TOKEN)
    with serving(tls=read_tls(cert, key), token=TOKEN) as server:
        assert server.url.startswith("wss://")
        policy = RemotePolicy(server.url, 10.0, ca=cert)
        large = {"state": np.zeros((60, 4))}
        assert policy.act(policy.carry(60), large)[1].shape == (60, 2)
        with pytest.raises(UserError, match="certificate"):
            RemotePolicy(server.url, 10.0)
        with pytest.raises(RemoteFault):
            RemotePolicy(server.url.replace("wss", "ws"), 10.0)
        policy.link.close()
        assert policy.act(policy.carry(60), large)[1].shape == (60, 2)


def test_a_page_in_a_browser_is_refused(server: Server) -> None:
    for origin in ("http://127.0.0.1:8765", "https://example.org", "null"):
        with pytest.raises(InvalidStatus):
            Raw(server.url, origin=origin)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1"])
def test_other_machines_need_a_token_and_tls(
    host: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cert, key = certificate(tmp_path)
    (tmp_path / "token").write_text(TOKEN)
    token, tls = f"token_file={tmp_path}/token", [f"cert={cert}", f"key={key}"]
    monkeypatch.delenv("EMBODIED_TOKEN", raising=False)
    for given in ([], [token], tls):
        with pytest.raises(UserError, match="open to other machines"):
            serve("nowhere", [f"host={host}", *given])
    with pytest.raises(UserError, match="no run at nowhere"):  # past that
        serve("nowhere", [f"host={host}", token, *tls])
    with pytest.raises(UserError, match="need a token and TLS"):
        with serving(addresses=["127.0.0.1", host], token=TOKEN):
            pass


def test_this_machine_alone_is_served_by_default() -> None:
    assert find_addresses("127.0.0.1", False) == ["127.0.0.1"]
    assert set(find_addresses("localhost", False)) <= {"127.0.0.1", "::1"}
    with pytest.raises(UserError, match="host="):
        find_addresses("no.such.host.invalid", True)


BAD = {
    "short token": (["token_file=short"], "16 plain characters"),
    "empty token": (["token_file=empty"], "16 plain characters"),
    "no token file": (["token_file=missing"], "give a file with a token"),
    "no token variable": (["token_env=NO_SUCH_VARIABLE"], "no such environment variable"),
    "token on the command line": (["token=abc"], "unknown key 'token'"),
    "cert alone": (["cert=short"], "both cert=FILE and key=FILE"),
    "no certificate": (["cert=short", "key=short"], "not a certificate"),
    "no port": (["port=0"], "port=0"),
    "no run": ([], "no run at nowhere"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_line(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("EMBODIED_TOKEN", raising=False)
    (tmp_path / "short").write_text("secret")
    (tmp_path / "empty").write_text("\n")
    arguments, message = BAD[name]
    with pytest.raises(UserError) as caught:
        serve("nowhere", arguments)
    assert message in str(caught.value) and "secret" not in str(caught.value)


@pytest.mark.parametrize("who", ["expert", "random"])
def test_only_what_learned_to_act_is_served(who: str) -> None:
    with pytest.raises(UserError, match="serve a run directory"):
        serve(who, ["env=line_reach", "sim.threads=1"])


def test_one_reward_model_is_served() -> None:
    with pytest.raises(UserError, match="one reward model"):
        serve(None, ["env=line_reach", "reward_model=[env,clock]"])
    with pytest.raises(UserError, match="untrained"):
        serve(None, ["env=line_reach", "reward_model=stage_aware", "sim.threads=1"])


def test_a_token_comes_from_a_file_or_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    assert read_token("EMBODIED_TOKEN", str(tmp_path / "token")) == TOKEN
    monkeypatch.setenv("MY_TOKEN", f" {TOKEN}")
    assert read_token("MY_TOKEN", None) == TOKEN
    monkeypatch.delenv("EMBODIED_TOKEN", raising=False)
    assert read_token("EMBODIED_TOKEN", None) == ""


# --- what they may ask


def test_malformed_packets_are_refused_by_name(server: Server) -> None:
    packets = [*LYING, *DECLARED, *SHAPES, *mutations(500)]
    with Raw(server.url) as raw:
        for packet in packets:
            raw.send(packet)
            told = raw.hear()
            assert told["error"] in ("bad_packet", "late"), told
            assert len(told.get("why", "")) <= 200
    assert server.counts["bad_packet"] > 500 and not server.counts["failed"]


REQUESTS: dict[str, dict[str, Any]] = {
    "no op": {"op": None},
    "unknown op": {"op": "__class__"},
    "no obs": {"obs": None},
    "obs of other keys": {"obs": {"state": np.zeros((2, 4)), "more": np.zeros((2, 1))}},
    "obs of another shape": {"obs": {"state": np.zeros((2, 5))}},
    "obs of one world": {"obs": {"state": np.zeros(4)}},
    "obs of no world": {"obs": {"state": np.zeros((0, 4))}},
    "obs of another dtype": {"obs": {"state": np.zeros((2, 4), np.int64)}},
    "obs in words": {"obs": {"state": ["left", "right"]}},
    "no carry": {"carry": None},
    "carry of other keys": {"carry": {}},
    "carry of another shape": {"carry": {"count": np.zeros(3, np.int64)}},
    "carry of another dtype": {"carry": {"count": np.zeros(2, np.int32)}},
    "greedy in words": {"greedy": "yes"},
    "id in words": {"id": "first"},
    "deadline in words": {"deadline_ms": "soon"},
    "worlds in words": {"op": "carry", "worlds": "all"},
    "worlds below one": {"op": "carry", "worlds": 0},
    "worlds yes": {"op": "carry", "worlds": True},
}


def test_requests_that_do_not_fit_are_refused_by_name(server: Server) -> None:
    with Raw(server.url) as raw:
        for name, wrong in REQUESTS.items():
            told = raw.ask({**act(), **wrong})
            assert told["error"] == "bad_packet" and told["why"], name
        assert raw.ask(act(65))["error"] == "too_large"
        assert raw.ask({"op": "carry", "worlds": 65})["error"] == "too_large"
        assert raw.ask("text")["error"] == "bad_packet"
        assert raw.ask(b"")["error"] == "bad_packet"
        assert "action" in raw.ask(act(64))
        single = {"state": np.full((2, 4), 0.25, np.float32)}
        assert "action" in raw.ask(act(obs=single))  # any float will do
    assert not server.counts["failed"]


def test_a_message_that_is_too_large_ends_its_connection_alone(server: Server) -> None:
    with Raw(server.url) as good, Raw(server.url) as bad:
        with pytest.raises(ConnectionClosed) as caught:
            bad.send(bytes(MOST_BYTES + 1))
            bad.hear()
        assert caught.value.rcvd is not None and caught.value.rcvd.code == 1009
        assert "action" in good.ask(act())
    assert server.counts["too_large"] == 1


def test_who_asks_too_fast_is_told() -> None:
    with serving(limits=Limits(rate=3.0)) as server, Raw(server.url) as raw:
        for _ in range(12):
            raw.send(act())
        told = [raw.hear() for _ in range(12)]
        assert sum(message.get("error") == "too_fast" for message in told) >= 5
        assert sum("action" in message for message in told) >= 3
        assert server.counts["too_fast"] >= 5


def test_more_connections_than_there_may_be_are_refused() -> None:
    limits = Limits(rate=1e6, connections=2)
    with serving(limits=limits) as server, Raw(server.url) as first:
        with Raw(server.url):
            with pytest.raises(InvalidStatus):
                Raw(server.url)
            with pytest.raises(UserError, match="http_503"):
                RemotePolicy(server.url, 0.2)
            assert "action" in first.ask(act())
        assert RemotePolicy(server.url, 10.0).act(act()["carry"], act()["obs"])[1].shape == (2, 2)


def test_sockets_that_shake_no_hands_are_few_and_soon_closed() -> None:
    limits = Limits(rate=1e6, connections=1, handshake_s=0.5)  # 20 sockets
    with serving(limits=limits) as server:
        waiting = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(40)]
        for sock in waiting:
            sock.settimeout(20.0)
            with suppress(ConnectionResetError):
                assert sock.recv(1) == b""
        assert RemotePolicy(server.url, 10.0).act(act()["carry"], act()["obs"])[1].shape == (2, 2)


def test_a_connection_on_which_nothing_is_asked_is_closed_and_made_anew() -> None:
    with serving(limits=Limits(rate=1e6, idle_s=0.2)) as server:
        policy = RemotePolicy(server.url, 10.0)
        with Raw(server.url) as raw:
            with pytest.raises(ConnectionClosed) as caught:
                raw.hear()
            assert caught.value.rcvd is not None and caught.value.rcvd.code == 1001
        while server.counts["idle"] < 2:
            time.sleep(0.01)
        assert policy.act(act()["carry"], act()["obs"])[1].shape == (2, 2)
        assert policy.link.counts["connections"] == 2


class Held(Wander):
    """A policy that acts once it is let, and fails where it is told to."""

    def __init__(self, env: Any) -> None:
        super().__init__(env)
        self.let, self.begun, self.fails = threading.Event(), threading.Event(), False
        self.acted = 0

    def act(self, carry: Any, obs: Any, greedy: bool = False) -> Any:
        self.begun.set()
        assert self.let.wait(20.0)
        self.acted += 1
        if self.fails:
            raise OSError("no such file: /home/somebody/secret.txt")
        return super().act(carry, obs, greedy)


@pytest.fixture
def held() -> Iterator[tuple[Held, Server]]:
    policy = Held(reach(1))
    with serving(policy) as server:
        yield policy, server
        policy.let.set()


def test_pings_are_answered_while_the_policy_thinks(held: tuple[Held, Server]) -> None:
    policy, server = held
    with Raw(server.url) as raw:
        raw.send(act())
        assert policy.begun.wait(20.0)
        assert raw.socket.ping().wait(20.0)
        policy.let.set()
        assert "action" in raw.hear()


def test_what_waited_too_long_is_not_done(held: tuple[Held, Server]) -> None:
    policy, server = held
    with Raw(server.url) as first, Raw(server.url) as second:
        first.send(act())
        assert policy.begun.wait(20.0)
        second.send(act(id=7, deadline_ms=1.0))
        second.send(act(id=8, deadline_ms=1e6))
        time.sleep(0.1)
        policy.let.set()
        assert "action" in first.hear()
        assert second.hear() == {"id": 7, "error": "late"}
        assert "action" in second.hear()
        assert policy.acted == 2


def test_one_connection_has_few_requests_waiting(held: tuple[Held, Server]) -> None:
    policy, server = held
    with Raw(server.url) as raw:
        for number in range(5):
            raw.send(act(id=number))
        assert [raw.hear()["error"] for _ in range(3)] == ["busy"] * 3
        policy.let.set()
        assert [raw.hear()["id"] for _ in range(2)] == [0, 1]
        assert server.counts["busy"] == 3


def test_a_failure_is_told_here_and_to_nobody_else(
    held: tuple[Held, Server], caplog: pytest.LogCaptureFixture
) -> None:
    policy, server = held
    policy.let.set()
    policy.fails = True
    with caplog.at_level(logging.ERROR), Raw(server.url) as raw:
        assert raw.ask(act()) == {"id": 1, "error": "failed"}
        policy.fails = False
        assert "action" in raw.ask(act())
    assert "secret.txt" in caplog.text and "Traceback" in caplog.text
    assert server.counts["failed"] == 1


def test_a_client_that_hangs_up_leaves_the_others_alone(held: tuple[Held, Server]) -> None:
    policy, server = held
    with Raw(server.url) as gone, Raw(server.url) as stays:
        gone.send(act())
        assert policy.begun.wait(20.0)
        gone.send(act())
        stays.send(act())
        gone.socket.socket.shutdown(socket.SHUT_RDWR)
        time.sleep(0.1)
        policy.let.set()
        assert "action" in stays.hear()


def test_garbage_instead_of_a_handshake_is_survived(server: Server) -> None:
    for garbage in (
        b"\x16\x03\x01\x02\x00",
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x00" * 5000,
        b"A" * 99999,
    ):
        with socket.create_connection(("127.0.0.1", server.port), timeout=20.0) as sock:
            sock.sendall(garbage)
            sock.shutdown(socket.SHUT_WR)
            while sock.recv(4096):
                pass


def test_an_address_that_is_taken_is_the_users_to_fix() -> None:
    with serving() as server:
        with pytest.raises(UserError, match="cannot serve at 127.0.0.1"):
            with serving(port=server.port):
                pass


# --- the verb


@pytest.mark.parametrize(("how", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 0)])
def test_the_verb_serves_until_it_is_stopped(trained: Path, how: signal.Signals, code: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "embodied", "serve", str(trained), f"port={port}"]
    environment = {key: value for key, value in os.environ.items() if key != "EMBODIED_TOKEN"}
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )
    assert process.stdout is not None and process.stderr is not None
    try:
        lines = [process.stdout.readline() for _ in range(4)]
        assert "step_000000000032@" in lines[0] and "env=hopper" in lines[0]
        assert lines[2].split() == ["at", f"ws://127.0.0.1:{port}"]
        run = open_run(trained)
        env = make_env(run.cfg, num_envs=2)
        policy = RemotePolicy(f"ws://127.0.0.1:{port}", 20.0)
        assert policy.name in lines[0]
        obs = env.reset(seed=0)
        ours = load_policy(run, env).act({}, obs, greedy=True)[1]
        assert policy.act({}, obs, greedy=True)[1].tobytes() == ours.tobytes()
        process.send_signal(how)
        assert process.wait(20.0) == code
        told = process.stderr.read()
        assert "1 answers" in told and "Traceback" not in told
        assert ("stopped" in told) is (how is signal.SIGINT)
    finally:
        process.kill()
        process.wait()
