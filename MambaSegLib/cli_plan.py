"""``mambaseg plan``: look at a data set, measure this machine, write a configuration for ``mambaseg train``."""

import argparse

from .cli_train import budget
from .terminal import duration, print_json, run_job
from .wording import counted


def add_to(commands, machine: argparse.ArgumentParser) -> None:
    """Add the command to the parser's `commands`; `machine` has the options that every command shares."""
    parser = commands.add_parser("plan", parents=[machine], help="make a training configuration for a data set")
    parser.add_argument("data", metavar="DATA", help="folder or table with labelled cases")
    parser.add_argument(
        "--budget", type=budget, default="10m", help="of the training: 90s, 10m, 2h or overnight (default: 10m)"
    )
    parser.add_argument("-o", "--output", metavar="plan.json", help="file to write (default: print the plan)")
    parser.add_argument("--id", help="of the model to come (default: the folder's name)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 or mps (default: auto)")
    parser.set_defaults(command=_plan)


def _plan(options: argparse.Namespace) -> None:
    request = {"data": options.data, "budget_s": options.budget, "device": options.device}
    request |= {key: getattr(options, key) for key in ("output", "id") if getattr(options, key)}
    result = run_job("plan", request, options.verbose)
    if options.json:
        print_json(result)
        return
    if not result["output"]:
        print_json(result["config"])
        return
    config = result["config"]
    print(config["about"])
    print(
        f"\nWritten to {result['output']}: {config['network']}, {counted(config['steps'], 'step')}, "
        f"{duration(result['time_s'])}."
    )
    print(f"Read it, then: mambaseg train {result['output']} -o RUN_FOLDER")
