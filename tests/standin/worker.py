"""One of several processes with the stand-in: `torchrun worker.py train ...` runs that command of triptych."""

import sys

from triptych.utils.process import prepare_process

prepare_process()
import hccl  # noqa: E402, F401
import npu  # noqa: E402
import torch  # noqa: E402

from triptych.__main__ import main  # noqa: E402

torch.set_num_threads(1)
try:
    main(sys.argv[1:])
finally:
    print("hccl calls:", npu.CALLS["hccl allreduce"], file=sys.stderr, flush=True)
