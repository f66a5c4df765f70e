"""Make the committed fits anew: ``python -m simulator.replay.refit NAME``. ``attnsim replay`` never does this."""

from __future__ import annotations

import sys

from simulator.replay import refit_clusters
from simulator.replay.refit_kernels import refit_longca_block_sparse, refit_magi_kernels
from simulator.replay.refit_network import refit_nccl

REFITS = {
    "magi-kernels": refit_magi_kernels,
    "longca-block-sparse": refit_longca_block_sparse,
    "magi-distributed": refit_clusters.refit_magi_distributed,
    "burst-bench": refit_clusters.refit_burst_bench,
    "burst-first-token": refit_clusters.refit_burst_first_token,
    "burst-profile": refit_clusters.refit_burst_profile,
    "nccl": refit_nccl,
    "usp": refit_clusters.refit_usp,
}

if __name__ == "__main__":
    REFITS[sys.argv[1]]()
