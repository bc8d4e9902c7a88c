"""Loads a run's model into the PyTorch reference, strictly, and evaluates the built-in digits with it: checkpoint_loads.py RUN_DIR

Run by hand where PyTorch is installed (pip install torch safetensors numpy); no other test needs it.
"""
import gzip
import json
import sys
import tomllib
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file

sys.path.insert(0, str(Path(__file__).parent / "reference"))
import models

run = Path(sys.argv[1])
config = tomllib.loads((run / "config.toml").read_text())
assert config["data"]["kind"] == "digits", "this check brings the digits"
options = {key: value for key, value in config["model"].items() if key not in ("kind", "init")}
net = models.build(config["model"]["kind"], 1, 8, 10, **options)
missing = net.load_state_dict(load_file(run / "final.safetensors"), strict=False)
assert not missing.unexpected_keys and all(key.endswith("num_batches_tracked") for key in missing.missing_keys), missing
rows = np.loadtxt(gzip.open(Path(__file__).parent.parent / "crates/strath-data/assets/digits.csv.gz", "rt"), delimiter=",")[1437:]
images = torch.tensor((rows[:, :64].reshape(-1, 1, 8, 8) / 16 - 0.3053) / 0.3760, dtype=torch.float32)
with torch.no_grad():
    error = float((net.eval()(images).argmax(1) != torch.tensor(rows[:, 64])).double().mean())
want = json.loads((run / "summary.json").read_text())["test_error"]
assert abs(error - want) < 1e-9, (error, want)
print(f"ok: PyTorch loads the model and finds the same test error, {100 * error:.2f} %")
