"""`embodied serve`: a trained policy, or a reward model, behind a websocket."""

from __future__ import annotations

import ipaddress
import os
import socket
import ssl
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from embodied.actor import InBlocks, find_actor
from embodied.arguments import settings
from embodied.build import make_env, make_reward_model
from embodied.config import compose_config
from embodied.errors import UserError
from embodied.gate import audit_of, fingerprint
from embodied.remote import TOKEN_ENV
from embodied.served import Served, ServedPolicy, ServedReward
from embodied.server import Server
from embodied.server_limits import Limits

DEFAULTS = {
    "host": "127.0.0.1",
    "port": 8765,
    "token_env": TOKEN_ENV,
    "token_file": str,
    "cert": str,
    "key": str,
    "rate": 1000.0,
    "connections": 8,
    "idle_s": 300.0,
    "most_worlds": 1024,
    "trust_pickle": False,
}
SHORTEST_TOKEN = 16


def serve(
    who: str | None, arguments: Sequence[str] = (), config_dir: str | Path | None = None
) -> int:
    """Serve the policy of the run `who`, or (None) the one configured reward model, until Ctrl-C or
    SIGTERM.

    Raises `UserError` for bad input, above all for an address that other machines reach without
    a token and TLS, before anything is loaded.
    """
    wanted, overrides = settings(arguments, DEFAULTS, extra=("reward_model",))
    token = read_token(wanted["token_env"], wanted["token_file"])
    tls = read_tls(wanted["cert"], wanted["key"])
    addresses = find_addresses(wanted["host"], bool(token and tls))
    if who is not None:
        served, what = _policy(who, overrides, wanted, config_dir)
    else:
        served, what = _reward(overrides, config_dir)
    limits = Limits(wanted["rate"], wanted["connections"], idle_s=wanted["idle_s"])
    server = Server(served, addresses, wanted["port"], token, tls, limits)
    try:
        server.run(lambda: _say(server, what))
    finally:
        print(_account(server), file=sys.stderr, flush=True)
    return 0


def _say(server: Server, what: str) -> None:
    hello = server.served.hello
    print(f"serving {what}\n  hash   {hello['hash']}\n  at     {server.url}", flush=True)
    if not server.token:
        print("  token  none: every program on this machine may ask", flush=True)


def _account(server: Server) -> str:
    counts = ", ".join(f"{count} {name}" for name, count in sorted(server.counts.items()))
    return f"served: {counts or 'nothing'}"


def _policy(
    who: str, overrides: list[str], wanted: dict[str, Any], config_dir: str | Path | None
) -> tuple[Served, str]:
    actor = find_actor(who, overrides, wanted["trust_pickle"])
    env = make_env(actor.worlds(overrides, config_dir), num_envs=1)
    policy = actor.policy(env)
    if not isinstance(policy, InBlocks):
        raise UserError(f"{who}: serve a run directory or a model.zip: only they learned to act")
    name, digest = actor.name, actor.name.partition("@")[2]
    served = ServedPolicy(policy.policy, env.observation_space, name, digest, wanted["most_worlds"])
    env.close()
    return served, f"the policy {name}, of env={env.name}"


def _reward(overrides: list[str], config_dir: str | Path | None) -> tuple[Served, str]:
    cfg = compose_config(overrides, config_dir=config_dir)
    names = list(cfg.get("reward_model") or {})
    if len(names) != 1:
        raise UserError(
            f"serve takes one reward model, not {names}: embodied serve RUN, or "
            "embodied serve reward_model=NAME env=NAME reward_model.NAME.path=FOLDER"
        )
    name, node = names[0], cfg.reward_model[names[0]]
    if "task" not in cfg.env and "world" in (cfg.env.get("stepper") or {}):
        raise UserError(f"reward_model={name}: rewards of worlds of text are not served")
    env = make_env(cfg, num_envs=1)
    try:
        model = make_reward_model(cfg, env, name)
        served = ServedReward(model, env.observation_space, name, fingerprint(model, node))
        what = f"reward_model={name}, for env={env.name}"
        if getattr(model, "learned", False):
            what += f", audit: {audit_of(model, node, env.name)[0]}"
    finally:
        env.close()
    return served, what


def read_token(variable: str | None, file: str | None) -> str:
    """The token that clients must have: of a file, or of an environment variable; "": none.

    Raises `UserError` for one that is missing though it was asked for, or easily guessed.
    """
    if file is not None:
        try:
            token, where = Path(file).read_text().strip(), f"token_file={file}"
        except (OSError, ValueError) as error:
            raise UserError(f"token_file={file}: give a file with a token") from error
    else:
        token, where = os.environ.get(variable or "", "").strip(), f"token_env={variable}"
        if not token and variable not in (None, TOKEN_ENV):
            raise UserError(f"{where}: no such environment variable")
    plain = token.isascii() and token.isprintable()
    if (token or file) and (len(token) < SHORTEST_TOKEN or not plain):
        raise UserError(f"{where}: give {SHORTEST_TOKEN} plain characters or more, at random")
    return token


def read_tls(cert: str | None, key: str | None) -> ssl.SSLContext | None:
    """TLS with a certificate and its key, two files; None without them. Raises `UserError`."""
    if cert is None and key is None:
        return None
    if cert is None or key is None:
        raise UserError("TLS takes both cert=FILE and key=FILE")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(cert, key, password=lambda: "")
    except (OSError, ValueError) as error:
        raise UserError(
            f"cert={cert} key={key}: not a certificate and its key ({error})"
        ) from error
    return context


def find_addresses(host: str | None, guarded: bool) -> list[str]:
    """The addresses of `host`. Raises `UserError` where others than this machine reach one of them,
    unless it is `guarded` by both a token and TLS."""
    if host is None:
        raise UserError("host=: give an address of this machine, as 127.0.0.1")
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise UserError(f"host={host}: {error}") from error
    addresses = list(dict.fromkeys(str(row[4][0]) for row in found))
    own = all(ipaddress.ip_address(a.partition("%")[0]).is_loopback for a in addresses)
    if not own and not guarded:
        raise UserError(
            f"host={host} is open to other machines: give a token (token_env= or token_file=) and "
            "TLS (cert=FILE key=FILE), or serve at 127.0.0.1 and let them come through ssh -L"
        )
    return addresses
