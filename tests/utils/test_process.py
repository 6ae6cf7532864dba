"""The processes of a pool: each computes on its share of the cores, and so do those that take their places."""

import os
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

from triptych.utils.process import begin_worker


def test_every_process_of_a_pool_and_its_successors_have_their_threads() -> None:
    with ProcessPoolExecutor(1, get_context("spawn"), begin_worker, (3,), max_tasks_per_child=1) as pool:
        runs = [pool.submit(os.getpid).result(), pool.submit(os.getpid).result()]
        threads = [pool.submit(os.getenv, "OMP_NUM_THREADS").result() for _ in range(2)]
    assert len(set(runs)) == 2
    assert threads == ["3", "3"]
