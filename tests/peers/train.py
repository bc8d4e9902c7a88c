"""A run of `strath train` for its metrics; what the scripts beside this one measure with."""
import json
import subprocess
import tempfile
from pathlib import Path


def steps(strath, sets, warm_up, config=None, timeout=None):
    """Rank 0's lines of metrics of the steps after the first `warm_up`. `sets` are the keys that are set, over the text `config` or,
    without one, over the built-in digits; there is neither an evaluation nor a checkpoint before the end."""
    sets = {**sets, "run.eval_every_epochs": 10**6, "checkpoint.every_steps": 10**6}
    with tempfile.TemporaryDirectory() as folder:
        file, out = Path(folder) / "run.toml", Path(folder) / "out"
        if config:
            file.write_text(config)
        arguments = [f"--set={key}={json.dumps(value)}" for key, value in sets.items()]
        command = [strath, "train", *([file] if config else []), "--out", out, *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout)
        if done.returncode:
            raise SystemExit(f"strath train ended with {done.returncode}: {done.stderr.strip()[-500:]}")
        lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if line["kind"] == "step"][warm_up:]
