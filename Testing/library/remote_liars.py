"""Programs in the place of another computer's worker that answer wrongly: python remote_liars.py NAME"""

import base64
import hashlib
import json
import sys

from MambaSegLib import __version__

PIECE = b"labels"
GOOD = {"name": "output", "data": base64.b64encode(PIECE).decode(), "sha256": hashlib.sha256(PIECE).hexdigest()}
PIECES = {
    "other file": [GOOD | {"name": "../../evil.nrrd"}],
    "file twice": [GOOD, GOOD],
    "damaged": [GOOD | {"sha256": "0" * 64}],
    "no base64": [GOOD | {"data": "?"}],
    "unfinished": [GOOD | {"sha256": ""}],
    "no file": [],
}


def say(**event) -> None:
    print(json.dumps(event), flush=True)


def main(name: str) -> None:
    version = "9.9.9" if name == "other version" else __version__
    print("Welcome to the machine\x1b[2J", flush=True)
    say(id=None, event="ready", pid=1, version=version, python="3.11")
    for line in filter(str.strip, sys.stdin):
        request = json.loads(line)
        answer, job = {"id": request["id"], "event": "finished"}, request["job"]
        if job == "check":
            say(**answer, result={"missing": list(request["params"]["units"]), "folder": "/there/"})
        elif job == "receive":
            say(**answer, result={})
        elif name == "line without end":
            while True:
                sys.stdout.write("x" * 65536)
        elif name == "no event":
            print("Segmentation fault", flush=True)
        elif name == "other question":
            say(**answer | {"id": "77"}, result={})
        else:
            say(id=request["id"], event="message", level="info", text="\x1b]0;owned\x07 hello")
            for piece in PIECES.get(name, [GOOD]):
                say(id=request["id"], event="piece", **piece)
            say(**answer, result={"output": "/etc/passwd", "name": "\x1b[31mred", "warnings": ["/there/a is odd"]})


if __name__ == "__main__":
    main(sys.argv[1])
