"""The processes of a pool: each computes on its share of the cores."""

import os
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

from triptych.utils.process import begin_worker


def test_every_process_of_a_pool_has_its_threads() -> None:
    with ProcessPoolExecutor(1, get_context("spawn"), begin_worker, (3,)) as pool:
        assert pool.submit(os.getenv, "OMP_NUM_THREADS").result() == "3"
