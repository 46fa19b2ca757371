"""Workers on a Ray cluster, one a GPU: `AES_STORAGE=… AES_NAME=ads python ray_workers.py`.

Create the search first: `optuna-aes search TABLE … --storage "$AES_STORAGE" --name ads --no-run`. Without Ray it starts
AES_WORKERS of them (2 if not given) on this machine. AES_DATA is the encoded dataset, where it lies elsewhere.
"""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec


def work(storage: str, name: str, data: str | None) -> int:
    """Runs one worker to its end; its exit code."""
    command = [sys.executable, "-m", "optuna_aes", "worker", "--storage", storage, "--name", name, "--quiet"]
    return subprocess.run(command + (["--data", data] if data else [])).returncode


def main() -> int:
    search = os.environ["AES_STORAGE"], os.environ["AES_NAME"], os.environ.get("AES_DATA")
    if find_spec("ray") is None:
        from concurrent.futures import ThreadPoolExecutor

        count = int(os.environ.get("AES_WORKERS", "2"))
        with ThreadPoolExecutor(count) as pool:
            return max(pool.map(lambda _: work(*search), range(count)))
    import ray

    ray.init(address="auto")
    gpus = int(ray.cluster_resources().get("GPU", 0))
    count = int(os.environ.get("AES_WORKERS", gpus or 2))
    remote = ray.remote(num_gpus=1 if gpus else 0, max_retries=10)(work)
    return max(ray.get([remote.remote(*search) for _ in range(count)]))


if __name__ == "__main__":
    sys.exit(main())
