"""Workers of a plan: what a terminal sends to all processes is answered by one."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]

ASK = """
import signal
from simulator.planning.runners import open_runner

if __name__ == "__main__":
    with open_runner(workers=2) as runner:
        masked = runner._pool.submit(signal.pthread_sigmask, signal.SIG_BLOCK, []).result()
        own = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    print(int(signal.SIGINT in masked), int(signal.SIGINT in own))
"""


def test_workers_leave_ctrl_c_to_the_process_that_started_them(tmp_path: Path) -> None:
    """In a process of its own: the server that workers are forked from is started once."""
    script = tmp_path / "ask.py"
    script.write_text(ASK)
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, env={"PYTHONPATH": str(ROOT)}, timeout=60
    )
    assert done.stdout == "1 0\n", done.stderr
