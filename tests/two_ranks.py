"""One rank of two that train together, for tests: `python two_ranks.py '<JSON>'`.

The JSON: `job`, the keyword arguments of `train` as paths, `group`, and `stop_at`: this process is asked to stop at
the beginning of that optimizer step. Prints how the training ended: `done`, or the name of the error and what it says.
"""

import json
import sys
from pathlib import Path

from workers import training
from workers.errors import Interrupted
from workers.settings import ProcessGroup, TrainJob
from workers.stopping import request_stop


def main(given: dict) -> None:
    original, steps = training._optimizer_step, []

    def step(*arguments):
        steps.append(1)
        if len(steps) == given.get("stop_at"):
            request_stop()
        return original(*arguments)

    training._optimizer_step = step
    folders = {name: Path(folder) for name, folder in given["folders"].items()}
    try:
        training.train(TrainJob(**given["job"]), **folders, group=ProcessGroup(**given["group"]))
        print("done")
    except Interrupted as stopped:
        print(f"Interrupted: {stopped}")


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
