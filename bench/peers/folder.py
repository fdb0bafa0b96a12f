"""Writes a model's folder: `python -m bench.peers.folder FOLDER MODEL LENGTHS`."""

import sys
from pathlib import Path

from bench.peers.workload import LENGTHS, write_folder

if __name__ == "__main__":
    write_folder(Path(sys.argv[1]), sys.argv[2], LENGTHS[sys.argv[3]])
