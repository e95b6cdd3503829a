"""Several processes that train one network, each on its share of every batch (torch's DistributedDataParallel).

    torchrun --nproc-per-node 4 -m MambaSegLib.cli train config.json -o folder --distributed

On several machines the launcher also gets --nnodes 2 --node-rank 0 (1 on the second) --master-addr HOST.
It tells every process who it is by RANK, LOCAL_RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT. Every process makes the
same batch and learns from its own part of it, so together they see what one process would. Gradients are averaged:
cross-entropy is that of the whole batch, Dice the mean over the parts. Only rank 0 validates and writes.
"""

import contextlib
import datetime
import os
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from MambaSegLib.errors import UserError
from MambaSegLib.inference import resolve_device

LAUNCHER = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
PATIENCE = datetime.timedelta(hours=12)  # others wait while rank 0 validates


@dataclass(frozen=True)
class Ranks:
    """This process among ``size``; ``group`` carries numbers and objects (gloo, whatever the gradients go by)."""

    rank: int = 0
    size: int = 1
    group: object = None

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def share(self, batch: Tensor) -> Tensor:
        """The part of a batch (B, ...) that is this process's."""
        return batch[self.rank :: self.size]

    def mean(self, value: float) -> float:
        """Over all processes: the same number everywhere, so that all decide alike."""
        if self.size == 1:
            return value
        total = torch.tensor([value], dtype=torch.float64)
        dist.all_reduce(total, group=self.group)
        return total.item() / self.size

    def from_first(self, make):
        """What ``make()`` gives on rank 0, on every rank; its error too."""
        if self.size == 1:
            return make()
        content = [None, None]
        if self.is_first:
            try:
                content[0] = make()
            except UserError as error:
                content[1] = (error.message, error.hint)
        dist.broadcast_object_list(content, src=0, group=self.group)
        if content[1]:
            raise UserError(*content[1])
        return content[0]

    def forward_of(self, network: nn.Module):
        """``forward_multiscale``, its gradients averaged over the processes."""
        if self.size == 1:
            return network.forward_multiscale
        if next(network.parameters()).is_cuda:
            network = nn.SyncBatchNorm.convert_sync_batchnorm(network)
        return DistributedDataParallel(_Levels(network), find_unused_parameters=True)


class _Levels(nn.Module):
    """DistributedDataParallel looks at ``forward`` alone."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> list[Tensor]:
        return self.network.forward_multiscale(images)


@contextlib.contextmanager
def joined(device_name: str, batch: int):
    """Join the processes that ``torchrun`` started; gives (Ranks, this process's device).

    Raises:
        UserError: not started by a launcher, or a batch that cannot be shared equally.
    """
    if missing := [name for name in LAUNCHER if name not in os.environ]:
        raise UserError(
            f"--distributed needs the environment of a launcher, but {', '.join(missing)} is not set.",
            "Start with: torchrun --nproc-per-node N -m MambaSegLib.cli train CONFIG -o FOLDER --distributed",
        )
    size, local = int(os.environ["WORLD_SIZE"]), int(os.environ["LOCAL_RANK"])
    if batch % size:
        raise UserError(f"A batch of {batch} cannot be shared by {size} processes.", "Make 'batch' a multiple of that.")
    device = resolve_device(device_name)
    if device.type == "cuda":
        device = resolve_device(f"cuda:{local}")
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=PATIENCE)
    try:
        yield Ranks(dist.get_rank(), size, dist.new_group(backend="gloo", timeout=PATIENCE)), device
    finally:
        dist.destroy_process_group()
