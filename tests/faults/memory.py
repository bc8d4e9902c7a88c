"""A bit of the weights in another process's memory is turned over.

Weights move at every step, so they are looked for by their likeness to those of the newest checkpoint: floats in a row with the same signs and about
the same sizes. That finds w itself and the w + epsilon that are under way; the process stands still while a bit of each is turned over.
"""
import json
import os
import re
import signal
import struct
from pathlib import Path

ROW = 24  # floats in a row
LEAST, MOST = 0.6, 1.6  # of what the checkpoint says


def newest_weights(out):
    """The tensors of the newest checkpoint, as lists of floats; none where there is no checkpoint."""
    files = [file for file in out.glob("checkpoints/step-*.safetensors") if not file.name.endswith(".state.safetensors")]
    if not files:
        return []
    try:
        data = max(files, key=lambda file: int(file.name.split(".")[0][5:])).read_bytes()
    except FileNotFoundError:  # an old one, removed meanwhile
        return []
    length = struct.unpack("<Q", data[:8])[0]
    header, body = json.loads(data[8 : 8 + length]), data[8 + length :]
    spans = [tensor["data_offsets"] for name, tensor in header.items() if name != "__metadata__"]
    return [struct.unpack(f"<{(end - start) // 4}f", body[start:end]) for start, end in spans]


def upper(value):
    """The upper 16 bits of a float: sign, exponent and the first bits of its mantissa."""
    return struct.unpack("<I", struct.pack("<f", value))[0] >> 16


def like(value):
    """What the upper two bytes of a float like this one are, in their order in memory."""
    least, most = sorted((upper(value * LEAST), upper(value * MOST)))
    parts = []
    for top in range(least >> 8, (most >> 8) + 1):
        low, high = max(least, top << 8) & 255, min(most, (top << 8) | 255) & 255
        parts.append(b"[" + b"".join(re.escape(bytes([byte])) for byte in range(low, high + 1)) + b"]" + re.escape(bytes([top])))
    return b"(?:" + b"|".join(parts) + b")"


def pattern(tensors):
    """An expression for the last byte of a row of weights' first float and what follows it; None: no row is telling enough."""
    best, row = 0.0, None
    for tensor in tensors:
        for at in range(0, len(tensor) - ROW, ROW // 2):
            these = tensor[at : at + ROW]
            # The last byte of the first one is known: so the search is fast.
            steady = upper(these[0] * LEAST) >> 8 == upper(these[0] * MOST) >> 8
            smallest = min(map(abs, these))
            if steady and smallest > best and any(x < 0 for x in these) and any(x > 0 for x in these):
                best, row = smallest, these
    if row is None:
        return None
    first = re.escape(bytes([upper(row[0]) >> 8]))
    return re.compile(first + b"".join(b".." + like(value) for value in row[1:]), re.DOTALL)


def places(pid, expression):
    """Where in a process's memory such rows begin."""
    found = []
    with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            span, rights, *_ = line.split()
            if rights != "rw-p":
                continue
            start, end = (int(part, 16) for part in span.split("-"))
            try:
                memory.seek(start)
                held = memory.read(end - start)
            except (OSError, ValueError):  # gone, or of pages that cannot be read
                continue
            found += [start + match.start() - 3 for match in expression.finditer(held) if (start + match.start()) % 4 == 3]
    return found


def turn_over(pid, out):
    """Turns over the last bit of a weight, in each copy that is found; how many there were."""
    expression = pattern(newest_weights(out))
    if expression is None:
        return 0
    try:
        found, turned = places(pid, expression), 0
        os.kill(pid, signal.SIGSTOP)
        with open(f"/proc/{pid}/mem", "r+b", buffering=0) as memory:
            for place in found:
                memory.seek(place)
                row = memory.read(4 * ROW)
                if expression.match(row, 3):
                    memory.seek(place)
                    memory.write(bytes([row[0] ^ 1]))
                    turned += 1
    except (OSError, ValueError):  # the process has ended
        return 0
    finally:
        resume(pid)
    return turned


def resume(pid):
    try:
        os.kill(pid, signal.SIGCONT)
    except ProcessLookupError:
        pass


def can_write():
    """Whether another process's memory can be written to (kernel.yama.ptrace_scope)."""
    if (child := os.fork()) == 0:
        signal.pause()
        os._exit(0)
    try:
        with open(f"/proc/{child}/mem", "r+b", buffering=0):
            return True
    except OSError:
        return False
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
