"""``mambaseg import``: other people's weights as a model of one's own."""

import argparse
from pathlib import Path

from .catalogue import user_folder
from .terminal import print_json, run_job

TEXT = """\
Weights are read from .safetensors, .pth and .pt: a plain state dict, or one under state_dict, model, network_weights.
A folder trained by nnU-Net (plans.json, dataset.json, fold_0/checkpoint_final.pth; trainers of U-Mamba, Swin-UMamba,
LightM-UNet, UMambaAdj, U-Mamba2 and nnU-Net's own) brings voxel size, normalisation, patch and structures with it;
other files need --settings. All weights must find their place, or nothing is imported.
"""


def add_to(commands, machine: argparse.ArgumentParser) -> None:
    """Add the command.

    Args:
        commands: where argparse keeps them.
        machine: parent with the options that all commands have.
    """
    parser = commands.add_parser(
        "import", parents=[machine], help="make a model of authors' weights or a folder of nnU-Net", description=TEXT
    )
    parser.add_argument("checkpoint", metavar="CHECKPOINT_OR_FOLDER")
    parser.add_argument("-o", "--output", metavar="FOLDER", help=f"folder of models (default: {user_folder()})")
    parser.add_argument("--trust", action="store_true", help="the file is a pickle, and you trust where it comes from")
    parser.add_argument("--network", metavar="NAME", help="of 'mambaseg networks' (default: told by the weights)")
    parser.add_argument("--labels", metavar="A,B", type=_names, help="names of the structures 1, 2 ...")
    parser.add_argument("--settings", metavar="FILE.json", help="preprocessing, inference, inputs, title, licence ...")
    parser.add_argument("--channels", type=int, metavar="N", help="image channels (default: told by the weights)")
    parser.add_argument("--fold", metavar="N", help="of a folder with several (default: all, else the first)")
    parser.add_argument("--mirror", action="store_true", help="average over mirrored images, as nnU-Net does: slower")
    parser.set_defaults(command=_import)


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",")]


def _import(options: argparse.Namespace) -> None:
    request = {key: getattr(options, key) for key in ("checkpoint", "output", "network", "labels", "settings", "fold")}
    request |= {"trust": options.trust, "mirror": options.mirror, "in_channels": options.channels}
    result = run_job("import", {key: value for key, value in request.items() if value is not None}, options.verbose)
    if options.json:
        print_json(result)
        return
    print(f"{result['id']}: {result['network']}, {result['parameters'] / 1e6:.2f} M parameters, all of them loaded.")
    for note in result["notes"]:
        print(f"  Note: {note}")
    print(f"Written to {Path(result['bundle'])}. Try it: mambaseg segment IMAGE -m {result['id']} -o labels.seg.nrrd")
