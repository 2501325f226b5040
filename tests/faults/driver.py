"""`run_grid.py` with faults: FAULT names one, and what it is given to do.

skew:<seconds>     this machine's clock is wrong by so much
memory             a training whose micro-batch is above 4 finds no room in the middle
"""

import os
import sys
import time


def main() -> int:
    fault, _, value = os.environ.get("FAULT", "").partition(":")
    if fault == "skew":
        right = time.time
        time.time = lambda: right() + float(value)
    from orchestrator.running import jobs

    if fault == "memory":
        jobs.WORKER_JOBS = {**jobs.WORKER_JOBS, "train": "fault_jobs:train"}
    import run_grid

    return run_grid.main()


if __name__ == "__main__":
    sys.exit(main())
