"""`simulate`, killed by itself in the middle of its second recording.

    python killed_film.py PICTURES ARGUMENTS…

after so many pictures of it.
"""

import os
import signal
import subprocess
import sys
from pathlib import Path


def run(pictures, *arguments):
    """Run it in a process; returns its exit code."""
    command = [sys.executable, __file__, str(pictures), *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    return subprocess.run(
        command, stdout=subprocess.DEVNULL, timeout=300, env=environment, check=False
    ).returncode


def _film(after, arguments):
    from sspd_jax.cli import simulate
    from sspd_jax.simulation import sample_video

    write_video, begun = sample_video.write_video, []

    def write_until_killed(path, pictures, *given, **named):
        def some():
            for number, picture in enumerate(pictures, 1):
                yield picture
                if len(begun) == 2 and number == after:
                    os.kill(os.getpid(), signal.SIGKILL)

        begun.append(path)
        write_video(path, some(), *given, **named)

    sample_video.write_video = write_until_killed
    simulate.main(arguments)


if __name__ == "__main__":
    _film(int(sys.argv[1]), sys.argv[2:])
