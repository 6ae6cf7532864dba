"""torchrun, whose report of a process that died is one line: `python -m triptych_torch.torchrun`, its own options."""

import logging
import sys

from torch.distributed import run
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

from triptych.backend.joining import ended

SHUTDOWN_SECONDS = 10  # that the others have, once one has died

if __name__ == "__main__":
    logging.getLogger("torch").setLevel(logging.CRITICAL)
    options = run.parse_args(sys.argv[1:])
    options.shutdown_timeout = SHUTDOWN_SECONDS
    try:
        run.run(options)
    except ChildFailedError as error:
        # who was killed, before who then missed it: both may have ended between two looks of torchrun
        killed = [(rank, failure) for rank, failure in error.failures.items() if failure.exitcode < 0]
        rank, failure = killed[0] if killed else error.get_first_failure()
        if failure.exitcode < 0:
            print(f"triptych: {ended(f'process {rank}', failure.exitcode)}", file=sys.stderr)
        sys.exit(failure.exitcode if failure.exitcode > 0 else 1)
