"""ComfyUI runs this file of a node pack before it loads torch."""

import runpy
from pathlib import Path

runpy.run_path(str(Path(__file__).with_name("iso3d_core") / "waiting.py"))["wait_briefly"]()
