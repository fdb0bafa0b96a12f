"""Clients that people use, against a server that runs; each prints what it got.

    linn serve tiny --port 8123 &
    python -m bench.clients http://127.0.0.1:8123/v1#tiny
    python -m bench.clients http://127.0.0.1:8123/v1#tiny --only hostile --pid PID

`openai`, `lm_eval`, `inspect` and `mini_swe_agent` need the package of that name (`pip install
openai 'lm-eval[api]' inspect-ai mini-swe-agent`), best in a folder or an environment of their own;
`hostile` needs nothing. With `--pid`, the hostile client tells the memory of that process and of
those behind it.
"""

from __future__ import annotations

import argparse
import importlib

_NAMES = ("openai", "lm_eval", "inspect", "mini_swe_agent", "hostile")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("server", metavar="URL#MODEL")
    parser.add_argument("--only", nargs="+", choices=_NAMES, default=_NAMES)
    parser.add_argument("--pid", type=int, help="the server, whose memory is told")
    given = parser.parse_args()
    url, _, model = given.server.partition("#")
    for name in given.only:
        print(f"--- {name}", flush=True)
        try:
            client = importlib.import_module(f"bench.clients.with_{name}")
        except ModuleNotFoundError as error:
            print(f"not here: no module {error.name}")
            continue
        if name == "hostile":
            client.talk(url, model, given.pid)
        else:
            client.talk(url, model)


if __name__ == "__main__":
    main()
