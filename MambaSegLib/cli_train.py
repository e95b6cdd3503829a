"""``mambaseg train`` and ``mambaseg finetune``."""

import argparse
import os
import re

from .terminal import duration, print_json, run_job, table
from .wording import counted

OVERNIGHT_S = 8 * 3600
_SECONDS = {"s": 1, "m": 60, "min": 60, "h": 3600}


def add_to(commands, machine: argparse.ArgumentParser) -> None:
    """Both commands; ``machine`` has the options that every command shares."""
    train = commands.add_parser("train", parents=[machine], help="train a network")
    train.add_argument("config", metavar="CONFIG.json", help="what to train on what; see the recipes of the training")
    train.add_argument("-o", "--output", required=True, help="folder for the checkpoint and the new model")
    train.add_argument("--resume", action="store_true", help="go on from the checkpoint in the output folder")
    train.add_argument(
        "--distributed",
        action="store_true",
        help="one of several processes that torchrun started: torchrun --nproc-per-node N -m MambaSegLib.cli train "
        "CONFIG.json -o FOLDER --distributed (several machines: also --nnodes, --node-rank, --master-addr)",
    )
    train.set_defaults(command=_train)
    _add_finetune(commands.add_parser("finetune", parents=[machine], help="teach a model from a few labelled cases"))


def _add_finetune(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="id of a model or its folder")
    parser.add_argument("data", metavar="DATA", nargs="+", help="folders with labelled or corrected cases")
    parser.add_argument("--budget", type=budget, default="10m", help="90s, 10m, 2h or overnight (default: 10m)")
    parser.add_argument("--method", default="auto", help="auto, all, decoder or adapters (default: auto)")
    parser.add_argument("--add", action="append", metavar="NAME", help="a structure that the model does not have yet")
    parser.add_argument("--rename", action="append", type=_pair, metavar="OLD=NEW", help="a structure's new name")
    parser.add_argument("--merge", action="append", type=_pair, metavar="A,B=NEW", help="structures that become one")
    parser.add_argument("--remove", action="append", metavar="NAME", help="a structure that becomes background")
    parser.add_argument("--replay", action="append", metavar="DATA", help="folder with the model's own training cases")
    parser.add_argument("-o", "--output", help="folder of models for the result (default: yours)")
    parser.add_argument("--resume", action="store_true", help="go on with this model's last fine-tuning")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 or mps (default: auto)")
    parser.set_defaults(command=_finetune)


def budget(text: str) -> float:
    if text == "overnight":
        return OVERNIGHT_S
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(s|m|min|h)", text)
    if not match:
        raise argparse.ArgumentTypeError(f"expected a time such as 90s, 10m, 2h or overnight, got '{text}'")
    return float(match[1]) * _SECONDS[match[2]]


def _pair(text: str) -> tuple[str, str]:
    old, equals, new = (part.strip() for part in text.partition("="))
    if not (old and equals and new):
        raise argparse.ArgumentTypeError(f"expected OLD=NEW, got '{text}'")
    return old, new


def _train(options: argparse.Namespace) -> None:
    request = {name: getattr(options, name) for name in ("config", "output", "resume", "distributed")}
    result = run_job("train", request, options.verbose)
    if options.distributed and os.environ.get("RANK", "0") != "0":
        return
    if options.json:
        print_json(result)
    else:
        print(f"New model in {result['bundle']} after {duration(result['time_s'])}.")


def _finetune(options: argparse.Namespace) -> None:
    request = {
        "model": options.model,
        "data": options.data,
        "budget_s": options.budget,
        "method": options.method,
        "structures_added": options.add,
        "structures_renamed": dict(options.rename or []),
        "structures_merged": {new: [n.strip() for n in old.split(",")] for old, new in options.merge or []},
        "structures_removed": options.remove,
        "replay": options.replay,
        "output": options.output,
        "resume": options.resume,
        "seed": options.seed,
        "device": options.device,
    }
    result = run_job("finetune", {k: v for k, v in request.items() if v not in (None, {})}, options.verbose)
    if options.json:
        print_json(result)
        return
    decision = result["decision"]
    if decision["rows"]:
        heads = ["Structure", "Cases", "Dice before", "after", "Difference", "95 % interval"]
        print(table(heads, [_judged(row) for row in decision["rows"]]))
    print("\n" + "\n".join(decision["reasons"]))
    where = "is in use now" if result["promoted"] else "is kept, not in use"
    effort = f"{counted(result['steps'], 'step')}, {duration(result['time_s'])}"
    print(f"\nThe new model {where}: {result['candidate']} ({effort}).")


def _judged(row: dict) -> list:
    """A structure of the gate's decision; a difference is small, so three decimals."""
    if row["difference"] is None:
        return [row["structure"], row["cases"], "", "", "", ""]
    before, after = ("" if row[key] is None else f"{row[key]:.3f}" for key in ("dice_before", "dice_after"))
    interval = f"{row['low']:+.3f} to {row['high']:+.3f}"
    return [row["structure"], row["cases"], before, after, f"{row['difference']:+.3f}", interval]
