"""A small disk of its own, that can be filled and freed."""
import os
import subprocess

SIZE = "64m"  # a run's record and checkpoints have room


class Disk:
    """A tmpfs at `folder`, where one can be mounted; else the folder, which is never full."""

    def __init__(self, folder):
        self.folder, self.filler = folder, folder / "filler"
        folder.mkdir()
        mount = ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "chaos", str(folder)]
        self.mounted = subprocess.run(mount, stderr=subprocess.DEVNULL).returncode == 0

    def fill(self, room):
        """Leaves so many bytes."""
        with open(self.filler, "wb", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(1 << 20))
            except OSError:
                pass
            file.truncate(max(0, file.tell() - room))

    def free(self):
        self.filler.unlink(missing_ok=True)

    def end(self):
        """Leaves what was written beside the place of the disk, where that is wanted, to whoever calls."""
        if self.mounted:
            subprocess.run(["umount", "--lazy", str(self.folder)])


def can_mount(place):
    probe = Disk(place / "probe-disk")
    probe.end()
    os.rmdir(probe.folder)
    return probe.mounted
