"""The other process: sends every message that comes back, until its standard input ends."""

from __future__ import annotations

import json
import select
import sys

from hydra.utils import get_object

from tests.envs.ros.kinds import ALL, slug


def main() -> None:
    given = json.loads(sys.argv[1])
    end = get_object(given.pop("_target_"))(**given)
    for kind in ALL:
        end.advertise(f"/back/{slug(kind)}", kind)
        end.subscribe(f"/there/{slug(kind)}", kind)
    print("ready", flush=True)
    while not select.select([sys.stdin], [], [], 0.001)[0]:
        for came in end.take():
            end.publish(came.topic.replace("/there/", "/back/"), came.message)
    end.close()


if __name__ == "__main__":
    main()
